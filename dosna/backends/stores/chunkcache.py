"""A cache of decoded chunks, which the datasets and threads of one connection share."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dosna.backends.stores.store import Store
from dosna.backends.stores.views import StoreView
from dosna.codecs.zarr import DOCUMENT
from dosna.core.types import Array
from dosna.io.cache import Cache
from dosna.io.fork import renew_in_children

__all__ = ["CachedChunk", "ChunkCache", "ForgettingStore", "Recheck"]

T = TypeVar("T")

Recheck = Literal["always", "open"]

_OWN_BYTES = 512
"""Bytes that an entry takes besides its elements."""

_STRIPES = 256


@dataclass(slots=True, eq=False)
class CachedChunk:
    """A chunk and what is known of the object that it was decoded from.

    Attributes
    ----------
    values : ndarray
        The chunk, which is read-only.
    version, mark : str
        The version and the mark of the object.
    checked : float
        The time, as of ``time.monotonic()``, since which no request has been made to check it.
    by : object
        The token of the handle that made this request.
    """

    values: Array
    version: str
    mark: str | None
    checked: float
    by: object


class ChunkCache:
    """The chunks that were used last, by the keys of their objects.

    A process that receives it by pickling, or is forked, begins with an empty one.

    Parameters
    ----------
    limit : int
        The most bytes to hold.
    recheck : {'always', 'open'}
        When a chunk is compared with the store: whenever it is read, or once for each handle.
    """

    def __init__(self, limit: int, recheck: Recheck) -> None:
        self.limit, self.recheck = limit, recheck
        self._chunks: Cache[CachedChunk] = Cache(limit, lambda c: c.values.nbytes + _OWN_BYTES)
        self._changes = [0] * _STRIPES
        self._batch = threading.local()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Make the lock anew in a forked child; the chunks there are dropped by their cache."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkCache, (self.limit, self.recheck)

    def admits(self, nbytes: int) -> bool:
        """Return True if a chunk of so many bytes can be held."""
        return nbytes + _OWN_BYTES <= self.limit

    @property
    def find(self) -> Callable[[str], CachedChunk | None]:
        """Function that returns the chunk of a key, or None if it is not here."""
        return self._chunks.find

    def ticket(self, key: str) -> int:
        """Return what `keep` requires, to be asked for before the object is read."""
        return self._changes[hash(key) % _STRIPES]

    def keep(self, key: str, chunk: CachedChunk, ticket: int) -> None:
        """Add a chunk, unless `forget` was called for it since the ticket was issued."""
        with self._lock:
            if self.ticket(key) == ticket:
                self._chunks.put(key, chunk)

    def forget(self, key: str) -> None:
        """Drop a chunk whose object was changed, also if others are about to add it."""
        with self._lock:
            self._changes[hash(key) % _STRIPES] += 1
            self._chunks.drop(key)
        written: list[str] | None = getattr(self._batch, "written", None)
        if written is not None:
            written.append(key)

    def clear(self) -> None:
        """Drop all chunks, also those that others are about to add."""
        with self._lock:
            self._changes = [changes + 1 for changes in self._changes]
            self._chunks.clear()

    def noting(self, work: Callable[[T], object], written: list[str]) -> Callable[[T], None]:
        """Return `work` as a function that also adds the keys that it changes to `written`."""
        batch = self._batch

        def noted(item: T) -> None:
            before = getattr(batch, "written", None)
            batch.written = written
            try:
                work(item)
            finally:
                batch.written = before

        return noted


class ForgettingStore(StoreView):
    """A view of a store by which a cache learns of every change that its process makes.

    Parameters
    ----------
    store : Store
        The store.
    cache : ChunkCache
        The cache. A chunk is dropped after each attempt to change its object, successful or not.
    """

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        super().__init__(store)
        self._cache = cache

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        if self._cache.recheck == "always":
            super().for_each(work, items, nbytes)
            return
        # A put may be asynchronous, and is done only when this ends.
        written: list[str] = []
        try:
            super().for_each(self._cache.noting(work, written), items, nbytes)
        finally:
            for key in written:
                self._cache.forget(key)

    def put(self, key: str, data: bytes, expected: str | None = None) -> str | None:
        try:
            return super().put(key, data, expected)
        finally:
            self._cache.forget(key)

    def put_marked(
        self, key: str, data: bytes, expected: str | None, mark: str | None
    ) -> str | None:
        try:
            return super().put_marked(key, data, expected, mark)
        finally:
            self._cache.forget(key)

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        try:
            return super().put_ranges(key, parts)
        finally:
            self._cache.forget(key)

    def delete(self, key: str) -> bool:
        try:
            return super().delete(key)
        finally:
            self._cache.forget(key)

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        deleted: list[str] = []

        def noted() -> Iterable[str]:
            for key in keys:
                deleted.append(key)
                yield key

        try:
            super().delete_many(noted(), until)
        finally:
            for key in deleted:
                self._cache.forget(key)
                if key.endswith(DOCUMENT):  # with which sage deletes all chunks
                    self._cache.clear()
