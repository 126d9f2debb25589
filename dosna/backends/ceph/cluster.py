"""A connection to a Ceph cluster, with a time limit to everything that it waits for."""

from __future__ import annotations

import atexit
import errno
import json
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import rados

from dosna.errors import ConfigurationError, ConnectionError, StorageError
from dosna.io.fork import ForkGuard

__all__ = ["FORBIDDEN", "Cluster", "Settings", "reason"]

T = TypeVar("T")

FORBIDDEN = {errno.EPERM, errno.EACCES}
"""Errors of a client whose key or capabilities do not suffice."""

_END_SECONDS = 10
_TIMEOUTS = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")


@dataclass(frozen=True)
class Settings:
    """The settings to reach a pool. They hold no secrets, and may be sent to other processes.

    Parameters
    ----------
    pool : str
        The name of the pool.
    conffile : str
        The path of the cluster's configuration.
    client_id : str or None
        The id of the client: 'dosna' for ``client.dosna``. None stands for librados' own
        default, 'admin'.
    timeout : float
        The seconds for each request.
    """

    pool: str
    conffile: str
    client_id: str | None
    timeout: float

    @property
    def client(self) -> str:
        """The name of the client in Ceph."""
        return f"client.{self.client_id or 'admin'}"


class Cluster:
    """A connection to a cluster, which ends with the last reference to it.

    So it never ends under a thread that still uses it, which would crash librados. It is closed
    a moment later, by a thread for that.
    """

    def __init__(self, settings: Settings) -> None:
        self._guard = ForkGuard("Ceph")
        self._guard.check()
        _start_ender()
        self._rados: Any = None
        made = _configured(settings)
        # Neither call of `_connect` keeps to its own timeout in all cases.
        self._pool = _within(settings, lambda: _connect(made, settings))
        self._rados = made
        _open[id(made)] = made

    def __del__(self) -> None:
        # A forked child does not have the threads that a shutdown would wait for.
        if self._rados is not None and not self._guard.inherited:
            _ends.put(self._rados)

    def option(self, name: str) -> str:
        """Return the value of a Ceph option, as this client knows it."""
        value: str = self._rados.conf_get(name)
        return value

    def ask(self, prefix: str, **arguments: object) -> Any:
        """Return a monitor's answer to a command that only reads.

        Raises
        ------
        StorageError
            The command was refused, or was not answered in time.
        """
        command = json.dumps({"prefix": prefix, "format": "json", **arguments})
        # The time limit is rados_mon_op_timeout: librados ignores that of the call.
        status, out, why = self._rados.mon_command(command, b"")
        if status:
            raise StorageError(f"`ceph {prefix}` failed: {why or reason(-status)}")
        return json.loads(out)

    def open_pool(self) -> Any:
        """Open an I/O context."""
        objects = self._rados.open_ioctx2(self._pool)
        # Without this, a full cluster would hold writes back until there is room.
        objects.set_osdmap_full_try()
        return objects

    def has_pool(self) -> bool:
        """Return True if the pool still exists, by the map that came with the last answer."""
        return self._rados.pool_reverse_lookup(self._pool) is not None


# A shutdown waits for threads of librados. The thread that drops the last reference may be one of
# these, may hold a lock that their callbacks need, or may run an event loop, because any thread
# may collect garbage. So a thread of its own does it. SimpleQueue.put is safe in a destructor.
_open: dict[int, Any] = {}
"""Clusters that are connected, by their `id`."""
_ends: SimpleQueue[Any] = SimpleQueue()
"""Clusters that are no longer used, and None at the end of the process."""
_ender: threading.Thread | None = None
_starting = threading.Lock()


def _start_ender() -> None:
    global _ender
    with _starting:
        if _ender is None:
            _ender = threading.Thread(target=_end_each, name="dosna-ceph-end", daemon=True)
            _ender.start()


def _end_each() -> None:
    while (made := _ends.get()) is not None:
        if _open.pop(id(made), None) is not None:
            made.shutdown()


@atexit.register
def _end_all() -> None:
    """Close all connections, because a process that exits with librados' threads is aborted."""
    if _ender is not None:
        _ends.put(None)
        _ender.join(_END_SECONDS)
    while _open:
        _, made = _open.popitem()
        made.shutdown()


def _renew() -> None:
    global _open, _ends, _ender, _starting
    _open, _ends, _ender, _starting = {}, SimpleQueue(), None, threading.Lock()


os.register_at_fork(after_in_child=_renew)


def _configured(settings: Settings) -> Any:
    try:
        cluster = rados.Rados(rados_id=settings.client_id, conffile=settings.conffile)
    except rados.Error as error:
        why = (
            "is not a Ceph configuration"
            if error.errno == errno.EINVAL
            else f"cannot be read ({reason(error.errno)})"
        )
        raise ConfigurationError(
            f"{settings.conffile} {why}: give conffile= the path of the cluster's ceph.conf"
        ) from None
    # librados 16 takes whole seconds.
    for option in _TIMEOUTS:
        cluster.conf_set(option, str(math.ceil(settings.timeout)))
    return cluster


def _connect(cluster: Any, settings: Settings) -> int:
    """Connect, and return the number of the pool."""
    try:
        cluster.connect()
        pool: int | None = cluster.pool_lookup(settings.pool)
        if pool is None:
            # The pool may have been created a moment ago.
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
            f"{cannot}: there is no mon_host, or no readable keyring with its key; "
            "see mon_host and keyring in that file"
        )
    if error.errno in FORBIDDEN:
        why = reason(error.errno)
        return f"{cannot}: its key is refused ({why}); see the keyring which that file names"
    if error.errno == errno.ETIMEDOUT:
        return f"{cannot}: no monitor answered within {math.ceil(settings.timeout)} s"
    return f"{cannot}: {reason(error.errno)}"


def _within(settings: Settings, call: Callable[[], T]) -> T:
    """Return the result of a call, or raise ConnectionError if it does not return in time."""
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


def reason(number: int | None) -> str:
    """Return the meaning of an error number."""
    return os.strerror(number) if number else "librados does not say why"
