"""The folder of an hdf5 dataset: descriptors, replacing files, the record of written chunks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from dosna.backends import h5format
from dosna.errors import DatasetNotFoundError, DosnaError, StorageError
from dosna.locks import RangeLocks
from dosna.metadata import DatasetMetadata, Shape

__all__ = [
    "CLOSE_ON_EXEC",
    "DESCRIPTION",
    "LOCK",
    "TEMPORARY",
    "Folder",
    "Record",
    "disk",
    "failure",
    "lock_file",
    "open_folder",
    "read_all",
    "remove_folder",
    "replace_file",
    "sync_file_system",
]

DESCRIPTION = "dataset.h5"
LOCK = ".lock"
TEMPORARY = ".tmp"
CLOSE_ON_EXEC: int = getattr(os, "O_CLOEXEC", 0)


_ADVICE = {
    errno.ENOSPC: "free some space; what was stored before is intact",
    errno.EDQUOT: "free some of your quota; what was stored before is intact",
    errno.EACCES: "check the permissions of the folder",
    errno.EROFS: "the file system is mounted read-only",
    errno.EMFILE: "close files, or raise the limit (ulimit -n)",
}


def failure(what: str, error: OSError) -> StorageError:
    """Make the error that says "cannot `what`", and why."""
    reason = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "check the file system")
    return StorageError(error.errno, f"cannot {what}: {reason}; {advice}")


@contextmanager
def disk(what: str) -> Iterator[None]:
    """Turn errors of the operating system into StorageError."""
    try:
        yield
    except DosnaError:
        raise
    except OSError as error:
        raise failure(what, error) from error


class Folder:
    """What is open of a dataset's folder, and the metadata it had then.

    Never changed: a dataset that finds it out of date opens another, and operations under way
    go on with the one that they began with. The open descriptors keep their inodes from being
    reused, so that comparing inodes tells whether a file is still the same.
    """

    fd = -1
    _description = -1

    def __init__(self, path: str, name: str) -> None:
        flags = os.O_RDONLY | CLOSE_ON_EXEC
        where = os.path.join(path, DESCRIPTION)
        with disk(f"open {where}"):
            try:
                self.fd = open_folder(path)
                self._description = os.open(DESCRIPTION, flags, dir_fd=self.fd)
            except (FileNotFoundError, NotADirectoryError):
                raise DatasetNotFoundError(
                    f"there is no dataset {name!r}: {where} does not exist"
                ) from None
            status = os.fstat(self._description)
            self._stamp = (status.st_dev, status.st_ino, status.st_mtime_ns)
            image = self.image()
            status = os.fstat(self.fd)
            self.identity = (status.st_dev, status.st_ino)
            self.metadata, self.stored_header = h5format.read_description(image, where)
            self.header = self.stored_header
            if not self.header and not h5format.filters_of(self.metadata):
                self.header = h5format.header(self.metadata)
            self.length = len(self.header) + self.metadata.chunk_nbytes
            self.record = Record(self.fd, self.metadata)

    def __del__(self) -> None:
        for file in (self._description, self.fd):
            if file >= 0:
                os.close(file)

    def image(self) -> bytes:
        """Read ``dataset.h5`` as it was when the folder was opened."""
        return read_all(self._description)

    def is_current(self) -> bool:
        """Whether ``dataset.h5`` is still there and the same."""
        try:
            status = os.stat(DESCRIPTION, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino, status.st_mtime_ns) == self._stamp

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def list(self) -> list[str]:
        # A descriptor of its own, because listing moves its position.
        listing = open_folder(".", self.fd)
        try:
            return os.listdir(listing)
        finally:
            os.close(listing)

    def remove(self, name: str) -> bool:
        """Remove a file; False if it was not there."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True


class Record:
    """Which chunks were written: a byte for each, in C order of the grid, in a sparse file.

    It tells a chunk that was never written from one whose file is gone. Folders of DosNa have
    none, and then nothing is known. A byte is 2 while its chunk is written for the first time,
    so that a full disk shows before the chunk is there.
    """

    _file = -1

    def __init__(self, folder: int, metadata: DatasetMetadata) -> None:
        self._grid = metadata.chunk_grid
        self._generation: int | None = metadata.storage.get("record")
        if self._generation is None:
            return
        name = self.file_name(self._generation)
        for flags in (os.O_RDWR, os.O_RDONLY):
            with suppress(OSError):
                self._file = os.open(name, flags | CLOSE_ON_EXEC, dir_fd=folder)
                break

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @staticmethod
    def file_name(generation: int) -> str:
        return f".written-{generation}"

    def _position(self, idx: Shape) -> int:
        position = 0
        for i, n in zip(idx, self._grid, strict=True):
            position = position * n + i
        return position

    def has(self, idx: Shape) -> bool:
        return self._file >= 0 and os.pread(self._file, 1, self._position(idx)) == b"\1"

    def begin(self, idx: Shape) -> bool:
        """Announce a first write; False if the chunk was written before."""
        if self._file < 0 or self.has(idx):
            return False
        os.pwrite(self._file, b"\2", self._position(idx))
        return True

    def finish(self, idx: Shape, durable: bool) -> None:
        os.pwrite(self._file, b"\1", self._position(idx))
        if durable:
            os.fdatasync(self._file)

    def erase(self, idx: Shape) -> None:
        if self.has(idx):
            os.pwrite(self._file, b"\0", self._position(idx))

    def regrid(
        self, folder: int, old: DatasetMetadata, new: DatasetMetadata
    ) -> tuple[DatasetMetadata, str | None]:
        """Write the record of a resized dataset under a new name.

        Returns
        -------
        metadata : DatasetMetadata
            `new`, with the name of the record.
        superseded : str or None
            The file to delete once `new` is in force.
        """
        generation = self._generation
        before, after = old.chunk_grid, new.chunk_grid
        # Growing along the first axis leaves all positions as they are.
        if (
            generation is None
            or self._file < 0
            or (before[1:] == after[1:] and before[0] <= after[0])
        ):
            return new, None
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | CLOSE_ON_EXEC
        file = os.open(self.file_name(generation + 1), flags, 0o666, dir_fd=folder)
        try:
            if before and 0 not in after:
                self._copy(file, before, after)
            os.fsync(file)
        finally:
            os.close(file)
        storage = {**new.storage, "record": generation + 1}
        return new.replace(storage=storage), self.file_name(generation)

    def _copy(self, file: int, before: Shape, after: Shape) -> None:
        step = 1 << 20
        for start in range(0, os.fstat(self._file).st_size, step):
            block = np.frombuffer(os.pread(self._file, step, start), np.uint8)
            written = np.flatnonzero(block == 1) + start
            if not len(written):
                continue
            idx = np.unravel_index(written, before)
            kept = np.all([i < n for i, n in zip(idx, after, strict=True)], axis=0)
            places = np.ravel_multi_index([i[kept] for i in idx], after)
            # Runs of neighbours are written at once.
            cuts = np.flatnonzero(np.diff(places) != 1) + 1
            for run in np.split(places, cuts):
                if len(run):
                    os.pwrite(file, b"\1" * len(run), int(run[0]))


def read_all(file: int) -> bytes:
    """Read a file from its beginning to its end."""
    size = os.fstat(file).st_size
    blocks: list[bytes] = []
    offset = 0
    while block := os.pread(file, min(max(size - offset, 1), 1 << 30), offset):
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks)


def replace_file(folder: int, name: str, parts: Sequence[Any], size: int, durable: bool) -> None:
    """Put a file of these parts, of `size` bytes, into a folder, whole or not at all.

    The caller holds a lock on the name, so that its temporary is nobody else's.
    """
    temporary = name + TEMPORARY
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | CLOSE_ON_EXEC
    file = os.open(temporary, flags, 0o666, dir_fd=folder)
    try:
        try:
            count = os.writev(file, parts)
            if count != size:
                _write_rest(file, parts, count)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)


def _write_rest(file: int, parts: Sequence[Any], count: int) -> None:
    rest = [memoryview(part).cast("B") for part in parts]
    while True:
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if not rest:
            return
        rest[0] = rest[0][count:]
        count = os.writev(file, rest)


def remove_folder(path: str) -> None:
    """Remove a dataset's folder, so that at each moment it is a dataset or nothing.

    ``dataset.h5`` goes first, the lock file last: who waits for the lock finds no dataset.
    """
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    order = {DESCRIPTION: 0, LOCK: 2}
    for name in sorted(names, key=lambda n: order.get(n, 1)):
        with suppress(FileNotFoundError):
            try:
                os.unlink(os.path.join(path, name))
            except (IsADirectoryError, PermissionError):
                if not os.path.isdir(os.path.join(path, name)):
                    raise
                remove_folder(os.path.join(path, name))
    with suppress(FileNotFoundError):
        os.rmdir(path)


def lock_file(path: str) -> RangeLocks:
    """Give the locks of a folder; the file is made when the first is taken."""
    file = os.path.join(path, LOCK)
    return RangeLocks(lambda: os.open(file, os.O_RDWR | os.O_CREAT | CLOSE_ON_EXEC, 0o666), file)


def open_folder(path: str, parent: int | None = None) -> int:
    """Open a folder for what takes one as ``dir_fd``."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | CLOSE_ON_EXEC, dir_fd=parent)


def sync_file_system(folder: int) -> None:
    """Make everything durable that was written to the folder's file system."""
    import ctypes

    sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if sync is not None:
        if sync(folder):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return
    listing = open_folder(".", folder)
    try:
        for name in os.listdir(listing):
            file = os.open(name, os.O_RDONLY | CLOSE_ON_EXEC, dir_fd=folder)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        os.fsync(folder)
    finally:
        os.close(listing)
