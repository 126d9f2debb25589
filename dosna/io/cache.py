"""A cache of values, limited by their size or number, which all threads may use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dosna.io.fork import renew_in_children

__all__ = ["Cache"]

V = TypeVar("V")


class _Entry(Generic[V]):
    def __init__(self, value: V | None = None) -> None:
        self.lock = threading.Lock()
        self.value = value
        self.size = 0
        self.used = False


class Cache(Generic[V]):
    """A cache of values that are made once for all threads. The least recently used go first.

    Parameters
    ----------
    limit : int
        The total size to hold. A value that was just added is held, however large it is.
    size : callable, optional
        A function that returns the size of a value; by default each counts 1.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self.limit, self._size = limit, size
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        renew_in_children(self)

    def renew(self) -> None:
        """Start anew in a forked child, where the parent's locks would never be released."""
        self._lock = threading.Lock()
        self.clear()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """Return a value. If it is missing, make it, while other threads wait for it."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.value is None:
                try:
                    made = make()
                except BaseException:
                    self._drop(key, entry)
                    raise
                entry.value = made
                self._keep(key, entry)
            return entry.value

    def find(self, key: Hashable) -> V | None:
        """Return a value, or None if it is missing. This takes no lock, and counts as a use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.used = True
        return entry.value

    def peek(self, key: Hashable) -> V | None:
        """Return a value, or None if it is missing. This does not count as a use."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: Hashable, value: V) -> None:
        """Add a value, and replace what is there under its key."""
        entry = _Entry(value)
        with self._lock:
            self._remove(key)
            self._entries[key] = entry
        self._keep(key, entry)

    def drop(self, key: Hashable) -> None:
        """Delete a value, if it is there."""
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        """Delete all values."""
        with self._lock:
            self._entries.clear()
            self._held = 0

    def _keep(self, key: Hashable, entry: _Entry[V]) -> None:
        """Count a new value, and delete others until all are within the limit."""
        assert entry.value is not None
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            entry.size = self._size(entry.value)
            self._held += entry.size
            for spare_used in (True, False):
                if self._held > self.limit:
                    self._shrink(key, spare_used)

    def _shrink(self, key: Hashable, spare_used: bool) -> None:
        """Delete values that are neither that of `key` nor being made, the oldest first.

        With `spare_used`, those that `find` returned since the last time become the youngest.
        """
        excess = self._held - self.limit
        outdated, used = [], []
        for other, entry in self._entries.items():
            if excess <= 0:
                break
            if other == key or entry.value is None:
                continue
            if entry.used and spare_used:
                used.append(other)
            else:
                outdated.append(other)
                excess -= entry.size
        for other in used:
            self._entries[other].used = False
            self._entries.move_to_end(other)
        for other in outdated:
            self._remove(other)

    def _drop(self, key: Hashable, entry: _Entry[V]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held -= entry.size
