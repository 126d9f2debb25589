"""Datasets as Zarr v3 arrays in a folder of a local file system.

::

    directory/name/            the connection: a Zarr group
        zarr.json
        entry/                 a group
            zarr.json
            tomo/              a dataset: a Zarr array
                zarr.json
                c/0/1/2        a chunk, or a shard of many
                .lock          an empty file, whose byte ranges are locked

Every file is replaced by renaming a complete one over it, under the lock of its object.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from dosna.backends.base import Backend, BackendDataset
from dosna.backends.folders.batch import only_chunk
from dosna.backends.folders.connection import CREATING, FolderConnection
from dosna.backends.zarr.dataset import FileDataset, open_dataset
from dosna.backends.zarr.folder import ArrayHome, make_folders
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import check_group, parents
from dosna.core.plan import every_chunk
from dosna.core.types import Array
from dosna.errors import (
    ConnectionError,
    DatasetNameError,
    DatasetNotFoundError,
    DosnaError,
    FormatError,
    StorageError,
)
from dosna.io.files import (
    LOCK,
    TEMPORARY,
    disk,
    is_absent,
    open_folder,
    replace_file,
    write_new,
)
from dosna.io.holding import holding
from dosna.io.locks import RangeLocks, open_descriptor

__all__ = ["BACKEND", "FileConnection", "FileDataset"]


class FileConnection(FolderConnection, ArrayHome):
    """A folder that is a Zarr group, whose arrays are datasets.

    The parameters are those of `FolderConnection`. Without `durable`, the writes of the last
    seconds before a power loss may be lost. A chunk is then as it was before, or reading it is an
    error, or it is fill if it did not exist. It is never a mixture on file systems that, like
    ext4, xfs and btrfs, order a rename after the data. ``zarr.json`` is always synchronized.
    `FileDataset.flush` makes everything written so far durable.
    """

    description: ClassVar[str] = zarr3.DOCUMENT
    group_file: ClassVar[str] = zarr3.DOCUMENT
    group_document: ClassVar[bytes | None] = zarr3.GROUP

    def create_array(self, name: str, metadata: DatasetMetadata) -> FileDataset:
        image = zarr3.to_json(metadata)
        self.drop_consolidated(name)
        made: FileDataset = self.make_folder(name, lambda path: self.fill(path, image, metadata))
        return made

    def described(
        self, metadata: DatasetMetadata, **options: Any
    ) -> tuple[DatasetMetadata, bytes]:
        made = zarr3.new_array(metadata, **options)
        return made, zarr3.to_json(made)

    def fill(
        self,
        path: str,
        image: bytes,
        metadata: DatasetMetadata,
        values: Array | None = None,
        durable: bool = True,
    ) -> None:
        folder = open_folder(path)
        try:
            os.close(os.open(LOCK, os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=folder))
            if durable:
                replace_file(folder, zarr3.DOCUMENT, [image], len(image), durable)
            else:
                write_new(folder, zarr3.DOCUMENT, [image], len(image))
            if values is not None and not zarr3.is_sharded(metadata):
                layout = zarr3.layout(metadata)
                key = layout.template % ((0,) * metadata.ndim)
                parts = layout.pipeline.encode(only_chunk(metadata, values))
                if "/" in key:
                    make_folders(folder, os.path.dirname(key), False)
                write_new(folder, key, parts, sum(len(part) for part in parts))
                return
        finally:
            os.close(folder)
        if values is not None:
            made = open_dataset(self, os.path.relpath(path, self.path))
            made.write_many(values, every_chunk(metadata.shape, made.grain))

    def connect(self) -> None:
        if os.path.isdir(self.path) and _is_version_2(self.path):
            raise ConnectionError(
                f"{self.path} is of Zarr version 2, and the backend file is of version 3: "
                f"con.ingest({self.path!r}) reads it into another connection"
            )
        with disk(f"connect to {self.path}"):
            document = _read(self.path)
        if document is not None:
            try:
                zarr3.node_type(document, os.path.join(self.path, zarr3.DOCUMENT))
            except FormatError as error:
                raise ConnectionError(
                    f"cannot connect to {self.path}: {error}. Restore the file from a copy, or "
                    "delete it if the folder is a group: then only its attributes are lost"
                ) from error
        super().connect()

    def get_dataset(self, name: str) -> FileDataset:
        try:
            return open_dataset(self, name)
        except DatasetNotFoundError as error:
            path = self._path(name)
            if not _is_version_2(path):
                raise
            raise DatasetNotFoundError(
                f"there is no dataset {name!r}: {path} is of Zarr version 2, which con.ingest "
                "reads into a connection"
            ) from error

    def holds_dataset(self, path: str) -> bool:
        document = _read(path)
        if document is None:
            return False
        try:
            return bool(zarr3.node_type(document, path) == "array")
        except FormatError:
            return True  # Opening it tells what is wrong.

    def make_parents(self, name: str) -> None:
        self.check_writable()
        for above in parents(name):
            path = os.path.join(self.path, above)
            if _read(path) is not None:
                continue
            with suppress(FileExistsError):
                os.mkdir(path)
            if _is_version_2(path):
                raise DatasetNameError(
                    f"{path} is of Zarr version 2: what other programs find there would be hidden "
                    "by datasets, which are of version 3; use another name"
                )
            _write(path, zarr3.GROUP)

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        self._check_inside(name)
        self.drop_consolidated(name)
        super().del_dataset(name, only)

    def replace_dataset(self, temporary: str, name: str) -> None:
        self.drop_consolidated(name)
        super().replace_dataset(temporary, name)

    def drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above a dataset or group about to change.

        This includes the groups that the folder of the connection is in.
        """
        self.check_writable()
        path = self.path
        places = [os.path.join(path, above) for above in ["", *parents(name)]]
        while (path := os.path.dirname(path)) != os.path.dirname(path) and _read(path):
            places.append(path)
        for place in places:
            try:
                document = _read(place)
                if document is None or zarr3.without_consolidated(document, place) is None:
                    continue
                with self.names_held("change group in"):
                    document = zarr3.without_consolidated(_read(place) or b"", place)
                    if document is not None:
                        _write(place, document)
            except (OSError, DosnaError) as error:
                warnings.warn(
                    f"consolidated metadata in {place} may become wrong, and other programs use "
                    "them; "
                    f"they cannot be removed ({error}): call zarr.consolidate_metadata there",
                    stacklevel=2,
                )

    @property
    def keeps_groups(self) -> bool:
        return True

    def group_attrs(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        with disk(f"read group {name!r} in {self.path}"):
            document = _read(path)
            if document is None:
                return {}
            return zarr3.group_attributes(document, os.path.join(path, zarr3.DOCUMENT))

    def group_image(self, name: str, before: bytes | None, attrs: Mapping[str, Any]) -> bytes:
        where = os.path.join(self._path(name), zarr3.DOCUMENT)
        return zarr3.with_attributes(before or zarr3.GROUP, attrs, where)

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        self.change_group_attrs(name, lambda before: attrs)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        self.drop_consolidated(name)
        with self.names_held(f"change group {name!r} in"):
            check_group(name, self)
            path, member = self._path(name), f"{name}/x" if name else "x"
            try:
                self.make_parents(member)
                attrs = change(self.group_attrs(name))
                _write(path, self.group_image(name, _read(path), attrs))
            except BaseException:
                self._remove_empty_parents(member)
                raise
            if not attrs:
                self._remove_empty_parents(member)

    def clear_group(self, path: str) -> None:
        with suppress(OSError):
            if set(os.listdir(path)) <= {zarr3.DOCUMENT, zarr3.DOCUMENT + TEMPORARY}:
                document = _read(path)
                if document is not None and json.loads(document) == json.loads(zarr3.GROUP):
                    os.unlink(os.path.join(path, zarr3.DOCUMENT))

    @holding
    def names_held(self, what: str) -> Iterator[None]:
        self.check_writable()
        # The group's own document is locked, because Zarr would take any other file there for a
        # broken member. A process that replaces the document makes the lock void. Then only one
        # of two renames to the same name can succeed.
        path = os.path.join(self.path, zarr3.DOCUMENT)
        while True:
            with disk(f"{what} {self.path}"):
                if _read(self.path) is None:
                    if os.path.lexists(path) and not os.path.isfile(path):
                        raise StorageError(
                            errno.EINVAL,
                            f"{what} {self.path}: {path} is not a file, so that the folder "
                            "cannot be a group: move it away",
                        )
                    _found(self.path)
                    continue
                file = open_descriptor(path, os.O_RDWR)
                locks = RangeLocks(lambda file=file: file, path)  # type: ignore[misc]
                with locks.exclusive():
                    if os.path.samestat(os.fstat(file), os.stat(path)):
                        yield
                        return
                locks.close()


def _read(path: str) -> bytes | None:
    """Read the document of a folder. Return None if it has none."""
    where = os.path.join(path, zarr3.DOCUMENT)
    try:
        if not stat.S_ISREG(os.stat(where).st_mode):
            return None
        with open(where, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        if is_absent(error):
            return None
        raise


def _is_version_2(path: str) -> bool:
    """Return True if a folder is an array or group of Zarr version 2 and not also of 3."""
    old = any(os.path.exists(os.path.join(path, name)) for name in zarr3.VERSION_2)
    return old and _read(path) is None


def _write(path: str, document: bytes) -> None:
    folder = open_folder(path)
    try:
        replace_file(folder, zarr3.DOCUMENT, [document], len(document), durable=True)
    finally:
        os.close(folder)


def _found(path: str) -> None:
    """Make a folder a Zarr group. Of several concurrent calls, one wins."""
    own = os.path.join(path, CREATING + secrets.token_hex(8))
    with open(own, "wb") as file:
        file.write(zarr3.GROUP)
        file.flush()
        os.fsync(file.fileno())
    # Another process may have been faster, and a sweep of it may have removed this file.
    with suppress(FileExistsError, FileNotFoundError):
        os.link(own, os.path.join(path, zarr3.DOCUMENT))
    with suppress(FileNotFoundError):
        os.unlink(own)


BACKEND = Backend(
    name="file",
    connection=FileConnection,
    description="a folder of Zarr v3 arrays",
    url="https://zarr.dev",
)
