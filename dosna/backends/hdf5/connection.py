"""Datasets as folders of HDF5 files, one for each chunk.

::

    directory/name/            the connection
        entry/tomo/            a dataset
            dataset.h5         its metadata, and /data: the whole array as a virtual dataset
            chunk_0_1_2.h5     /data: one chunk
            .lock              an empty file, whose byte ranges are locked
            .written-0         a byte for each chunk: whether it was written
            .group.json        in a folder above datasets: the attributes of the group

A chunk file without filters is a constant header and the raw elements, so it is read and
written as plain bytes. HDF5 itself reads it only if the header is not the expected one. Every
file is replaced by renaming a complete one over it, under the chunk's lock.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np

from dosna.backends.base import Backend
from dosna.backends.folders.batch import only_chunk
from dosna.backends.folders.connection import FolderConnection
from dosna.backends.hdf5 import chunkfile as h5format
from dosna.backends.hdf5.dataset import H5Dataset
from dosna.backends.hdf5.folder import DESCRIPTION, Record, write_rows
from dosna.backends.hdf5.frame import file_of
from dosna.core.metadata import FORMAT_VERSION, DatasetMetadata, check_dims, check_format_version
from dosna.core.names import check_group
from dosna.core.options import check_choice
from dosna.core.types import Array
from dosna.errors import ConfigurationError, FormatError
from dosna.io.files import LOCK, disk, is_absent, replace_file, write_new
from dosna.io.locks import open_descriptor

__all__ = ["BACKEND", "H5Connection", "H5Dataset"]

GROUP = ".group.json"
"""The file with the attributes of a group."""


class H5Connection(FolderConnection):
    """A folder whose subfolders are datasets.

    The parameters are those of `FolderConnection`. Without `durable`, the writes of the last
    seconds before a power loss may be lost. A chunk is then as it was before, or reading it is an
    error. It is never fill values or a mixture on file systems that, like ext4, xfs and btrfs,
    order a rename after the data. ``dataset.h5`` is always synchronized. `H5Dataset.flush` makes
    all earlier writes durable.
    """

    description: ClassVar[str] = DESCRIPTION
    group_file: ClassVar[str] = GROUP
    nul_in_text: ClassVar[bool] = False

    def create_dataset(
        self,
        name: str,
        metadata: DatasetMetadata,
        *,
        compression: str | None = None,
        compression_level: int = 4,
        checksum: bool = False,
        virtual: bool | None = None,
        dims: Sequence[str | None] | None = None,
    ) -> H5Dataset:
        """Create a dataset, or raise DatasetExistsError.

        If several processes create it at the same time, one succeeds.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The metadata of the dataset.
        compression : {None, 'gzip'}
            The compression; 'gzip' is HDF5's own filter, which every HDF5 program reads.
        compression_level : int
            The level of the compression, 1 (fast) to 9 (small).
        checksum : bool
            Whether chunks carry HDF5's Fletcher-32 checksum, checked at every read.
        virtual : bool, optional
            Whether ``dataset.h5`` shows the whole array as a virtual dataset ``/data``. By
            default it does for up to 10,000 chunks; each costs about 10 µs when the dataset is
            created.
        dims : sequence of str or None, optional
            The names of the axes.
        """
        metadata, image = _described(
            metadata,
            compression,
            compression_level,
            checksum=checksum,
            virtual=virtual,
            dims=dims,
        )
        made: H5Dataset = self.make_folder(name, lambda path: self.fill(path, image, metadata))
        return made

    def check_dataset(self, name: str, metadata: DatasetMetadata, **options: Any) -> None:
        _described(metadata, **options)

    def described(
        self, metadata: DatasetMetadata, **options: Any
    ) -> tuple[DatasetMetadata, bytes]:
        return _described(metadata, **options)

    def fill(
        self,
        path: str,
        image: bytes,
        metadata: DatasetMetadata,
        values: Array | None = None,
        durable: bool = True,
    ) -> None:
        folder = open_descriptor(path, os.O_RDONLY | os.O_DIRECTORY)
        for name in (LOCK, Record.file_name(metadata.storage["record"])):
            open_descriptor(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder)
        write_rows(folder, metadata, [], durable)
        if values is not None:
            idx = (0,) * metadata.ndim
            parts = file_of(only_chunk(metadata, values), metadata)
            write_new(
                folder, h5format.chunk_name(metadata.ndim) % idx, parts, sum(map(len, parts))
            )
            record = Record(folder, metadata)
            record.begin(idx)
            record.finish(idx, False)
        if durable:
            replace_file(folder, DESCRIPTION, [image], len(image), durable)
        else:
            write_new(folder, DESCRIPTION, [image], len(image))

    def get_dataset(self, name: str) -> H5Dataset:
        return H5Dataset(self, name)

    def disconnect(self) -> None:
        super().disconnect()
        self._locks.close()

    def clear_group(self, path: str) -> None:
        # A process that died inside create_dataset leaves the folders above the dataset.
        folders = [path]
        with suppress(OSError):
            for folder in folders:  # grows
                with os.scandir(folder) as entries:
                    for entry in entries:  # The first file ends this, however many there are.
                        if not entry.is_dir(follow_symlinks=False):
                            return
                        folders.append(entry.path)
            for below in reversed(folders):
                os.rmdir(below)

    @property
    def keeps_groups(self) -> bool:
        return True

    def group_attrs(self, name: str) -> dict[str, Any]:
        path = os.path.join(self.path, name, GROUP)
        with disk(f"read {path}"):
            try:
                with open(path, "rb") as file:
                    found = json.loads(file.read())
                check_format_version(found["dosna_format"], path)
                return dict(found["attrs"])
            except (FileNotFoundError, NotADirectoryError):
                return {}
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(
                    f"{path} is damaged: {error!r}. Restore it from a copy"
                ) from error

    def group_image(self, name: str, before: bytes | None, attrs: Mapping[str, Any]) -> bytes:
        return json.dumps({"dosna_format": FORMAT_VERSION, "attrs": dict(attrs)}).encode()

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        with self.names_held(f"change group {name!r} in"):
            self._set_group(name, attrs)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        with self.names_held(f"change group {name!r} in"):
            self._set_group(name, change(self.group_attrs(name)))

    def _set_group(self, name: str, attrs: Mapping[str, Any]) -> None:
        document = self.group_image(name, None, attrs)
        check_group(name, self)
        folder, member = self._path(name), f"{name}/x" if name else "x"
        if not attrs:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(os.path.join(folder, GROUP))
            self._remove_empty_parents(member)
            return
        try:
            self.make_parents(member)
            at = open_descriptor(folder, os.O_RDONLY | os.O_DIRECTORY)
            replace_file(at, GROUP, [document], len(document), durable=True)
        except BaseException:
            self._remove_empty_parents(member)
            raise

    def holds_dataset(self, path: str) -> bool:
        try:
            status = os.stat(os.path.join(path, DESCRIPTION))
        except OSError as error:
            if is_absent(error):
                return False
            raise
        return stat.S_ISREG(status.st_mode)


def _described(
    metadata: DatasetMetadata,
    compression: str | None = None,
    compression_level: int = 4,
    *,
    checksum: bool = False,
    virtual: bool | None = None,
    dims: Sequence[str | None] | None = None,
) -> tuple[DatasetMetadata, bytes]:
    """Return the metadata of a new dataset, and the bytes of its description."""
    storage = _storage(metadata, compression, compression_level, checksum, virtual)
    names = check_dims(dims, metadata.ndim)
    if names is not None:
        storage["dims"] = list(names)
    metadata = metadata.replace(storage={**metadata.storage, **storage})
    start = h5format.header(metadata) if h5format.is_plain(metadata) else b""
    return metadata, h5format.describe(metadata, start)


def _storage(
    metadata: DatasetMetadata,
    compression: str | None,
    level: int,
    checksum: bool,
    virtual: bool | None,
) -> dict[str, Any]:
    if compression not in (None, "gzip"):
        raise ConfigurationError(f"compression must be None or 'gzip', not {compression!r}")
    if isinstance(level, bool) or not isinstance(level, (int, np.integer)) or not 1 <= level <= 9:
        raise ConfigurationError(f"compression_level must be an integer of 1 to 9, not {level!r}")
    if metadata.ndim > h5format.MOST_AXES:
        raise ConfigurationError(
            f"shape has {metadata.ndim} axes, and HDF5 has at most {h5format.MOST_AXES}"
        )
    check_choice("checksum", checksum, (True, False))
    check_choice("virtual", virtual, (None, True, False))
    if compression or checksum:
        if not metadata.shape:
            raise ConfigurationError("a dataset without axes cannot have compression or checksum")
        if metadata.chunk_nbytes > h5format.MOST_CHUNK_BYTES:
            raise ConfigurationError(
                f"chunks of {metadata.chunk_nbytes} bytes: compression and checksum take less "
                "than 4 GiB, so choose a smaller chunk_size"
            )
    return {
        "compression": compression,
        "level": int(level) if compression else None,
        "checksum": bool(checksum),
        "virtual": virtual,
        "record": 0,
        # The next dataset of this name may get the same inode at once.
        "id": secrets.token_hex(8),
    }


BACKEND = Backend(
    name="hdf5",
    connection=H5Connection,
    description="a folder with an HDF5 file for each chunk",
    url="https://www.hdfgroup.org/solutions/hdf5/",
)
