"""What a store of bytes is: objects by key."""

from __future__ import annotations

import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

from dosna.errors import StorageError, StoreTimeoutError

__all__ = [
    "ABSENT",
    "MOST_ATTEMPTS",
    "Blob",
    "ByteRange",
    "ReadOnlyStore",
    "Store",
    "Turns",
    "VersionConflict",
    "lock",
]

ABSENT = ""
"""The version of an object that does not exist."""

MOST_ATTEMPTS = 1000
"""Of a change that others keep making impossible."""

_MOST_REFUSALS = 10

ByteRange = tuple[int, int | None]

_STRIPES = 64

T = TypeVar("T")


class Blob(NamedTuple):
    """The bytes of an object, and its version: as long as that is the same, so are they.

    `mark` is what the object was marked with when it was put; None if it was not.
    """

    data: bytes | memoryview
    version: str
    mark: str | None = None


class VersionConflict(StorageError):
    """A conditional put found another version than it expected; nothing was changed."""


class Store(ABC):
    """Bytes by key. Keys are parts of printable characters, joined by '/'.

    Anything that fails raises `StorageError` or another error of `dosna.errors`. Only what is
    proven to be absent may be reported as absent.
    """

    shared_between_processes: ClassVar[bool]
    """Whether another process that opens it sees the same objects."""

    conditional_puts: ClassVar[bool]
    """Whether `put` honours ``expected`` atomically among all who write."""

    deletes_at_once: ClassVar[int] = 1
    """How many objects `delete_many` deletes by one request."""

    most_ranges: ClassVar[int] = 0
    """How many parts `put_ranges` takes; 0 where objects are only written whole."""

    @abstractmethod
    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        """Get an object or a part of its bytes; None if there is no object.

        Parameters
        ----------
        key : str
        byte_range : tuple, optional
            ``(start, stop)``, of which what lies beyond the end is left out; or ``(-n, None)``,
            the last `n` bytes.
        """

    @abstractmethod
    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        """Write a whole object, so that it is seen old or new and never mixed.

        Parameters
        ----------
        key : str
        data : bytes
        expected : str, optional
            Write only over this version; `ABSENT` only where there is no object.

        Raises
        ------
        VersionConflict
            Another version is there.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete an object; False if there was none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """List all keys that begin with `prefix`, completely or with an error."""

    # What follows is written over the methods above; a store replaces what it does better.

    def folders(self, prefix: str) -> Iterator[str]:
        """List what stands between `prefix` and the next '/' of the keys, each once."""
        seen = set()
        for key in self.list(prefix):
            folder, slash, _ = key[len(prefix) :].partition("/")
            if slash and folder not in seen:
                seen.add(folder)
                yield folder

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> None:
        """Write an object as `put` does, with a mark of some 20 ASCII characters beside it.

        A store keeps marks only if `get` then brings them at no further request, also with a part
        of the bytes; another does without.
        """
        self.put(key, data, expected)

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        """Write parts of an object, each of which begins somewhere: all of them at once or none.

        False, and nothing is done, where there is no object, or none that takes it.
        """
        return False

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        """Delete objects, some of which may be gone already.

        Parameters
        ----------
        keys : iterable of str
        until : float
            The ``time.monotonic()`` after which nothing is begun, not even again.

        Raises
        ------
        StoreTimeoutError
            Some had not been begun by then.
        """

        def delete(key: str) -> None:
            if time.monotonic() > until:
                raise StoreTimeoutError(f"deleting took too long, and stopped before {key!r}")
            self.delete(key)

        self.for_each(delete, keys)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        """Do `work`, which makes requests, on each item; the first error is raised.

        One after the other. A store to which requests take long does several at a time, in
        threads of its own, whatever the engine: `work` is made for that.

        Parameters
        ----------
        work : callable
        items : iterable
            Taken one at a time, no more of them ahead than are under way.
        nbytes : int
            What each holds in memory while it is worked on.
        """
        for item in items:
            work(item)

    def close(self) -> None:  # noqa: B027  a store without a connection has nothing to close
        """Let go of what the store holds."""


class Turns:
    """Turns at a change that is made on condition that nobody else was faster.

    Iterating gives so many, and then raises StorageError. One is made ``with unless_conflict()``,
    after which the next begins if it is not over.

    Parameters
    ----------
    what : str
        The object, as the error calls it.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._refused: str | None = None
        self._times = 0
        self.expected: str | None = None
        """The version that this turn found, and on which its change is conditional."""

    def __iter__(self) -> Iterator[None]:
        for _ in range(MOST_ATTEMPTS):
            yield
        raise StorageError(
            f"{self._what} changed {MOST_ATTEMPTS} times while it was being changed: too many "
            "writers on one object"
        )

    @contextmanager
    def unless_conflict(self) -> Iterator[None]:
        """Take a VersionConflict for the end of a turn, unless it cannot be one."""
        self.expected = None
        try:
            yield
        except VersionConflict as error:
            # Nobody was faster if the version is still the one that was refused.
            again = self.expected is not None and self.expected == self._refused
            self._times = self._times + 1 if again else 1
            self._refused = self.expected
            if self._times >= _MOST_REFUSALS:
                raise StorageError(
                    f"{self._what} cannot be changed: the store refused {self._times} times to "
                    "write over the version that it has. It honours conditions no more, as "
                    "radosgw does not in a bucket for which versioning was switched on: connect "
                    "again, so that dosna finds that out"
                ) from error


class ReadOnlyStore(Store):
    """The objects of a store, of which nothing can be changed through this.

    Parameters
    ----------
    store : Store
    refuse : callable
        Raises the ReadOnlyError.
    """

    def __init__(self, store: Store, refuse: Callable[[], NoReturn]) -> None:
        self._store, self._refuse = store, refuse
        self.shared_between_processes = store.shared_between_processes  # type: ignore[misc]

    @property
    def conditional_puts(self) -> bool:  # type: ignore[override]
        # A store may have to try it out.
        return self._store.conditional_puts

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        return self._store.get(key, byte_range)

    def list(self, prefix: str) -> Iterator[str]:
        return self._store.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        self._store.for_each(work, items, nbytes)

    def close(self) -> None:
        self._store.close()

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        self._refuse()

    def delete(self, key: str) -> bool:
        self._refuse()

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        self._refuse()

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        self._refuse()


# By chunk and not by handle, because a store may have no conditional puts.
_locks = [threading.Lock() for _ in range(_STRIPES)]


def lock(*what: Any) -> threading.Lock:
    """Give the lock, within this process, on a dataset's metadata or a stored object."""
    return _locks[hash(what) % _STRIPES]


def _renew_locks() -> None:
    _locks[:] = [threading.Lock() for _ in range(_STRIPES)]


os.register_at_fork(after_in_child=_renew_locks)
