"""Datasets as folders of HDF5 files, one for each chunk.

::

    directory/name/            the connection
        entry/tomo/            a dataset
            dataset.h5         its metadata, and /data: the whole array as a virtual dataset
            chunk_0_1_2.h5     /data: one chunk
            .lock              nothing; byte ranges of it are locked
            .written-0         a byte for each chunk: whether it was written

A chunk file without filters is a constant header and the raw elements, so it is read and
written as plain bytes; HDF5 itself is asked only where the header is not the expected one.
Every file is replaced by renaming a complete one over it, under the chunk's lock.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from dosna.backends import h5format
from dosna.backends.base import BackendConnection
from dosna.backends.h5dataset import H5DataChunk, H5Dataset
from dosna.backends.h5folder import (
    DESCRIPTION,
    LOCK,
    Record,
    disk,
    lock_file,
    open_folder,
    remove_folder,
    replace_file,
)
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    StorageError,
)
from dosna.metadata import DatasetMetadata, parents
from dosna.registry import Backend

__all__ = ["BACKEND", "H5Connection", "H5DataChunk", "H5Dataset"]

_CREATING, _DELETING = ".creating-", ".deleting-"


class H5Connection(BackendConnection):
    """A folder whose subfolders are datasets.

    Parameters
    ----------
    name : str
        The folder, in `directory`; an absolute path stands for itself. It must exist.
    directory : path, default '.'
    mode : {'a', 'r'}
    durable : bool, default False
        Whether each write has reached the disk (fsync of the file and of its folder) when it
        returns. Without it, what was written in the last seconds before a power loss may be
        lost: a chunk is then as it was before, or an error (never fill values or a mixture on
        file systems that, like ext4, xfs and btrfs, order a rename after the data).
        ``dataset.h5`` is always synchronized. `H5Dataset.flush` makes everything so far durable.
    """

    shared_between_processes: ClassVar[bool] = True
    parallel_bytes: ClassVar[int] = 1 << 22

    def __init__(
        self,
        name: str,
        directory: str | os.PathLike[str] = ".",
        mode: str = "a",
        durable: bool = False,
    ) -> None:
        super().__init__(name, mode)
        self.path = os.path.abspath(os.path.join(os.fspath(directory), name))
        self.durable = durable
        self._locks = lock_file(self.path)

    @property
    def location(self) -> str:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_locks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._locks = lock_file(self.path)

    def connect(self) -> None:
        if not os.path.isdir(self.path):
            raise ConnectionError(
                f"{self.path} is not a folder: make it, or give the one that holds the datasets"
            )
        super().connect()
        if self.mode == "a" and self._leftovers():
            with suppress(StorageError), self._names("connect to"):
                self._sweep()

    def create_dataset(
        self,
        name: str,
        metadata: DatasetMetadata,
        *,
        compression: str | None = None,
        compression_level: int = 4,
        checksum: bool = False,
        virtual: bool | None = None,
    ) -> H5Dataset:
        """Make a dataset, or raise DatasetExistsError: of several that try, one wins.

        Parameters
        ----------
        name : str
        metadata : DatasetMetadata
        compression : {None, 'gzip'}
            HDF5's own filter, which every HDF5 program reads.
        compression_level : int
            1 (fast) to 9 (small).
        checksum : bool
            Whether chunks carry HDF5's Fletcher-32 checksum, checked at every read.
        virtual : bool, optional
            Whether ``dataset.h5`` shows the whole array as a virtual dataset ``/data``. By
            default up to 10,000 chunks; each costs about 20 µs when the dataset is made or
            resized.
        """
        storage = _storage(metadata, compression, compression_level, checksum, virtual)
        metadata = metadata.replace(storage={**metadata.storage, **storage})
        start = b"" if h5format.filters_of(metadata) else h5format.header(metadata)
        image = h5format.describe(metadata, start)
        path = self._path(name)
        with self._names(f"create dataset {name!r} in"):
            self._sweep()
            self._check_free(name, path)
            fresh = os.path.join(self.path, _CREATING + secrets.token_hex(8))
            os.mkdir(fresh)
            try:
                _fill_folder(fresh, image, storage["record"])
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.rename(fresh, path)
            except BaseException:
                remove_folder(fresh)
                self._remove_empty_parents(name)
                raise
            if self.durable:
                for above in ["", *parents(name)]:
                    _sync_folder(os.path.join(self.path, above))
        return self.get_dataset(name)

    def _check_free(self, name: str, path: str) -> None:
        for above in parents(name):
            if self.has_dataset(above):
                raise DatasetNameError(
                    f"dataset name {name!r} lies inside {above!r}, which is a dataset and holds "
                    "no others: choose another name"
                )
        if self.has_dataset(name):
            raise DatasetExistsError(
                f"dataset {name!r} exists in {self.path}: open it with get_dataset, or delete it"
            )
        if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise DatasetNameError(
                f"{path} exists and is not a dataset (does it hold some?): choose another name"
            )

    def get_dataset(self, name: str) -> H5Dataset:
        return H5Dataset(self, name)

    def has_dataset(self, name: str) -> bool:
        try:
            with disk(f"look for dataset {name!r} in {self.path}"):
                os.stat(os.path.join(self._path(name), DESCRIPTION))
        except StorageError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    def del_dataset(self, name: str) -> None:
        path = self._path(name)
        with self._names(f"delete dataset {name!r} in"):
            if not self.has_dataset(name):
                raise DatasetNotFoundError(f"there is no dataset {name!r} in {self.path}")
            with lock_file(path).exclusive():
                gone = os.path.join(self.path, _DELETING + secrets.token_hex(8))
                os.rename(path, gone)
                remove_folder(gone)
            self._remove_empty_parents(name)
            self._sweep()
            if self.durable:
                _sync_folder(self.path)

    def dataset_names(self) -> list[str]:
        with disk(f"list {self.path}"):
            return sorted(_names_below(self.path, ""))

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextmanager
    def _names(self, what: str) -> Iterator[None]:
        """Hold the lock under which datasets come and go."""
        with disk(f"{what} {self.path}"), self._locks.exclusive():
            yield

    def _leftovers(self) -> list[str]:
        return [n for n in os.listdir(self.path) if n.startswith((_CREATING, _DELETING))]

    def _sweep(self) -> None:
        """Remove what died inside create_dataset or del_dataset: the living hold the lock."""
        for leftover in self._leftovers():
            remove_folder(os.path.join(self.path, leftover))

    def _remove_empty_parents(self, name: str) -> None:
        with suppress(OSError):
            for above in reversed(parents(name)):
                os.rmdir(self._path(above))


def _storage(
    metadata: DatasetMetadata,
    compression: str | None,
    level: int,
    checksum: bool,
    virtual: bool | None,
) -> dict[str, Any]:
    if compression not in (None, "gzip"):
        raise ConfigurationError(f"compression is None or 'gzip', and {compression!r} was given")
    if not 1 <= level <= 9:
        raise ConfigurationError(f"compression_level is 1 to 9, and {level!r} was given")
    if compression or checksum:
        if not metadata.shape:
            raise ConfigurationError("a dataset without axes cannot have compression or checksum")
        if metadata.chunk_nbytes >= 1 << 32:
            raise ConfigurationError(
                f"chunks of {metadata.chunk_nbytes} bytes: compression and checksum take less "
                "than 4 GiB, so choose a smaller chunk_size"
            )
    return {
        "compression": compression,
        "level": level if compression else None,
        "checksum": bool(checksum),
        "virtual": virtual,
        "record": 0,
    }


def _names_below(path: str, prefix: str) -> Iterator[str]:
    with os.scandir(path) as entries:
        folders = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
    for folder in folders:
        if os.path.isfile(os.path.join(folder.path, DESCRIPTION)):
            yield prefix + folder.name
        else:
            with suppress(FileNotFoundError, PermissionError):
                yield from _names_below(folder.path, f"{prefix}{folder.name}/")


def _fill_folder(path: str, image: bytes, generation: int) -> None:
    folder = open_folder(path)
    try:
        for name in (LOCK, Record.file_name(generation)):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=folder))
        replace_file(folder, DESCRIPTION, [image], len(image), durable=True)
    finally:
        os.close(folder)


def _sync_folder(path: str) -> None:
    folder = open_folder(path)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


BACKEND = Backend(
    name="hdf5",
    connection=H5Connection,
    description="a folder with an HDF5 file for each chunk",
    url="https://www.hdfgroup.org/solutions/hdf5/",
)
