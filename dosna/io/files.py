"""Files and folders of a file system: reading, replacing, removing, and making them durable."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from io import FileIO
from itertools import islice
from typing import Any

from dosna.errors import DosnaError, StorageError
from dosna.io.exchange import exchange
from dosna.io.locks import RangeLocks, open_descriptor
from dosna.io.parallel import in_flight

__all__ = [
    "FULL",
    "LOCK",
    "MOST_BYTES",
    "MOST_PARTS",
    "PASSES",
    "TEMPORARY",
    "disk",
    "failure",
    "is_absent",
    "lock_file",
    "open_folder",
    "read_all",
    "read_range",
    "remove_folder",
    "replace_file",
    "size_of",
    "sync_file_system",
    "sync_folder",
    "sync_tree",
    "write_new",
]


LOCK = ".lock"

TEMPORARY = ".tmp"


PASSES = 3
"""The attempts to empty or open a folder, which another process may fill or replace meanwhile."""

_SYNCS = 8
"""Files that are synchronized at a time."""

_WRITE = 2
"""SYNC_FILE_RANGE_WRITE of Linux."""

_LEAST_SOON = 128 << 10
"""Bytes of a file from which on it is worth a request to the disk of its own."""

_QUICK_SECONDS = 1e-4
_quick: dict[int, bool] = {}
"""The devices on which files are durable at once, as far as was noticed."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The codes of errors by which a file system has no more room."""

_ADVICE = {
    errno.ENOSPC: "free some space; what was stored before is intact",
    errno.EDQUOT: "free some of your quota; what was stored before is intact",
    errno.EACCES: "check the permissions of the folder",
    errno.EROFS: "the file system is mounted read-only",
    errno.EMFILE: "close files, or raise the limit (ulimit -n)",
}


def failure(what: str, error: OSError) -> StorageError:
    """Return the error whose message is "cannot `what`", with the reason and advice."""
    reason = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "check the file system")
    return StorageError(error.errno, f"cannot {what}: {reason}; {advice}")


@contextmanager
def disk(what: str) -> Iterator[None]:
    """Convert errors of the operating system into StorageError."""
    try:
        yield
    except DosnaError:
        raise
    except OSError as error:
        raise failure(what, error) from error


def make_folder(path: str) -> bool:
    """Make a folder in one that exists; return False if it exists already."""
    with disk(f"make {path}"):
        try:
            os.mkdir(path)
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            above = os.path.dirname(path)
            raise StorageError(
                error.errno, f"cannot make {path}: there is no folder {above}; make it first"
            ) from None
        return True


MOST_PARTS = 1024
"""The most parts that one call writes: IOV_MAX of Linux."""

MOST_BYTES = 1 << 30
"""The most bytes that one call reads; Linux reads at most 0x7ffff000."""


def read_all(file: int) -> bytes:
    """Read a whole file."""
    size = os.fstat(file).st_size
    blocks: list[bytes] = []
    offset = 0
    while block := os.pread(file, min(max(size - offset, 1), 1 << 30), offset):
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks)


def size_of(file: int) -> int:
    """Return the size of an open file in a fifth of the time of `os.fstat`."""
    try:
        return os.lseek(file, 0, os.SEEK_END)
    except OSError:  # not a file
        return os.fstat(file).st_size


def read_range(file: int, start: int, size: int) -> bytes:
    """Read `size` bytes from `start` on, or fewer if the file ends before.

    One system call reads at most 2 GiB, and less if a signal interrupts it.
    """
    data = os.pread(file, min(size, MOST_BYTES), start)
    if len(data) == size:
        return data
    blocks = [data]
    while data and (size := size - len(data)):
        start += len(data)
        data = os.pread(file, min(size, MOST_BYTES), start)
        blocks.append(data)
    return b"".join(blocks)


def replace_file(
    folder: int,
    name: str,
    parts: Sequence[Any],
    size: int,
    durable: bool,
    ordered: bool = True,
    soon: bool = False,
) -> None:
    """Write a file of these parts, of `size` bytes, into a folder, as a whole or not at all.

    The caller holds a lock on the name, so that no other writer uses the same temporary file.

    ext4 and btrfs begin to write a file to the disk when it is renamed over another one, so that
    a power loss leaves the old or the new one. That takes most of the time. Without `ordered` it
    is avoided where the file system can exchange two files.

    With `soon`, the kernel begins to write the file to the disk, for which the caller waits later.
    """
    temporary = name + TEMPORARY
    opener = partial(os.open, mode=0o666, dir_fd=folder)
    # FileIO closes itself if Ctrl-C interrupts; open() would make more system calls.
    try:
        file = FileIO(temporary, "x", opener=opener)
    except FileExistsError:
        # It belongs to a dead writer. It is replaced and not written to, because it may be a chunk
        # of a copy that was made by hard links.
        os.unlink(temporary, dir_fd=folder)
        file = FileIO(temporary, "x", opener=opener)
    try:
        try:
            _write_parts(file.fileno(), parts, size)
            if durable:
                os.fsync(file.fileno())
            elif soon and size >= _LEAST_SOON:
                _begin_to_sync(file.fileno())
        finally:
            file.close()
        if ordered or not _exchange(folder, temporary, name):
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable and (above := os.path.dirname(name)):
        sync_folder(above, folder)
    elif durable:
        os.fsync(folder)  # no file is opened, which could fail when everything is done


def _exchange(folder: int, temporary: str, name: str) -> bool:
    """Exchange a new file and the old one, and remove the old one.

    Return False if there is no old one, or the file system cannot exchange files. The old one is
    never written to, because readers may have it open.
    """
    try:
        if not exchange(temporary, name, folder):
            return False
    except FileNotFoundError:
        return False
    try:
        os.unlink(temporary, dir_fd=folder)
    except IsADirectoryError:  # which no file replaces
        exchange(temporary, name, folder)
        raise
    return True


def write_new(folder: int, name: str, parts: Sequence[Any], size: int) -> None:
    """Write a file of these parts, of `size` bytes, which is not visible yet."""
    opener = partial(os.open, mode=0o666, dir_fd=folder)
    with FileIO(name, "x", opener=opener) as file:
        _write_parts(file.fileno(), parts, size)


def _write_parts(file: int, parts: Sequence[Any], size: int) -> None:
    count = os.writev(file, parts) if len(parts) <= MOST_PARTS else 0
    if count != size:
        _write_rest(file, parts, count)


def _write_rest(file: int, parts: Sequence[Any], count: int) -> None:
    rest = deque(memoryview(part).cast("B") for part in parts)
    while True:
        while rest and count >= len(rest[0]):
            count -= len(rest.popleft())
        if not rest:
            return
        rest[0] = rest[0][count:]
        count = os.writev(file, list(islice(rest, MOST_PARTS)))


def remove_folder(path: str) -> None:
    """Remove a folder with everything in it, a file, or a symbolic link, which is never followed.

    The lock file is removed last. Everything that can be removed is removed before the first error
    is raised. The rest is left to a later call: network file systems keep open files under another
    name.
    """
    for _ in range(PASSES - 1):
        with suppress(OSError):
            _remove_folder(path)
            return
    _remove_folder(path)


def _remove_folder(path: str) -> None:
    errors: list[OSError] = []
    folders, last = [path], list[str]()
    for folder in folders:  # grows
        try:
            if os.path.islink(folder):
                raise NotADirectoryError
            with os.scandir(folder) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name == LOCK:
                        last.append(entry.path)
                    else:
                        _attempt(errors, os.unlink, entry.path)
        except NotADirectoryError:
            _attempt(errors, os.unlink, folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            errors.append(error)
    for file in last:
        _attempt(errors, os.unlink, file)
    for folder in reversed(folders):
        _attempt(errors, os.rmdir, folder)
    if errors and os.path.lexists(path):
        raise errors[0]


def _attempt(errors: list[OSError], remove: Callable[[str], None], path: str) -> None:
    try:
        remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        errors.append(error)


def is_absent(error: OSError) -> bool:
    """Return True if an error proves that there is nothing at a path."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def lock_file(path: str, name: str = LOCK) -> RangeLocks:
    """Return the locks of a folder. Their file is created when the first lock is taken."""
    file = os.path.join(path, name)
    return RangeLocks(lambda: open_descriptor(file, os.O_RDWR | os.O_CREAT), file)


def open_folder(path: str, parent: int | None = None) -> int:
    """Open a folder, for functions that take a ``dir_fd``."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)


def sync_folder(path: str, parent: int | None = None) -> None:
    """Make the list of the files in a folder durable."""
    os.fsync(open_descriptor(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent))


def sync_file_system(folder: int) -> None:
    """Make all writes to the file system of a folder durable."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(folder):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _begin_to_sync(file: int) -> None:
    """Let the kernel begin to write a file to the disk, if it can, without waiting for it.

    Otherwise it begins after half a minute, or when somebody waits. Failures are found by those
    who wait.
    """
    begin = _sync_file_range()
    if begin is not None:
        begin(file, 0, 0, _WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    import ctypes

    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return found


def sync_tree(folder: int) -> None:
    """Make everything in a folder durable, file by file.

    Several are waited for at a time, which a journal writes together, unless that takes no time,
    as in memory.
    """
    device = os.fstat(folder).st_dev

    def sync(path: str) -> None:
        os.fsync(open_descriptor(path, os.O_RDONLY, dir_fd=folder))

    in_flight(sync, _paths_below(folder, "."), 1 if _quick.get(device) else _SYNCS)
    began = time.perf_counter()
    os.fsync(folder)
    _quick[device] = time.perf_counter() - began < _QUICK_SECONDS


def _paths_below(folder: int, path: str) -> Iterator[str]:
    """Yield the paths of what is in a folder, and that of a folder after what is in it."""
    for name in os.listdir(open_descriptor(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)):
        inside = f"{path}/{name}"
        if stat.S_ISDIR(os.stat(inside, dir_fd=folder).st_mode):
            yield from _paths_below(folder, inside)
        else:
            yield inside
    if path != ".":
        yield path
