"""Objects of a Ceph pool, through librados' own binding.

Each thread has an I/O context of its own, because librados keeps there the version of what was
read last. As many threads as there are requests under way are as fast as librados' ``aio_``
calls, whose results come without a version.
"""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar

import rados

from dosna.backends.objects import ABSENT, Blob, ByteRange, Store, VersionConflict
from dosna.backends.workers import Workers
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    NotConnectedError,
    OutcomeUnknown,
    StorageError,
    StoreTimeoutError,
)

__all__ = ["CephStore", "Cluster", "Settings"]

T = TypeVar("T")

END = ".dosna-end-2b13140ae"
"""The object with the last hash there is, 0xffffffff, and so the last of any listing."""

_IN_FLIGHT = 16
_BYTES_IN_FLIGHT = 64 << 20
_FIRST_GUESS = 64 << 10
_MOST_SIZES = 1024
_TIMEOUTS = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
_CONFLICTS = {errno.EEXIST, errno.ERANGE, errno.EOVERFLOW}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EPERM, errno.EACCES}
_TOO_LARGE = {errno.EMSGSIZE, errno.EFBIG}
# The answer did not come: nobody knows what became of a write.
_LOST = {errno.ETIMEDOUT, errno.EINTR, errno.ENOTCONN, errno.ESHUTDOWN}


@dataclass(frozen=True)
class Settings:
    """How to reach a pool. Holds no secrets, and may travel.

    Parameters
    ----------
    pool, conffile : str
    client_id : str or None
        'dosna' for ``client.dosna``; librados' own default, 'admin', for None.
    timeout : float
        Seconds for each request.
    """

    pool: str
    conffile: str
    client_id: str | None
    timeout: float

    @property
    def client(self) -> str:
        """What Ceph calls who connects."""
        return f"client.{self.client_id or 'admin'}"


class Cluster:
    """A connection to a cluster; it ends with the last reference to it.

    So that it never ends under a thread that still uses it, which would crash librados.
    """

    def __init__(self, settings: Settings) -> None:
        self._process = os.getpid()
        self._rados: Any = None
        made = _configured(settings)
        # Neither call minds its own timeout in all cases.
        self._pool = _within(settings, lambda: _connect(made, settings))
        self._rados = made

    def __del__(self) -> None:
        # A forked child has none of the threads that this would wait for.
        if self._rados is not None and self._process == os.getpid():
            self._rados.shutdown()

    def option(self, name: str) -> str:
        """Give an option of Ceph's, as this client knows it."""
        value: str = self._rados.conf_get(name)
        return value

    def open_pool(self) -> Any:
        """Open an I/O context."""
        objects = self._rados.open_ioctx2(self._pool)
        # A full cluster would otherwise keep writes until there is room.
        objects.set_osdmap_full_try()
        return objects

    def has_pool(self) -> bool:
        """Whether the pool is still there, by the map that the last answer came with."""
        return self._rados.pool_reverse_lookup(self._pool) is not None


class _Handle:
    """A thread's I/O context."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.objects = cluster.open_pool()
        self._process = os.getpid()

    def __del__(self) -> None:
        if self._process == os.getpid() and hasattr(self, "objects"):
            self.objects.close()


def _configured(settings: Settings) -> Any:
    try:
        cluster = rados.Rados(rados_id=settings.client_id, conffile=settings.conffile)
    except rados.Error as error:
        why = (
            "is not a Ceph configuration"
            if error.errno == errno.EINVAL
            else f"cannot be read ({_reason(error)})"
        )
        raise ConfigurationError(
            f"{settings.conffile} {why}: give conffile= the path of the cluster's ceph.conf"
        ) from None
    # librados 16 takes whole seconds.
    for option in _TIMEOUTS:
        cluster.conf_set(option, str(math.ceil(settings.timeout)))
    return cluster


def _connect(cluster: Any, settings: Settings) -> int:
    """Connect, and give the number of the pool."""
    try:
        cluster.connect()
        pool: int | None = cluster.pool_lookup(settings.pool)
        if pool is None:
            # It may have been made a moment ago.
            cluster.wait_for_latest_osdmap()
            pool = cluster.pool_lookup(settings.pool)
    except rados.Error as error:
        cluster.shutdown()
        raise ConnectionError(_why_not(settings, error)) from None
    if pool is None:
        cluster.shutdown()
        raise ConnectionError(
            f"the cluster of {settings.conffile} has no pool {settings.pool!r}: make it with "
            f"`ceph osd pool create {settings.pool}`, or name another one as the connection"
        )
    return pool


def _why_not(settings: Settings, error: rados.Error) -> str:
    cannot = f"{settings.client} cannot connect to the cluster of {settings.conffile}"
    if error.errno == errno.ENOENT:
        return (
            f"{cannot}: there are no mon_host, or no keyring with its key that can be read; "
            "see mon_host and keyring in that file"
        )
    if error.errno in _FORBIDDEN:
        return f"{cannot}: its key is refused ({_reason(error)}); see the keyring that file names"
    if error.errno == errno.ETIMEDOUT:
        return f"{cannot}: no monitor answered within {math.ceil(settings.timeout)} s"
    return f"{cannot}: {_reason(error)}"


def _within(settings: Settings, call: Callable[[], T]) -> T:
    """Wait for a call that may never return, but not for ever."""
    ends: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            ends.put((True, call()))
        except BaseException as error:
            ends.put((False, error))

    threading.Thread(target=run, name="dosna-ceph-connect", daemon=True).start()
    seconds = math.ceil(settings.timeout) + 1
    try:
        done, result = ends.get(timeout=seconds)
    except Empty:
        raise ConnectionError(
            f"the cluster of {settings.conffile} did not answer within {seconds} s"
        ) from None
    if not done:
        raise result
    value: T = result
    return value


def _reason(error: rados.Error) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


class CephStore(Store):
    """Objects of one pool.

    Parameters
    ----------
    settings : Settings
    """

    shared_between_processes = True
    conditional_puts = True
    deletes_at_once = 1000
    # The time that an OSD takes for one operation grows with their square: 3 ms for 100, 0.4 s
    # for 1000.
    most_ranges: ClassVar[int] = 64

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process = os.getpid()
        self._cluster: Cluster | None = Cluster(settings)
        self._local = threading.local()
        self._sizes: dict[str, int] = {}
        self._workers = Workers("dosna-ceph", _IN_FLIGHT, _BYTES_IN_FLIGHT)

    @property
    def cluster(self) -> Cluster:
        """The connection, which is of this process alone."""
        if self._process != os.getpid():
            raise ConnectionError(
                "this process was forked from one that had connected to Ceph, and librados does "
                "not survive that: start processes by spawn or forkserver, or connect after the "
                "fork"
            )
        if self._cluster is None:
            raise NotConnectedError("the connection to Ceph was closed")
        return self._cluster

    def _handle(self) -> _Handle:
        cluster = self.cluster
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(cluster)
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
        raise StorageError(f"pool {self.settings.pool!r} is not there any more")

    def _read(self, objects: Any, key: str) -> Any:
        """Read all of an object by one request, if its size is that of others beside it."""
        folder = key.partition("/c/")[0]
        guess = self._sizes.get(folder, _FIRST_GUESS)
        while True:
            # One byte more shows whether that was all.
            data = objects.read(key, guess + 1)
            if len(data) <= guess:
                return data
            guess, _ = objects.stat(key)
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            self._sizes[folder] = guess

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
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
                    raise VersionConflict(
                        f"{key!r} is not of version {expected!r} any more"
                    ) from None

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        handle = self._handle()
        with (
            self._failures(f"writing parts of {key!r}", writes=True),
            rados.WriteOpCtx() as operation,
        ):
            # The one operation of the binding that fails where there is no object.
            operation.rm_xattr("dosna.none")
            for start, data in parts:
                operation.write(data, start)
            try:
                handle.objects.operate_write_op(operation, key)
            except rados.ObjectNotFound:
                return False
            except rados.Error as error:
                # Of an erasure-coded pool without allow_ec_overwrites.
                if error.errno != errno.EOPNOTSUPP:
                    raise
                return False
        return True

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
                if last != end and last.startswith(prefix):
                    yield last
        # The binding takes any error for the end.
        if last != end:
            raise StorageError(
                f"listing pool {self.settings.pool!r} was cut short: part of the cluster does not "
                "answer; see `ceph health detail`"
            )

    def _end(self) -> str:
        """Give the key of the last object of any listing, which is made for the first."""
        if self.get(END) is None:
            self.put(END, b"")
        return END

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        _ = self.cluster  # so that a forked process raises, and does not wait for threads
        self._workers.for_each(work, items, nbytes)

    def close(self) -> None:
        self._workers.close()
        # Each thread's handle goes with this; one that is in use goes when it is done.
        self._local = threading.local()
        self._cluster = None

    @contextmanager
    def _failures(self, what: str, writes: bool = False) -> Iterator[None]:
        """Turn librados' errors into dosna's."""
        try:
            yield
            return
        except rados.Error as error:
            found = self._failure(what, error, writes)
        raise found

    def _failure(self, what: str, error: rados.Error, writes: bool) -> DosnaError:
        settings, number = self.settings, error.errno
        failed = f"pool {settings.pool!r}: {what} failed: {_reason(error)}"
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
        if number in _FULL:
            failed += ": the cluster or the pool's quota is full; delete something or add room"
        elif number in _FORBIDDEN:
            failed += (
                f": {settings.client} may not do this; `ceph auth get {settings.client}` shows "
                "what it may"
            )
        elif number in _TOO_LARGE:
            failed += (
                ": osd_max_write_size or osd_max_object_size of the cluster does not allow it"
            )
        return StorageError(failed)


def _read_end(objects: Any, key: str, count: int) -> Any:
    """Read the last bytes of an object, of one version of it."""
    while True:
        size, _ = objects.stat(key)
        count = min(count, size)
        data = objects.read(key, count + 1, size - count)
        if len(data) == count:  # else it has another size by now
            return data
