"""The folder of a dataset, with its open descriptors."""

from __future__ import annotations

import os
import stat
from typing import Literal

from dosna.backends.base import BackendConnection
from dosna.backends.folders.chunkcache import FileCache
from dosna.errors import DatasetNotFoundError
from dosna.io.files import PASSES, disk, is_absent, read_all
from dosna.io.locks import open_descriptor

__all__ = ["Folder", "FolderHome"]


class FolderHome(BackendConnection):
    """The interface through which a dataset in a folder uses its connection."""

    path: str
    durable: bool
    ordered: bool

    chunk_cache: FileCache | None = None
    """Cache of decoded chunks, or None."""

    def use_cache(self, limit: int, recheck: Literal["always", "open"]) -> None:
        # With both values of `recheck` a file is compared at each read: it has to be found anyway.
        self.chunk_cache = FileCache(limit)

    def disconnect(self) -> None:
        if self.chunk_cache is not None:
            self.chunk_cache.clear()
        super().disconnect()


class Folder:
    """The folder of a dataset, with open descriptors on it and on its description.

    The object never changes. A dataset that finds it out of date opens another one, and operations
    under way continue with the one that they began with. The open descriptors keep their inodes
    from being reused, so that a comparison of inodes tells if a file is still the same.

    Parameters
    ----------
    path : str
        The path of the folder.
    name : str
        The name of the dataset.
    description : str
        The name of the file that makes the folder a dataset.

    Attributes
    ----------
    stamp : tuple of int
        The state of the description when the folder was opened, by which a change is noticed.
    """

    def __init__(self, path: str, name: str, description: str) -> None:
        self.where = os.path.join(path, description)
        self._file_name = description
        with disk(f"open {self.where}"):
            try:
                self._open(path, description)
            except OSError as error:
                if not is_absent(error):
                    raise
                why = f"{self.where} does not exist. list(con) has the names"
                if os.path.isdir(path):
                    why = f"{path} is a group. con.children({name!r}) lists what it has"
                raise DatasetNotFoundError(f"there is no dataset {name!r}: {why}") from None
            status = os.fstat(self._description)
            if not stat.S_ISREG(status.st_mode):
                raise DatasetNotFoundError(
                    f"there is no dataset {name!r}: {self.where} is not a file"
                )
            self.stamp = (status.st_dev, status.st_ino, status.st_mtime_ns)
            status = os.fstat(self.fd)
            self.identity = (status.st_dev, status.st_ino)

    def _open(self, path: str, description: str) -> None:
        for _ in range(PASSES):
            self.fd = open_descriptor(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Non-blocking, because the file may be a pipe.
                flags = os.O_RDONLY | os.O_NONBLOCK
                self._description = open_descriptor(description, flags, dir_fd=self.fd)
                return
            except FileNotFoundError:
                # The folder was replaced by another one after it was opened: open that one.
                if os.path.samestat(os.fstat(self.fd), os.stat(path)):
                    raise
        raise FileNotFoundError

    def is_at(self, path: str) -> bool:
        """Return True if the folder at `path` is still this one."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (status.st_dev, status.st_ino) == self.identity

    def image(self) -> bytes:
        """Read the description as it was when the folder was opened."""
        with disk(f"read {self.where}"):
            return read_all(self._description)

    def is_current(self) -> bool:
        """Return True if the description still exists and is unchanged."""
        try:
            status = os.stat(self._file_name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino, status.st_mtime_ns) == self.stamp

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def has_content(self, name: str) -> bool:
        """Return True if a file exists and is not empty.

        After a power loss, it is empty if its content had not reached the disk.
        """
        try:
            return os.stat(name, dir_fd=self.fd).st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False

    def remove(self, name: str) -> bool:
        """Remove a file. Return False if it did not exist."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True
