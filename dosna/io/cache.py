"""A cache of decoded values, limited by their number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Cache"]

V = TypeVar("V")


class _Entry(Generic[V]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: V | None = None
        self.size = 0


class Cache(Generic[V]):
    """A cache of values that are made once for all threads. The least recently used go first.

    Parameters
    ----------
    limit : int
        The number of bytes to hold. A value that was just made is held, however large it is.
    size : callable
        A function that returns the number of bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[V], int]) -> None:
        self.limit, self._size = limit, size
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

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

    def peek(self, key: Hashable) -> V | None:
        """Return a value, or None if it is missing."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry.value

    def put(self, key: Hashable, value: V) -> None:
        """Add a value to the cache."""
        self.get(key, lambda: value)

    def clear(self) -> None:
        """Delete all values."""
        with self._lock:
            self._entries.clear()
            self._held = 0

    def _keep(self, key: Hashable, entry: _Entry[V]) -> None:
        assert entry.value is not None
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            entry.size = self._size(entry.value)
            self._held += entry.size
            for other in list(self._entries):
                if self._held <= self.limit:
                    break
                if other != key and self._entries[other].value is not None:
                    self._held -= self._entries.pop(other).size

    def _drop(self, key: Hashable, entry: _Entry[V]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]
