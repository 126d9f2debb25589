"""Datasets on a store of bytes whose chunks are kept decoded in a cache.

An object is compared with the cache by a request for its first byte, which is answered with its
version and mark. A conditional request would not do: an ETag is of the bytes alone, and those of
a dataset that was deleted and made again may be the same (see docs/design/stale.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dosna.backends.stores.chunkcache import CachedChunk, ChunkCache
from dosna.backends.stores.dataset import StoreDataset
from dosna.backends.stores.store import Blob
from dosna.core.plan import ChunkTask, Plan
from dosna.core.types import Array, Shape, Slices

__all__ = ["CachedDataset"]

_FIRST_BYTE = (0, 1)


class CachedDataset(StoreDataset):
    """A Zarr v3 array in a store, with one object for each chunk and decoded chunks in memory."""

    def prepare(self) -> None:
        super().prepare()
        self._open()

    def _open(self) -> None:
        """Trust no chunk that was checked before now or by others, if `recheck` is 'open'."""
        self._opened, self._token = time.monotonic(), object()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_opened", "_token")
        return {k: v for k, v in super().__getstate__().items() if k not in own}

    @property
    def _cache(self) -> ChunkCache:
        cache = self.connection.chunk_cache
        assert cache is not None
        return cache

    def refresh(self) -> None:
        self._open()
        super().refresh()

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        absent: list[Shape] = []
        began = time.monotonic()
        read = partial(self.read_task, out, absent)
        self.store.for_each(read, self._requested(out, tasks), self._object_nbytes)
        self.settle(began, absent, tasks)

    def _requested(self, out: Array, tasks: Iterable[ChunkTask]) -> Iterator[ChunkTask]:
        """Yield the tasks that need a request. Do the others, which are not worth a thread."""
        if self._cache.recheck == "always":
            yield from tasks
            return
        find, token = self._cache.find, self._token
        name = f"{self.connection.root(self.name).replace('%', '%%')}/{self.layout.template}"
        # Columns, because most of the tasks need not be made.
        fields = zip(*tasks.columns(), strict=False) if isinstance(tasks, Plan) else tasks
        for idx, key, where, whole in fields:
            kept = find(name % idx)
            if kept is None or kept.by is not token:
                kept = self._trusted(idx, name % idx)
            if kept is None:
                yield ChunkTask(idx, key, where, whole)
            else:
                out[where] = kept.values[key]

    def straight(self, out: Array, where: Any) -> None:
        return None  # A chunk is decoded into memory that the cache keeps.

    def read_chunk(self, idx: Shape, key: Slices | None, raw: Array | None = None) -> Array | None:
        if key is None:  # `verify_chunk` is about what is stored
            return super().read_chunk(idx, key, raw)
        name, cache, began, token = self.key(idx), self._cache, time.monotonic(), self._token
        kept = self._trusted(idx, name)
        if kept is not None:
            return kept.values
        ticket = cache.ticket(name)
        kept = cache.find(name)
        blob = self.store.get(name, None if kept is None else _FIRST_BYTE)
        if kept is not None and blob is not None:
            if (blob.version, blob.mark) == (kept.version, kept.mark):
                self.vouch(idx, blob)
                kept.checked, kept.by = began, token
                return kept.values
            blob = self.store.get(name)
        if blob is None:
            cache.forget(name)
            return None
        self.vouch(idx, blob)
        values = self._decoded(idx, blob.data)
        cache.keep(name, CachedChunk(values, blob.version, blob.mark, began, token), ticket)
        return values

    def _trusted(self, idx: Shape, name: str) -> CachedChunk | None:
        """Return a chunk that may be read without a request, or None."""
        if self._cache.recheck == "always":
            return None
        kept = self._cache.find(name)
        if kept is None or kept.by is self._token:
            return kept
        # Without a mark, only a look at the document would tell if it is of this dataset.
        if kept.mark is None or self._id is None or kept.checked < self._opened:
            return None
        self.vouch(idx, Blob(b"", kept.version, kept.mark))
        kept.by = self._token
        return kept

    def _decoded(self, idx: Shape, data: Any) -> Array:
        """Decode a chunk into memory of its own, which is read-only."""
        pipeline = self.layout.pipeline
        values = self.decode(idx, data, np.empty(pipeline.nbytes, np.uint8))
        if not pipeline.direct:
            values = values.copy()
        values.flags.writeable = False
        return values
