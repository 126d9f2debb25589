"""A store of bytes in objects of a Ceph pool, through librados' own binding.

In a batch, objects are written by asynchronous operations. Threads do the reading, for two
reasons: they also decode what they read, and reads need versions. librados keeps the version of
the last read in an I/O context, of which each thread has its own, and it tells no version for
asynchronous reads.
"""

from __future__ import annotations

import errno
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, TypeVar

import rados

from dosna.backends.ceph import entries as omap
from dosna.backends.ceph.cluster import FORBIDDEN, Cluster, Settings, reason
from dosna.backends.ceph.places import Places
from dosna.backends.stores.store import (
    ABSENT,
    MOST_ATTEMPTS,
    Answer,
    Blob,
    ByteRange,
    MethodCall,
    NotExecutedError,
    Stat,
    Store,
    VersionConflict,
)
from dosna.errors import (
    ConnectionError,
    DatasetNameError,
    DosnaError,
    NotConnectedError,
    OutcomeUnknown,
    StorageError,
    StoreTimeoutError,
)
from dosna.io.cache import Cache
from dosna.io.files import FULL
from dosna.io.fork import ForkGuard
from dosna.io.parallel import Batch, Workers

__all__ = ["CephStore"]

T = TypeVar("T")

END = ".dosna-end-2b13140ae"
"""The object with the highest hash, 0xffffffff, which is the last of any listing."""

CLASS, CLASS_VERSION = "dosna", b"\x01"
"""Name and version of the object class, see ``dosna/query/ceph_class``."""

_IN_FLIGHT = 16
_BYTES_IN_FLIGHT = 64 << 20
_FIRST_GUESS = 64 << 10
_MOST_SIZES = 1024
_CONFLICTS = {errno.EEXIST, errno.ERANGE, errno.EOVERFLOW}
_TOO_LARGE = {errno.EMSGSIZE, errno.EFBIG}
# No answer has come, so it is unknown whether a write was done.
_LOST = {errno.ETIMEDOUT, errno.EINTR, errno.ENOTCONN, errno.ESHUTDOWN}


class _Handle:
    """A thread's I/O context, and the cluster that it belongs to."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.objects = cluster.open_pool()


class CephStore(Store):
    """The objects of one pool.

    Parameters
    ----------
    settings : Settings
        The settings to reach the pool.
    writable : bool
        Whether the object `END` may be made.
    """

    shared_between_processes = True
    schedules_requests = True
    conditional_puts = True
    deletes_at_once = 1000
    # The time that an OSD takes for one operation grows with the square of the number of ranges:
    # 3 ms for 100, 0.4 s for 1000.
    most_ranges: ClassVar[int] = 64

    def __init__(self, settings: Settings, writable: bool = True) -> None:
        self.settings = settings
        self._writable = writable
        self._guard = ForkGuard("Ceph")
        self._guard.check()
        self._cluster: Cluster | None = Cluster(settings)
        self._local = threading.local()
        self._sizes: Cache[int] = Cache(_MOST_SIZES)
        self._executes: bool | None = None  # is not known yet
        self._places = Places(settings.pool, settings.timeout)
        self._workers = Workers("dosna-ceph", _IN_FLIGHT, _BYTES_IN_FLIGHT)

    @property
    def cluster(self) -> Cluster:
        """The connection to the cluster, which only this process may use."""
        self._guard.check()
        if self._cluster is None:
            raise NotConnectedError("the connection to Ceph was closed: connect it again")
        return self._cluster

    def _handle(self, waits: bool = True) -> _Handle:
        """Return this thread's I/O context. `waits`: whether the caller waits for the answer."""
        cluster = self.cluster
        batch = self._workers.batch
        if waits and batch is not None:
            batch.widen()
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            with self._failures("opening it"):
                try:
                    handle = self._local.handle = _Handle(cluster)
                except rados.ObjectNotFound:
                    raise self._no_pool() from None
        return handle

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        handle = self._handle()
        with self._failures(f"reading {key!r}"):
            try:
                if byte_range is None:
                    data = self._read(handle.objects, key)
                else:
                    start, stop = byte_range
                    if stop is None:
                        data = _read_end(handle.objects, key, -start)
                    else:
                        data = handle.objects.read(key, stop - start, start)
                return Blob(data, str(handle.objects.get_last_version()))
            except rados.ObjectNotFound:
                if handle.cluster.has_pool():
                    return None
        raise self._no_pool()

    def stat(self, key: str) -> Stat | None:
        handle = self._handle()
        with self._failures(f"looking at {key!r}"):
            try:
                size, _ = handle.objects.stat(key)
                return Stat(size, str(handle.objects.get_last_version()))
            except rados.ObjectNotFound:
                if handle.cluster.has_pool():
                    return None
        raise self._no_pool()

    def _no_pool(self) -> StorageError:
        return StorageError(f"pool {self.settings.pool!r} does not exist any more")

    def _read(self, objects: Any, key: str) -> Any:
        """Read a whole object, by one request if it is as long as others of its folder."""
        folder = key.partition("/c/")[0]
        guess = self._sizes.peek(folder) or _FIRST_GUESS
        for _ in range(MOST_ATTEMPTS):
            # One byte more shows whether that was the whole object.
            data = objects.read(key, guess + 1)
            if len(data) <= guess:
                return data
            guess, _ = objects.stat(key)
            self._sizes.put(folder, guess)
        raise _grows(key)

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        batch = self._workers.batch
        if batch is not None and expected is None:
            self._put_in(batch, key, data)
            return
        handle = self._handle()
        with self._failures(f"writing {key!r}", writes=True):
            if expected is None:
                handle.objects.write_full(key, data)
                return
            with rados.WriteOpCtx() as operation:
                if expected == ABSENT:
                    operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
                else:
                    operation.assert_version(int(expected))
                operation.write_full(data)
                try:
                    handle.objects.operate_write_op(operation, key)
                except rados.Error as error:
                    if error.errno not in _CONFLICTS:
                        raise
                    raise VersionConflict(f"{key!r} no longer has version {expected!r}") from None

    def _put_in(self, batch: Batch, key: str, data: bytes) -> None:
        """Start to write an object; the batch waits for the end."""
        handle = self._handle(waits=False)

        def ended(completion: Any) -> None:
            status = completion.get_return_value()
            batch.end(self._failure(what, -status, True) if status else None)

        what = f"writing {key!r}"
        # The binding holds a request only by its I/O context, and that one by the request: without
        # anybody else, Python would collect both as garbage before librados calls `ended`.
        batch.kept[id(handle)] = handle
        batch.begin()
        try:
            with self._failures(what, writes=True):
                handle.objects.aio_write_full(key, data, ended)
        except BaseException as error:
            batch.end(error)

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        handle = self._handle()
        with (
            self._failures(f"writing parts of {key!r}", writes=True),
            rados.WriteOpCtx() as operation,
        ):
            # This is the only operation of the binding that fails if there is no object.
            operation.rm_xattr("dosna.none")
            for start, data in parts:
                operation.write(data, start)
            try:
                handle.objects.operate_write_op(operation, key)
            except rados.ObjectNotFound:
                return False
            except rados.Error as error:
                # An erasure-coded pool without allow_ec_overwrites answers this.
                if error.errno != errno.EOPNOTSUPP:
                    raise
                return False
        return True

    def entries(self, key: str, prefix: str) -> Iterator[tuple[str, str]]:
        """List the entries (omap) of an object that begin with `prefix`, in their order."""
        after = ""
        while page := self._entries(key, partial(omap.after, key=key, prefix=prefix, name=after)):
            yield from page
            after = page[-1][0]

    def entries_of(self, key: str, names: Sequence[str]) -> dict[str, str]:
        """Return those of some entries of an object that exist."""
        return dict(self._entries(key, lambda objects: omap.named(objects, key, names)))

    def _entries(self, key: str, read: Callable[[Any], omap.Page]) -> omap.Page:
        handle = self._handle()
        with self._failures(f"reading entries of {key!r}"):
            try:
                return read(handle.objects)
            except rados.ObjectNotFound:
                if handle.cluster.has_pool():
                    return []
        raise self._no_pool()

    def change_entries(
        self, key: str, known: Mapping[str, str | None], new: Mapping[str, str | None]
    ) -> None:
        """Set entries of an object, or remove those that are None; all at once or none.

        Raises
        ------
        VersionConflict
            An entry is not the `known` one, of which None stands for an absent one.
        NoEntriesError
            The pool keeps no entries.
        """
        handle = self._handle()
        with self._failures(f"writing entries of {key!r}", writes=True):
            if not omap.change(handle.objects, key, known, new):
                raise VersionConflict(f"entries {[*known]} of {key!r} have changed")

    def delete(self, key: str) -> bool:
        handle = self._handle()
        with self._failures(f"deleting {key!r}", writes=True):
            try:
                handle.objects.remove_object(key)
            except rados.ObjectNotFound:
                return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        end = self._end()
        last = None
        with self._failures(f"listing what begins with {prefix!r}"):
            for found in self._handle().objects.list_objects():
                last = found.key
                if last != END and last.startswith(prefix):
                    yield last
        # The binding takes any error for the end of the listing.
        if end is None:
            warnings.warn(
                f"the listing of pool {self.settings.pool!r} may have been cut short: only the "
                f"object {END!r} proves that it is complete, and a listing with mode='a' makes it",
                stacklevel=2,
            )
        elif last != end:
            raise StorageError(
                f"listing pool {self.settings.pool!r} was cut short: part of the cluster does not "
                "answer; see `ceph health detail`"
            )

    def _end(self) -> str | None:
        """Return the key of the last object of any listing, which is made if it may be.

        Return None if it does not exist.
        """
        if self.get(END) is None:
            if not self._writable:
                return None
            self.put(END, b"")
        return END

    def locations(self, key: str) -> tuple[str, ...]:
        return self._places.hosts(key, self.cluster.ask)

    def can_execute(self) -> bool:
        if self._executes is None:
            # An OSD looks for the class, and whether the client may use it, before the object.
            (version,) = self.execute([MethodCall(END, "version", b"", len(CLASS_VERSION))])
            self._executes = version in (None, CLASS_VERSION)
        return self._executes

    def execute(self, calls: Sequence[MethodCall]) -> Sequence[Answer]:
        handle = self._handle()
        ended: SimpleQueue[tuple[int, int, bytes]] = SimpleQueue()
        statuses: list[tuple[int, bytes]] = [(-errno.EINTR, b"")] * len(calls)
        under_way = nbytes = 0

        def take() -> None:
            nonlocal under_way, nbytes
            number, status, data = ended.get()
            statuses[number] = status, data
            under_way, nbytes = under_way - 1, nbytes - calls[number].most

        for number, call in enumerate(calls):
            while under_way >= _IN_FLIGHT or (under_way and nbytes > _BYTES_IN_FLIGHT):
                take()
            with self._failures(f"calling {CLASS}.{call.method} on {call.key!r}"):
                _begin(handle, call, number, ended)
            under_way, nbytes = under_way + 1, nbytes + call.most
        while under_way:
            take()
        return [
            self._answer(handle, call, *status)
            for call, status in zip(calls, statuses, strict=True)
        ]

    def _answer(self, handle: _Handle, call: MethodCall, status: int, data: bytes) -> Answer:
        """Return what a call returned, or raise an error if there was no answer."""
        what = f"calling {CLASS}.{call.method} on {call.key!r}"
        if status >= 0:
            return data
        if status == -errno.ENOENT:
            if not handle.cluster.has_pool():
                raise self._no_pool()
            return None
        if -status in _LOST:
            raise self._failure(what, -status, False)
        if status == -errno.EOPNOTSUPP:
            # Such as from a pool with erasure code, whose objects no class can read.
            self._executes = False
        return NotExecutedError(f"{what} failed: {reason(-status)}")

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        # Held, so that the connection does not end under a write that goes on without a thread.
        _ = self.cluster
        self._workers.for_each(work, items, nbytes)

    def close(self) -> None:
        self._workers.close()
        # This drops the handle of each thread; one that is in use goes when its request is done.
        self._local = threading.local()
        self._cluster = None

    @contextmanager
    def _failures(self, what: str, writes: bool = False) -> Iterator[None]:
        """Raise librados' errors as errors of dosna."""
        try:
            yield
        except rados.Error as error:
            raise self._failure(what, error.errno or 0, writes) from None

    def _failure(self, what: str, number: int, writes: bool) -> DosnaError:
        settings = self.settings
        failed = f"pool {settings.pool!r}: {what} failed: {reason(number)}"
        if number == errno.ENAMETOOLONG:
            return DatasetNameError(f"{failed}: the name of its dataset is too long for Ceph")
        if number in _LOST and writes:
            return OutcomeUnknown(
                f"{failed}; it may have been done, or may still be: read before writing again"
            )
        if number == errno.ETIMEDOUT:
            return StoreTimeoutError(
                f"{failed}: no answer within {math.ceil(settings.timeout)} s; see `ceph health "
                "detail`, or connect with a longer timeout="
            )
        if number in _LOST:
            return ConnectionError(f"{failed}: connect again")
        if number in FULL:
            failed += ": the cluster or the pool's quota is full; delete something or add room"
        elif number in FORBIDDEN:
            failed += (
                f": {settings.client} may not do this; `ceph auth get {settings.client}` shows "
                "what it may"
            )
        elif number in _TOO_LARGE:
            failed += (
                ": osd_max_write_size or osd_max_object_size of the cluster does not allow it"
            )
        return StorageError(failed)


def _begin(
    handle: _Handle, call: MethodCall, number: int, ended: SimpleQueue[tuple[int, int, bytes]]
) -> None:
    """Start a call, whose end is put into a queue with its number."""

    # It keeps the handle, and so the connection, until the call has ended.
    def end(completion: Any, data: bytes | None, handle: _Handle = handle) -> None:
        ended.put((number, completion.get_return_value(), data or b""))

    handle.objects.aio_execute(call.key, CLASS, call.method, call.request, call.most, end)


def _read_end(objects: Any, key: str, count: int) -> Any:
    """Read the last bytes of one version of an object."""
    for _ in range(MOST_ATTEMPTS):
        size, _ = objects.stat(key)
        count = min(count, size)
        data = objects.read(key, count + 1, size - count)
        if len(data) == count:  # otherwise the object has another size by now
            return data
    raise _grows(key)


def _grows(key: str) -> StorageError:
    return StorageError(f"object {key!r} had another size {MOST_ATTEMPTS} times while it was read")
