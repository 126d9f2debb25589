"""The places of the objects of a pool: the hosts of the OSDs that keep them.

An object belongs to a placement group by the hash of its name, and the map of the OSDs (osdmap)
says which OSDs keep each group. Only monitors are asked. A manager (mgr) would list all groups by
one command, but librados never returns if the cluster has none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from struct import unpack
from typing import Any

import rados

from dosna.errors import DosnaError

__all__ = ["Places", "group_of", "hash_of"]

Ask = Callable[..., Any]

_FRESH_SECONDS = 5.0
_PAUSE_SECONDS = 60.0
# What stands in an acting set for an OSD that is missing.
_NO_OSD = 0x7FFFFFFF
_WORD = 0xFFFFFFFF


class Places:
    """The hosts of the objects of one pool, as far as the monitors tell them in time.

    A monitor is asked once for each placement group, and again after the map has changed. Each
    answer carries the epoch of the map; one is demanded every few seconds while hosts are asked
    for. After a failure, and whenever questions have taken `seconds` together, none is asked for a
    minute.

    Parameters
    ----------
    pool : str
        The name of the pool.
    seconds : float
        The seconds that questions may take before a pause.
    """

    def __init__(self, pool: str, seconds: float) -> None:
        self._pool, self._seconds = pool, seconds
        self._lock = threading.Lock()
        self._forget()
        self._left, self._again = seconds, 0.0

    def _forget(self) -> None:
        self._epoch, self._count, self._fresh_until = -1, 1, 0.0
        self._groups: dict[int, tuple[str, ...]] = {}
        self._hosts: dict[int, str] = {}

    def hosts(self, key: str, ask: Ask) -> tuple[str, ...]:
        """Return the names of the hosts that keep an object, that of the primary OSD first.

        Parameters
        ----------
        key : str
            The name of the object.
        ask : callable
            A function that sends a command with arguments to a monitor and returns the answer.
            It has a time limit of its own.

        Returns
        -------
        tuple of str
            The hosts; empty if they are not known.
        """
        hashed = hash_of(key)
        with self._lock:
            now = time.monotonic()
            if now < self._fresh_until:
                known = self._groups.get(group_of(hashed, self._count))
                if known is not None:
                    return known
            if now < self._again:
                return ()
            try:
                found = self._learn(key, hashed, ask)
            except (rados.Error, DosnaError, ValueError, TypeError, KeyError):
                self._forget()
                self._left = 0.0
                found = ()
            end = time.monotonic()
            self._left -= end - now
            if self._left <= 0:
                self._left, self._again = self._seconds, end + _PAUSE_SECONDS
            return found

    def _learn(self, key: str, hashed: int, ask: Ask) -> tuple[str, ...]:
        """Ask for the place of an object, and keep the answer for its placement group."""
        found = ask("osd map", pool=self._pool, object=key)
        if found["epoch"] != self._epoch:
            self._forget()
            answer = ask("osd pool get", pool=self._pool, var="pg_num")
            self._epoch, self._count = found["epoch"], answer["pg_num"]
        group = group_of(hashed, self._count)
        if found["pgid"] != f"{found['pool_id']}.{group:x}":
            raise ValueError(f"pool {self._pool!r} has another hash of names")
        osds = dict.fromkeys([found["acting_primary"], *found["acting"]])
        hosts = dict.fromkeys(self._host(osd, ask) for osd in osds if 0 <= osd < _NO_OSD)
        self._groups[group] = tuple(hosts)
        self._fresh_until = time.monotonic() + _FRESH_SECONDS
        return self._groups[group]

    def _host(self, osd: int, ask: Ask) -> str:
        host = self._hosts.get(osd)
        if host is None:
            host = self._hosts[osd] = str(ask("osd metadata", id=osd)["hostname"])
        return host


def group_of(hashed: int, count: int) -> int:
    """Return the number of an object's placement group, of `count` in the pool.

    This is `ceph_stable_mod` of Ceph's src/include/rados.h: where the count is no power of two,
    only some groups have been split.
    """
    mask = (1 << (count - 1).bit_length()) - 1
    group = hashed & mask
    return group if group < count else hashed & (mask >> 1)


def hash_of(name: str, namespace: str = "") -> int:
    """Return the hash of an object's name, of which the bits say its placement group.

    This is `rjenkins`, Ceph's default: Robert Jenkins' hash of 1996 in the public domain
    (http://burtleburtle.net/bob/hash/evahash.html), of name and namespace joined as in
    `pg_pool_t::hash_key` of Ceph's src/osd/osd_types.cc.
    """
    data = (f"{namespace}\x1f{name}" if namespace else name).encode()
    size = len(data)
    end = size - size % 12
    tail = data[end:].ljust(11, b"\0")
    # The lowest byte of the last word is that of the length.
    padded = data[:end] + tail[:8] + b"\0" + tail[8:]
    words = unpack(f"<{len(padded) // 4}I", padded)
    a = b = 0x9E3779B9
    c = 0
    for at in range(0, len(words), 3):
        a += words[at]
        b += words[at + 1]
        c = (c + words[at + 2] + (size if at + 3 == len(words) else 0)) & _WORD
        a = (a - b - c ^ c >> 13) & _WORD
        b = (b - c - a ^ a << 8) & _WORD
        c = (c - a - b ^ b >> 13) & _WORD
        a = (a - b - c ^ c >> 12) & _WORD
        b = (b - c - a ^ a << 16) & _WORD
        c = (c - a - b ^ b >> 5) & _WORD
        a = (a - b - c ^ c >> 3) & _WORD
        b = (b - c - a ^ a << 10) & _WORD
        c = (c - a - b ^ b >> 15) & _WORD
    return c
