"""The interface of a store of bytes, which holds objects by key."""

from __future__ import annotations

import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

from dosna.errors import StorageError, StoreTimeoutError

__all__ = [
    "ABSENT",
    "MOST_ATTEMPTS",
    "Answer",
    "Beside",
    "Blob",
    "ByteRange",
    "MethodCall",
    "NotExecutedError",
    "Sized",
    "Stat",
    "Store",
    "Turns",
    "VersionConflict",
    "lock",
]

ABSENT = ""
"""Version of an object that does not exist."""

MOST_ATTEMPTS = 1000
"""Number of attempts at a change that other writers keep preventing."""

_MOST_REFUSALS = 10

ByteRange = tuple[int, int | None]

Sized = Sequence[tuple[str, int]]
"""Keys and the sizes of their objects, in bytes."""

_STRIPES = 4096
"""Number of locks: so many that requests under way at a time seldom share one."""

T = TypeVar("T")


class Blob(NamedTuple):
    """The bytes of an object and its version. The same version means the same bytes.

    `mark` is the mark that the object was put with; None if it has none. `size` is the size of the
    whole object in bytes, where a part of it was read and the store has told it.
    """

    data: bytes | memoryview
    version: str
    mark: str | None = None
    size: int | None = None


class Stat(NamedTuple):
    """The size of an object in bytes and its version, known without its bytes."""

    size: int
    version: str


class Beside(NamedTuple):
    """The result of a look into a folder.

    `taken` is True if keys begin with the part's and '/'; `version` is the document's, `ABSENT` if
    there is none, and None if that is not known.
    """

    taken: bool
    version: str | None


class VersionConflict(StorageError):
    """A conditional put found a version other than the expected one; nothing was changed."""


class NotExecutedError(StorageError):
    """A store did not execute a method on an object: the object has to be read instead."""


class MethodCall(NamedTuple):
    """A call of a method of dosna's object class.

    Parameters
    ----------
    key : str
        The key of the object.
    method : str
        The name of the method.
    request : bytes
        The arguments of the method.
    most : int
        The most bytes that the method returns.
    """

    key: str
    method: str
    request: bytes
    most: int


Answer = bytes | NotExecutedError | None
"""The answer of a method, the error that it was not executed, or None for no object."""


class Store(ABC):
    """A store of bytes by key. Keys are parts of printable characters, joined by '/'.

    Any failure raises `StorageError` or another error of `dosna.errors`. An object may be
    reported as absent only if it is proven to be absent.
    """

    shared_between_processes: ClassVar[bool]
    """True if another process that opens the store sees the same objects."""

    conditional_puts: ClassVar[bool]
    """True if `put` honours ``expected`` atomically among all writers."""

    schedules_requests: ClassVar[bool] = False
    """True if `for_each` has many requests under way."""

    deletes_at_once: ClassVar[int] = 1
    """Number of objects that `delete_many` deletes by one request."""

    most_ranges: ClassVar[int] = 0
    """Number of parts that `put_ranges` takes; 0 where objects are only written whole."""

    @abstractmethod
    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        """Read an object or a part of its bytes. Return None if there is no object.

        Parameters
        ----------
        key : str
            The key of the object.
        byte_range : tuple, optional
            The range ``(start, stop)``, which is cut off at the end of the object; or
            ``(-n, None)`` for the last `n` bytes.
        """

    @abstractmethod
    def put(self, key: str, data: bytes, expected: str | None = None) -> str | None:
        """Write a whole object, so that readers see the old or the new one, never a mixture.

        Parameters
        ----------
        key : str
            The key of the object.
        data : bytes
            The content of the object.
        expected : str, optional
            The only version that may be overwritten. With `ABSENT`, write only if there is no
            object.

        Returns
        -------
        str or None
            The version of the object as it was written; None where the store does not tell.

        Raises
        ------
        VersionConflict
            The stored version is another one.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete an object. Return False if it did not exist."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """List all keys that begin with `prefix`. Raise an error if the list is incomplete."""

    def beside(self, folder: str, part: str, document: str = "") -> Beside | None:
        """Look into a folder by one request; None where that takes more, or does not suffice.

        Parameters
        ----------
        folder : str
            The beginning of the keys, empty or ending with '/'.
        part : str
            The name of what may be in the folder.
        document : str
            The name of an object in the folder, if its version is of interest.
        """
        return None

    def pages(self, prefix: str) -> Iterator[Sized] | None:
        """List keys as `list` does, page by page, with the sizes of their objects, in bytes.

        Return None where a list does not tell the sizes.
        """
        return None

    # The methods below use only those above. A store overrides what it can do better.

    def folders(self, prefix: str) -> Iterator[str]:
        """List the distinct parts of the keys between `prefix` and the next '/'."""
        seen = set()
        for key in self.list(prefix):
            folder, slash, _ = key[len(prefix) :].partition("/")
            if slash and folder not in seen:
                seen.add(folder)
                yield folder

    def stat(self, key: str) -> Stat | None:
        """Return the size and the version of an object, or None if there is no object."""
        found = self.get(key, (0, 1))
        if found is not None and found.size is not None:
            return Stat(found.size, found.version)
        found = found and self.get(key)
        return None if found is None else Stat(len(found.data), found.version)

    def put_marked(
        self, key: str, data: bytes, expected: str | None, mark: str | None
    ) -> str | None:
        """Write an object as `put` does, with a mark of some 20 ASCII characters beside it.

        A store keeps marks only if `get` returns them without another request, also with a part
        of the bytes. Other stores ignore the mark.
        """
        return self.put(key, data, expected)

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        """Write parts of an object, given as pairs of offset and bytes: all at once or none.

        Return False and do nothing if there is no object, or if the object cannot take them.
        """
        return False

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        """Delete objects. Some of them may be gone already.

        Parameters
        ----------
        keys : iterable of str
            The keys of the objects.
        until : float
            The time, as of ``time.monotonic()``, after which no request is started or repeated.

        Raises
        ------
        StoreTimeoutError
            Some deletions had not been started by then.
        """

        def delete(key: str) -> None:
            if time.monotonic() > until:
                raise StoreTimeoutError(f"deleting took too long, and stopped before {key!r}")
            self.delete(key)

        self.for_each(delete, keys)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        """Call `work`, which makes requests, for each item, and raise the first error.

        This implementation takes one item after the other. A store whose requests take long works
        on several at a time, in threads of its own, whatever the engine; `work` must allow that.

        Parameters
        ----------
        work : callable
            The function to call with each item.
        items : iterable
            The items. They are taken one at a time, and no further ahead than there are calls
            under way.
        nbytes : int
            The memory that one item takes while it is worked on.
        """
        for item in items:
            work(item)

    def locations(self, key: str) -> tuple[str, ...]:
        """Return the names of the hosts that keep an object or would keep it, the best first.

        The result is empty where the store does not know; that is never an error.
        """
        return ()

    def can_execute(self) -> bool:
        """Return True if `execute` is worth trying. A store asks its servers once."""
        return False

    def execute(self, calls: Sequence[MethodCall]) -> Sequence[Answer]:
        """Call methods of dosna's object class on objects, where these are stored.

        Parameters
        ----------
        calls : sequence of MethodCall
            The methods, of the classes that `dosna.query.ceph_class` describes.

        Returns
        -------
        sequence of Answer
            For each call the answer of the method; None if there is no object; NotExecutedError
            if the method was not executed or refused the object, which has to be read instead.

        Raises
        ------
        ConnectionError, StoreTimeoutError
            A server did not answer.
        """
        return [NotExecutedError(f"this store does not execute {call.method}") for call in calls]

    def close(self) -> None:  # noqa: B027  a store without a connection has nothing to close
        """Release the resources that the store holds."""


class Turns:
    """Attempts at a change that is made on condition that no other writer was faster.

    Iteration yields `MOST_ATTEMPTS` turns and then raises StorageError. In each turn the change is
    made ``with unless_conflict()``. After a conflict the next turn begins; after success the
    caller leaves the loop.

    Parameters
    ----------
    what : str
        The name of the object in the error message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._refused: str | None = None
        self._times = 0
        self.expected: str | None = None
        """Version that this turn found, on which its change is conditional."""

    def __iter__(self) -> Iterator[None]:
        for _ in range(MOST_ATTEMPTS):
            yield
        raise StorageError(
            f"{self._what} changed {MOST_ATTEMPTS} times while it was being changed: too many "
            "writers on one object"
        )

    @contextmanager
    def unless_conflict(self) -> Iterator[None]:
        """Suppress a VersionConflict, so that the next turn begins.

        A store that keeps refusing the version that it has raises StorageError instead.
        """
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
                    "write over the version that it has. It no longer honours conditions, as "
                    "radosgw in a bucket for which versioning was switched on: connect again, so "
                    "that dosna finds that out"
                ) from error


# The locks are per chunk, not per handle, because a store may have no conditional puts.
_locks = [threading.Lock() for _ in range(_STRIPES)]


def lock(*what: Any) -> threading.Lock:
    """Return the lock, within this process, of a dataset's metadata or of a stored object."""
    return _locks[hash(what) % _STRIPES]


def _renew_locks() -> None:
    _locks[:] = [threading.Lock() for _ in range(_STRIPES)]


os.register_at_fork(after_in_child=_renew_locks)
