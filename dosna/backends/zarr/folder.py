"""The folder of a Zarr array, as a store of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from dosna.backends.folders.handle import Folder, FolderHome
from dosna.backends.stores.arrays import ArrayConnection
from dosna.backends.stores.store import Blob, ByteRange, Stat, Store
from dosna.backends.zarrobjects import ZarrFile
from dosna.codecs import zarr as zarr3
from dosna.errors import DatasetNotFoundError
from dosna.io.files import disk, read_range, sync_folder
from dosna.io.locks import open_descriptor

__all__ = ["GONE", "ArrayFolder", "ArrayHome", "Files", "make_folders"]

GONE = (FileNotFoundError, NotADirectoryError)
"""Errors that prove a file absent."""


class Files(Store):
    """The files of a folder. Writers hold a lock."""

    shared_between_processes: ClassVar[bool] = True
    conditional_puts: ClassVar[bool] = False

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        with disk(f"read {key}"):
            try:
                file = os.open(key, os.O_RDONLY, dir_fd=self._folder)
            except GONE:
                return None
            try:
                status = os.fstat(file)
                version, size = _version(status), status.st_size
                if byte_range is None:
                    return Blob(read_range(file, 0, size), version)
                start, stop, _ = slice(*byte_range).indices(size)
                data = read_range(file, start, max(0, stop - start))
                return Blob(data, version, None, size)
            finally:
                os.close(file)

    def open(self, key: str) -> ZarrFile | None:
        """Return a file that is open for reading; None if it is absent."""
        with disk(f"read {key}"):
            try:
                file = open_descriptor(key, os.O_RDONLY, dir_fd=self._folder)
            except GONE:
                return None
            status = os.fstat(file)
            return ZarrFile(file, status.st_size, _version(status))

    def stat(self, key: str) -> Stat | None:
        with disk(f"look at {key}"):
            try:
                status = os.stat(key, dir_fd=self._folder)
            except GONE:
                return None
            return Stat(status.st_size, _version(status))

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        raise NotImplementedError("FileDataset.put writes in parts")

    def delete(self, key: str) -> bool:
        with disk(f"delete {key}"):
            try:
                os.unlink(key, dir_fd=self._folder)
            except GONE:
                return False
            return True

    def list(self, prefix: str) -> Iterator[str]:
        for path, _, names, _ in os.fwalk(".", onerror=_raise, dir_fd=self._folder):
            for name in names:
                key = os.path.normpath(os.path.join(path, name))
                if key.startswith(prefix):
                    yield key


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _raise(error: OSError) -> None:
    # Folders without chunks may be removed during a listing.
    if not isinstance(error, FileNotFoundError):
        raise error


class ArrayHome(FolderHome, ArrayConnection):
    """The interface through which a Zarr array in a folder uses its connection."""


class ArrayFolder(Folder):
    """The open folder of an array, with the metadata that it had when it was opened."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name, zarr3.DOCUMENT)
        metadata = zarr3.array_in(self.image(), self.where)
        if metadata is None:
            raise DatasetNotFoundError(
                f"there is no dataset {name!r}: {path} is a group. con.children({name!r}) lists "
                "what it has"
            )
        self.metadata = metadata
        self.files = Files(self.fd)


def make_folders(folder: int, path: str, durable: bool) -> None:
    """Create a folder below another, with all folders between them."""
    above = os.path.dirname(path)
    try:
        os.mkdir(path, dir_fd=folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not above:
            raise
        make_folders(folder, above, durable)
        make_folders(folder, path, durable)
        return
    if durable:
        sync_folder(above or ".", folder)
