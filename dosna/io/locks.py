"""Locks on ranges of a file, among threads, processes and (on a cluster file system) machines.

They are open file description locks of Linux (fcntl(2), ``F_OFD_SETLKW``): the kernel releases
them when their holder dies, for whatever reason.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NoReturn

from dosna.errors import LockError
from dosna.io.fork import renew_in_children
from dosna.io.holding import holding

__all__ = ["Descriptor", "Held", "RangeLocks", "open_descriptor"]

_NOT_SUPPORTED = {
    errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP
}  # fmt: skip
_BUSY = {errno.EAGAIN, errno.EACCES}


_range = struct.Struct("hhqqi").pack  # struct flock: type, whence, start, length, pid
_NOTHING_LOCKED = _range(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)

_AS_IT_IS = nullcontext()

Held = Callable[[], object]
"""A lock that is held. Calling it releases the lock."""


class Descriptor(int):
    """A file descriptor that is closed with the last reference to it, and in no other way.

    KeyboardInterrupt is raised between two bytecodes. None are run between `os.open` and the
    creation of the instance in `open_descriptor`, and none when the instance ends, so that no
    descriptor is ever left open.
    """

    __slots__ = ()

    def __reduce_ex__(self, version: object) -> NoReturn:
        # A copy would close its number again, which may belong to another file by then.
        raise TypeError("a file descriptor is neither copied nor sent to another process")

    # A partial, because a finalizer in Python could be interrupted before its first line.
    __del__ = property(partial(partial, os.close))


def open_descriptor(
    path: str, flags: int, mode: int = 0o666, dir_fd: int | None = None
) -> Descriptor:
    """Open a file as `os.open` does."""
    open_ = partial(os.open, flags=flags, mode=mode, dir_fd=dir_fd)
    return next(map(Descriptor, map(open_, (path,))))


class RangeLocks:
    """Exclusive locks on byte ranges of one file, which may lie beyond its end.

    Each holder uses a file descriptor of its own, so that threads exclude each other just as
    processes do. Signals interrupt the waiting.

    Parameters
    ----------
    open_file : callable
        A function that opens the lock file for reading and writing, and returns the descriptor,
        which then belongs to the locks.
    name : str
        The name of the file in errors.
    """

    def __init__(self, open_file: Callable[[], int], name: str) -> None:
        self._open_file = open_file
        self._name = name
        self._forget()
        renew_in_children(self)

    def _forget(self) -> None:
        # The file of each descriptor, to recognise it: the number may belong to another by now.
        self._files: dict[int, os.stat_result] = {}
        self._free: list[partial[object]] = []
        self._owner: int | None = None

    def renew(self) -> None:
        """Close inherited descriptors in a forked child: they would keep the parent's locks."""
        if not self._files:
            return
        # The numbers stay in use, because frames of the parent that continue in the child still
        # have them.
        nothing = os.open(os.devnull, os.O_RDWR)
        for file, status in self._files.items():
            try:
                same = os.path.samestat(os.fstat(file), status)
            except OSError:
                continue
            if same:
                os.dup2(nothing, file, inheritable=False)
        os.close(nothing)
        self._forget()

    @holding
    def hold(self, start: int, length: int = 1) -> Iterator[None]:
        """Wait for the lock on a range and hold it; see `acquire`."""
        held = self.acquire(start, length)
        try:
            yield
        finally:
            held()
            self.keep(held)

    def acquire(self, start: int, length: int = 1) -> Held:
        """Wait for the lock on a range and take it. Within `exclusive` of this thread, do nothing.

        Returns
        -------
        held : callable
            The lock. Call it to release the lock, as the first statement of a ``finally``, which
            no interrupt can precede, and then `keep` it. The lock also ends with the last
            reference to it.

        Raises
        ------
        LockError
            The file system has no locks.
        """
        if self._owner == threading.get_ident():
            return _NOTHING
        held = self._take()
        try:
            self._lock(held.args[0], start, length)
        except BaseException:
            try:  # noqa: SIM105  in C, unlike suppress
                held()
            except OSError:
                pass  # the lock was not taken, so it need not be released
            raise
        return held

    def keep(self, held: Held) -> None:
        """Keep the descriptor of a released lock, for the next one."""
        # A lock that was taken before a fork is of no use in the child.
        if isinstance(held, partial) and held.args[0] in self._files:
            self._free.append(held)

    @holding
    def exclusive(self, taking: AbstractContextManager[object] = _AS_IT_IS) -> Iterator[None]:
        """Hold the lock on the whole file, which excludes every other holder of any range.

        Parameters
        ----------
        taking : context manager
            The context in which the lock is taken, for instance to convert errors.
        """
        if self._owner == threading.get_ident():
            yield
            return
        held: Held | None = None
        try:
            with taking:
                held = self.acquire(0, 0)
            self._owner = threading.get_ident()
            yield
        finally:
            if held is not None:
                self._owner = None
                held()
                self.keep(held)

    @property
    def is_exclusive(self) -> bool:
        """True if this thread is within `exclusive`."""
        return self._owner == threading.get_ident()

    @holding
    def attempt(self, start: int = 0, length: int = 0) -> Iterator[bool]:
        """Take the lock on a range if it is free, and yield whether it was taken."""
        held = self._take()
        try:
            yield self._lock(held.args[0], start, length, wait=False)
        finally:
            held()
            self.keep(held)

    def close(self) -> None:
        """Close the lock file. Locks that are held now stay until their holders release them."""
        self._free.clear()

    def _take(self) -> partial[object]:
        try:
            return self._free.pop()
        except IndexError:
            pass
        file = self._open_file()
        if not isinstance(file, Descriptor):
            file = Descriptor(file)
        self._files[int(file)] = os.fstat(file)  # without a reference to it
        return partial(fcntl.fcntl, file, fcntl.F_OFD_SETLK, _NOTHING_LOCKED)

    def _lock(self, file: int, start: int, length: int, wait: bool = True) -> bool:
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(file, command, _range(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
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


_NOTHING: Held = bool  # returns False, which is not used
