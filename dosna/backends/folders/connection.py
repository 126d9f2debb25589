"""Connections to a folder whose datasets are created, replaced and deleted as a whole."""

from __future__ import annotations

import errno
import os
import secrets
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, cast

from dosna.backends.base import BackendDataset
from dosna.backends.folders.batch import FolderBatch
from dosna.backends.folders.dataset import FolderDataset
from dosna.backends.folders.exchange import NEW, Replacements
from dosna.backends.folders.handle import FolderHome
from dosna.backends.folders.leftovers import CREATING, DELETING, Leftovers
from dosna.backends.folders.listing import children_of, names_below
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import Children, parents
from dosna.core.types import Array
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    StorageError,
)
from dosna.io.files import (
    LOCK,
    TEMPORARY,
    disk,
    is_absent,
    lock_file,
    make_folder,
    remove_folder,
    sync_file_system,
    sync_folder,
    sync_tree,
)
from dosna.io.holding import holding
from dosna.io.locks import open_descriptor

__all__ = ["CREATING", "FolderConnection"]

_STILL_OPEN = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)
"""The errors of removing a file or folder that a program has open, on NFS and FUSE."""


class FolderConnection(FolderHome):
    """A folder whose subfolders are datasets, which are created and deleted by renaming.

    Parameters
    ----------
    name : str
        The path of the folder, absolute or relative to `directory`. The folder must exist.
    directory : path
        The directory that a relative `name` is in.
    mode : {'a', 'r'}
        The access mode; 'r' refuses every change.
    durable : bool
        True if each write has reached the disk when it returns.
    ordered : bool
        True if a chunk that is overwritten is as it was or as it was written after a power loss,
        on file systems that order a rename after the data. False is faster on those that write
        the data when a file is renamed over another one (ext4, btrfs). Reading a chunk that was
        overwritten in the last half minute before a power loss may then be an error. An ingest of
        few datasets does not wait for their data either. The death of a process does no harm in
        either case.
    """

    shared_between_processes: ClassVar[bool] = True
    stores_text: ClassVar[bool] = True
    parallel_bytes: ClassVar[int] = 1 << 22

    description: ClassVar[str]
    """Name of the file that makes a folder a dataset."""

    group_document: ClassVar[bytes | None] = None
    """Content of the file of that name that makes a folder a group; None if there is none."""

    group_file: ClassVar[str]
    """Name of the file with the attributes of a group."""

    def __init__(
        self,
        name: str,
        directory: str | os.PathLike[str] = ".",
        mode: str = "a",
        durable: bool = False,
        ordered: bool = True,
    ) -> None:
        super().__init__(name, mode)
        self.path = os.path.abspath(os.path.join(os.fspath(directory), name))
        self.durable = durable
        self.ordered = ordered
        self._prepare()

    def _prepare(self) -> None:
        self._locks = lock_file(self.path)
        self._replacements = Replacements(self.path)
        self._leftovers = Leftovers(self.path, self._replacements)

    @classmethod
    def split_url(cls, path: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        if path.startswith("//") and not path.startswith("///"):
            raise ConfigurationError(
                f"URLs of folders have no host: use {path[1:]!r} for an absolute path, "
                f"{path[2:]!r} for a relative one"
            )
        folder, border, name = path.removeprefix("//").partition("//")
        if folder.partition("/")[0] == "~":  # shells leave it as it is behind a colon
            folder = os.path.expanduser(folder)
        if border:
            return folder or "/", name.rstrip("/"), options
        folder = folder.rstrip("/") or folder[:1] or "."
        above, last = os.path.split(folder)
        probe = cls(above or ".", options.get("directory", "."))
        path = os.path.join(probe.path, last)
        with disk(f"look into {path}"):
            if (last in ("", ".", "..") or os.path.isdir(path)) and not probe.holds_dataset(path):
                return folder, "", options
        return above or ".", last, options

    def make_place(self) -> bool:
        self.check_writable()
        return make_folder(self.path)

    def remove_place(self) -> None:
        self.check_writable()
        with suppress(OSError):
            if os.listdir(self.path) == [LOCK]:
                with self._locks.exclusive():
                    if os.listdir(self.path) == [LOCK]:
                        os.unlink(os.path.join(self.path, LOCK))
            self.clear_empty(self.path)

    @property
    def location(self) -> str:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        own = ("_locks", "_replacements", "_leftovers")
        return {k: v for k, v in dict(self.__dict__).items() if k not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def connect(self) -> None:
        if not os.path.isdir(self.path):
            raise ConnectionError(
                f"{self.path} is not a folder: create it, or name the one that holds the datasets"
            )
        with disk(f"connect to {self.path}"):
            if self.holds_dataset(self.path):
                raise ConnectionError(
                    f"{self.path} is a dataset: connect to the folder above it, and open it by "
                    f"its name there, {os.path.basename(self.path)!r}"
                )
        super().connect()
        if self.mode == "a" and self._leftovers.exist():
            with suppress(StorageError), self.names_held("connect to"):
                self._leftovers.sweep()

    # -- methods that a backend overrides -------------------------------------------------

    @property
    def reserved(self) -> frozenset[str]:
        return frozenset({self.description, self.description + TEMPORARY})

    @abstractmethod
    def holds_dataset(self, path: str) -> bool:
        """Return True if a folder is a dataset. Raise OSError if that cannot be determined."""

    @abstractmethod
    def described(
        self, metadata: DatasetMetadata, **options: Any
    ) -> tuple[DatasetMetadata, bytes]:
        """Return the metadata of a new dataset, and the bytes of its description.

        The options are those of `create_dataset`.
        """

    @abstractmethod
    def fill(
        self,
        path: str,
        image: bytes,
        metadata: DatasetMetadata,
        values: Array | None = None,
        durable: bool = True,
    ) -> None:
        """Fill the folder of a new dataset, before it gets its name.

        Parameters
        ----------
        path : str
            The path of the folder, inside that of the connection.
        image : bytes
            The bytes of the description.
        metadata : DatasetMetadata
            The metadata of the dataset.
        values : ndarray, optional
            All elements of an array of one chunk, which is written too.
        durable : bool
            True if the description must have reached the disk afterwards.
        """

    def group_bytes(self, name: str) -> bytes | None:
        """Return the content of the file with the attributes of a group, or None."""
        try:
            with open(os.path.join(self._path(name), self.group_file), "rb") as file:
                return file.read()
        except OSError as error:
            if is_absent(error):
                return None
            raise

    @abstractmethod
    def group_image(self, name: str, before: bytes | None, attrs: Mapping[str, Any]) -> bytes:
        """Return the next content of that file, after what it was before."""

    def drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above a dataset that is about to change."""
        self.check_writable()

    def make_parents(self, name: str) -> None:
        """Create the folders above a dataset."""
        self.check_writable()
        os.makedirs(os.path.dirname(self._path(name)), exist_ok=True)

    def clear_group(self, path: str) -> None:
        """Remove what was created in a folder for datasets below it, if it holds nothing else."""

    # -------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return self.holds_dataset(self._path(str(name)))

    def clear_empty(self, path: str) -> bool:
        """Remove a folder if it holds only what was created for datasets below it.

        Return True if nothing exists at `path` afterwards.
        """
        self.check_writable()
        if not os.path.islink(path):
            self.clear_group(path)
            with suppress(OSError):
                os.rmdir(path)
        return not os.path.lexists(path)

    def make_folder(self, name: str, fill: Callable[[str], None]) -> Any:
        """Create a dataset, which `fill` fills before it is visible, and open it."""
        path, fresh = self._path(name), self._path(CREATING + secrets.token_hex(8))
        with self.names_held(f"create dataset {name!r} in"):
            self._leftovers.sweep_if_changed()
            self._check_free(name, path)
            os.mkdir(fresh)
            try:
                fill(fresh)
                self._move(fresh, name)
                made = self.get_dataset(name)
            except BaseException:
                with suppress(OSError):  # a sweep will remove it
                    if not os.path.lexists(fresh):  # it has its name already
                        os.rename(path, fresh)
                        self._remove_empty_parents(name)
                    remove_folder(fresh)
                raise
            if self.durable:
                for above in ["", *parents(name)]:
                    sync_folder(self._path(above))
            self._leftovers.note()
            return made

    def create_whole(
        self, name: str, metadata: DatasetMetadata, values: Array, **options: Any
    ) -> BackendDataset | None:
        if not values.size:
            return None
        metadata, image = self.described(metadata, **options)

        def fill(path: str) -> None:
            self.fill(path, image, metadata, values, durable=False)
            sync_tree(open_descriptor(path, os.O_RDONLY | os.O_DIRECTORY))

        self.drop_consolidated(name)
        made: BackendDataset = self.make_folder(name, fill)
        return made

    def place(self, fresh: str, name: str, groups: set[str]) -> None:
        """Give a hidden folder its name. The caller holds the lock of the names.

        `groups` are those that are known to exist. The ones above the dataset are added.
        """
        path, group = self._path(name), name.rpartition("/")[0]
        if group not in groups or os.path.lexists(path):
            self._check_free(name, path)
        if group and group in groups:
            os.rename(fresh, path)
        else:
            self._move(fresh, name)
            groups.update(parents(name))

    def _move(self, fresh: str, name: str) -> None:
        try:
            self.make_parents(name)
            os.rename(fresh, self._path(name))
        except BaseException:
            self._remove_empty_parents(name)
            raise

    def batch(self) -> FolderBatch:
        return FolderBatch(self)

    def _check_free(self, name: str, path: str) -> None:
        for above in parents(name):
            if self.holds_dataset(self._path(above)):
                raise DatasetNameError(
                    f"dataset name {name!r} lies inside {above!r}, which is a dataset and holds "
                    "no others: choose another name"
                )
        if self.holds_dataset(path):
            raise DatasetExistsError(
                f"dataset {name!r} exists in {self.path}: open it with get_dataset, or delete it"
            )
        if os.path.lexists(path) and not self.clear_empty(path):
            raise DatasetNameError(
                f"{path} exists and is not a dataset (does it hold some?): choose another name"
            )

    def has_dataset(self, name: str) -> bool:
        with disk(f"look for dataset {name!r} in {self.path}"):
            return self.holds_dataset(self._path(name))

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        path = self._path(name)
        with self.names_held(f"delete dataset {name!r} in"):
            mine = cast("FolderDataset[Any] | None", only)
            if not self.holds_dataset(path) or not (mine is None or mine.is_at(path)):
                raise DatasetNotFoundError(f"there is no dataset {name!r} in {self.path}")
            self._remove(name, self._hide(name, path))
            self._remove_empty_parents(name)
            self._leftovers.sweep()
            if self.durable:
                sync_folder(self.path)

    def _hide(self, name: str, path: str) -> str:
        """Move a dataset to a hidden name, where old handles can no longer use it."""
        self._check_inside(name)
        hidden = os.path.join(self.path, DELETING + secrets.token_hex(8))
        self._retire(path, hidden, lambda: os.rename(path, hidden))
        return hidden

    def _retire(self, path: str, hidden: str, move: Callable[[], None]) -> None:
        """Move a dataset so that those who wait for one of its locks find no dataset then."""
        if os.path.islink(path):
            move()
            return
        with lock_file(path).exclusive():
            move()
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(hidden, self.description))

    def _check_inside(self, name: str) -> None:
        above = os.path.dirname(self._path(name))
        if not self._is_inside(above):
            raise StorageError(
                errno.EXDEV,
                f"dataset {name!r} is in {os.path.realpath(above)}, to which a symbolic link "
                f"leads out of {self.path}: delete it there, or remove the link",
            )

    def begin_replacement(self, name: str) -> str:
        self._check_inside(name)
        return f"{self.begin_hidden()}/{NEW}"

    def begin_hidden(self) -> str:
        """Create a hidden folder until `end_replacement` or a sweep, and return its name."""
        with self.names_held("create a hidden folder in"):
            self._leftovers.sweep()
            return self._replacements.begin()

    def replace_dataset(self, temporary: str, name: str) -> None:
        path, new = self._path(name), self._path(temporary)
        with self.names_held(f"replace dataset {name!r} in"):
            folder = open_descriptor(new, os.O_RDONLY | os.O_DIRECTORY)
            sync_file_system(folder)
            if self.holds_dataset(path):
                self._check_inside(name)
                swap = partial(self._replacements.swap, temporary, path, name)
                self._retire(path, new, swap)
            else:  # another process has deleted it
                self._check_free(name, path)
                self._move(new, name)
            sync_folder(os.path.dirname(path))
        self.end_replacement(temporary)

    def end_replacement(self, temporary: str) -> None:
        with suppress(OSError):  # a sweep will remove it
            self._replacements.end(temporary)

    def _remove(self, name: str, hidden: str) -> None:
        """Remove a dataset that was moved to a hidden name, or leave that to a sweep."""
        try:
            remove_folder(hidden)
        except OSError as error:
            if error.errno not in _STILL_OPEN:
                warnings.warn(
                    f"dataset {name!r} is deleted, but {hidden} cannot be removed: "
                    f"{error.strerror}. Remove it; until then it takes up room",
                    stacklevel=2,
                )

    def _is_inside(self, path: str) -> bool:
        """Return True if a path, with links resolved, is inside the connection's folder."""
        base = os.path.realpath(self.path)
        return os.path.commonpath([base, os.path.realpath(path)]) == base

    def dataset_names(self) -> list[str]:
        return self.names_in("")

    def names_in(self, group: str) -> list[str]:
        with disk(f"list {self._path(group)}"):
            return sorted(names_below(self.path, group, self.holds_dataset))

    def children(self, group: str) -> Children:
        with disk(f"list {self._path(group)}"):
            return children_of(self.path, group, self.holds_dataset)

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    @holding
    def names_held(self, what: str) -> Iterator[None]:
        """Hold the lock under which datasets are created, replaced and deleted."""
        self.check_writable()
        with disk(f"{what} {self.path}"), self._locks.exclusive():
            yield

    def _remove_empty_parents(self, name: str) -> None:
        for above in reversed(parents(name)):
            path = self._path(above)
            if not self._is_inside(path) or not self.clear_empty(path):
                return
