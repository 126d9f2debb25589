"""Locks on ranges of a file, among threads, processes and (on a cluster file system) machines.

Open file description locks of Linux and macOS (fcntl(2), ``F_OFD_SETLKW``): the kernel drops
them when their holder dies, whatever it dies of.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dosna.errors import LockError

__all__ = ["RangeLocks"]

_SET, _SET_WAIT = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_SETLKW", None)
_NOT_SUPPORTED = {
    errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP
}  # fmt: skip
_BUSY = {errno.EAGAIN, errno.EACCES}


_range = struct.Struct("hhqqi").pack  # struct flock: type, whence, start, length, pid


class RangeLocks:
    """Exclusive locks on byte ranges of one file, which need not hold those bytes.

    Each holder uses a file descriptor of its own, so that threads exclude each other just as
    processes do. Waiting is interrupted by signals.

    Parameters
    ----------
    open_file : callable
        Opens the lock file for reading and writing and returns the descriptor.
    name : str
        What to call the file in errors.
    """

    def __init__(self, open_file: Callable[[], int], name: str) -> None:
        self._open_file = open_file
        self._name = name
        self._forget()
        _living.add(self)

    def _forget(self) -> None:
        self._files: set[int] = set()
        self._free: list[int] = []
        self._owner: int | None = None

    @contextmanager
    def hold(self, start: int, length: int = 1) -> Iterator[None]:
        """Wait for the lock on a range and hold it; see `acquire`."""
        held = self.acquire(start, length)
        try:
            yield
        finally:
            self.release(held, start, length)

    def acquire(self, start: int, length: int = 1) -> int | None:
        """Wait for the lock on a range; free within `exclusive` of this thread.

        Returns
        -------
        held : int or None
            What `release` takes.

        Raises
        ------
        LockError
            The file system cannot lock.
        """
        if self._owner == threading.get_ident():
            return None
        file = self._take()
        try:
            self._set(file, fcntl.F_WRLCK, start, length)
        except BaseException:
            self.release(file, start, length)
            raise
        return file

    def release(self, held: int | None, start: int, length: int = 1) -> None:
        """Let go of what `acquire` gave."""
        if held not in self._files:  # nothing, or closed by a fork in between
            return
        try:
            self._set(held, fcntl.F_UNLCK, start, length)
        except BaseException:
            self._files.discard(held)
            os.close(held)
            raise
        self._free.append(held)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the whole file, against every other holder of any range."""
        if self._owner == threading.get_ident():
            yield
            return
        with self.hold(0, 0):
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    @contextmanager
    def attempt(self, start: int = 0, length: int = 0) -> Iterator[bool]:
        """Hold a range if nobody else does; yields whether it is held."""
        file = self._take()
        try:
            yield self._set(file, fcntl.F_WRLCK, start, length, wait=False)
        finally:
            self.release(file, start, length)

    def close(self) -> None:
        """Close the lock file; what is held is let go."""
        files, self._files, self._free = self._files, set(), []
        for file in files:
            os.close(file)

    def __del__(self) -> None:
        self.close()

    def _take(self) -> int:
        try:
            return self._free.pop()
        except IndexError:
            pass
        if _SET is None:
            raise LockError(errno.ENOSYS, "this platform has no open file description locks")
        file = self._open_file()
        self._files.add(file)
        return file

    def _set(self, file: int, kind: int, start: int, length: int, wait: bool = True) -> bool:
        command: Any = _SET_WAIT if wait else _SET
        try:
            fcntl.fcntl(file, command, _range(kind, os.SEEK_SET, start, length, 0))
        except OSError as error:
            if not wait and error.errno in _BUSY:
                return False
            if error.errno not in _NOT_SUPPORTED:
                raise
            raise LockError(
                error.errno,
                f"the file system of {self._name} cannot lock ({error.strerror}), so that "
                "concurrent writes could be lost: keep the data on one that can, or mount it "
                "with locks",
            ) from error
        return True


_living: weakref.WeakSet[RangeLocks] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Close what a fork inherited, or the child would keep the parent's locks alive."""
    for locks in list(_living):
        locks.close()
        locks._forget()


os.register_at_fork(after_in_child=_forget_in_child)
