"""Datasets on a store of bytes whose chunks share objects, called shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dosna.backends.stores.dataset import MOST_ATTEMPTS, StoreDataset, is_full
from dosna.codecs.base import CodecError
from dosna.codecs.zarr.shards import NO_CHUNK, Shards
from dosna.core.plan import ChunkTask, Plan, plan
from dosna.core.selection import select
from dosna.core.types import Array, Shape, Slices
from dosna.errors import StorageError
from dosna.io.cache import Cache

__all__ = ["MOST_INDEXES", "ShardedDataset"]

MOST_INDEXES = 1024
"""Number of shard indexes that are remembered."""


class ShardedDataset(StoreDataset):
    """A Zarr v3 array in a store, with many chunks in each object."""

    def prepare(self) -> None:
        super().prepare()
        self._indexes: Cache[tuple[str, list[list[int]]]] = Cache(MOST_INDEXES)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_indexes"}

    @property
    def format(self) -> Shards:
        """Format of the shards, which defines how they are made of chunks."""
        assert self.layout.shards is not None
        return self.layout.shards

    @property
    def shards(self) -> Shape | None:
        return self.layout.grain

    def object_of(self, idx: Shape) -> Shape:
        return self.place(idx)[0]

    # -- chunks ---------------------------------------------------------------------------

    def has_chunk(self, idx: Shape) -> bool:
        shard, local = self.place(idx)
        began = time.monotonic()
        index = self._index(shard)
        self.settle(began, [shard] if index is None else ())
        return index is not None and index[1][self.format.number(local)][0] != NO_CHUNK

    def del_chunk(self, idx: Shape) -> bool:
        shard, local = self.place(idx)
        number = self.format.number(local)
        found = False

        def without(chunks: list[Any]) -> None:
            nonlocal found
            found = chunks[number] is not None
            chunks[number] = None

        if self.has_chunk(idx):
            self._change_shard(shard, without)
        return found

    def chunk_indices(self) -> Iterator[Shape]:
        for shard in self.object_indices():
            index = self._index(shard)
            if index is None:
                continue
            for local, (start, _) in zip(self.format.locals(), index[1], strict=True):
                if start != NO_CHUNK:
                    yield self.format.chunk(shard, local)

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        values = np.asarray(values)
        shard, local = self.place(idx)
        number = self.format.number(local)

        def change(chunks: list[Any]) -> None:
            self.check(idx, slices, False)
            chunks[number] = self.changed(idx, values, slices, chunks[number])

        self._change_shard(shard, change)

    def changed(self, idx: Shape, values: Array, key: Slices | None, data: Any) -> list[Any]:
        parts = super().changed(idx, values, key, None if data is None else data[0])
        # A shard keeps the parts of many chunks, but the scratch memory holds only one chunk.
        return parts if key is None else [b"".join(parts)]

    # -- shards ---------------------------------------------------------------------------

    def read_chunk(self, idx: Shape, key: Slices | None, raw: Array | None = None) -> Array | None:
        return self.read_from_shard(*self.place(idx), raw)

    def place(self, idx: Shape) -> tuple[Shape, Shape]:
        """Return the shard that holds a chunk, and the chunk's index within it."""
        shards = self.format
        pairs = [divmod(i, n) for i, n in zip(idx, shards.counts, strict=True)]
        return tuple([p[0] for p in pairs]), tuple([p[1] for p in pairs])

    def _index(self, shard: Shape) -> tuple[str, list[list[int]]] | None:
        """Read the version and index of a shard. Return None if the shard does not exist."""
        shards = self.format
        blob = self.store.get(self.key(shard), shards.index_range)
        if blob is None:
            self._indexes.drop(shard)
            return None
        self.vouch(shards.chunk(shard, (0,) * self.metadata.ndim), blob)
        try:
            found = blob.version, shards.index(blob.data)
        except CodecError as error:
            self.corrupt(
                shards.chunk(shard, (0,) * self.metadata.ndim),
                f"the index of its shard is: {error}",
            )
        self._indexes.put(shard, found)
        return found

    def read_from_shard(
        self, shard: Shape, local: Shape, raw: Array | None = None
    ) -> Array | None:
        """Read a chunk by its byte range, with the remembered index if that is still valid."""
        shards = self.format
        key, number = self.key(shard), shards.number(local)
        index = self._indexes.peek(shard)
        for _ in range(MOST_ATTEMPTS):
            known = index is not None
            if index is None:
                index = self._index(shard)
            if index is None:
                return None
            start, size = index[1][number]
            if start == NO_CHUNK:
                # Without a read of chunk data, nothing tells if a remembered index is valid.
                if not known:
                    return None
            else:
                blob = self.store.get(key, (start, start + size))
                if blob is not None and blob.version == index[0]:
                    self.vouch(shards.chunk(shard, local), blob)
                    return self.decode_from_shard(shard, local, blob.data, raw)
            index = None
        raise StorageError(
            f"shard {key!r} of dataset {self.name!r} changed {MOST_ATTEMPTS} times while a chunk "
            "of it was being read"
        )

    def decode_from_shard(
        self, shard: Shape, local: Shape, data: Any, raw: Array | None = None
    ) -> Array:
        """Decode a chunk of a shard, or raise ChunkCorruptError."""
        try:
            return self.decoded(data, raw)
        except CodecError as error:
            self.corrupt(self.format.chunk(shard, local), str(error))

    def read_task(self, out: Array, absent: list[Shape], task: ChunkTask) -> None:
        shard, key, where, _ = task
        selection = select(key, self.layout.grain)
        parts = plan(selection, self.metadata.chunk_size)
        if all(type(w) is slice for w in where):
            into = selection.view(out[where])
            if into is not None:
                self._read_shard(shard, into, absent, parts)
                return
        result, into = selection.allocate(self.metadata.dtype)
        self._read_shard(shard, into, absent, parts)
        out[where] = selection.finish(result)

    def _read_shard(self, shard: Shape, out: Array, absent: list[Shape], parts: Plan) -> None:
        """Read chunks of a shard, all at once if there are many.

        The indices in `parts` are relative to the shard.
        """
        shards = self.format
        chunks: list[memoryview | None] | None = None
        if 2 * len(parts) >= shards.total:
            blob = self.store.get(self.key(shard))
            if blob is None:
                absent.append(shard)
                out[...] = self.metadata.fillvalue
                return
            self.vouch(shards.chunk(shard, (0,) * self.metadata.ndim), blob)
            chunks = self._split(shard, blob.data)
        for local, key, where, whole in parts:
            raw = self.straight(out, where) if whole else None
            found: Array | None = None
            if chunks is None:
                found = self.read_from_shard(shard, local, raw)
            else:
                data = chunks[shards.number(local)]
                found = None if data is None else self.decode_from_shard(shard, local, data, raw)
            if found is None:
                absent.append(shard)
                out[where] = self.metadata.fillvalue
            elif raw is None:
                out[where] = found[key]

    def _split(self, shard: Shape, data: Any) -> list[memoryview | None]:
        shards = self.format
        try:
            return shards.split(data)
        except CodecError as error:
            self.corrupt(shards.chunk(shard, (0,) * self.metadata.ndim), f"its shard is: {error}")

    def _change_shard(
        self, shard: Shape, change: Callable[[list[Any]], None], whole: bool = False
    ) -> None:
        """Rewrite a shard after `change` has edited the list of its encoded chunks."""
        shards = self.format

        def changed(data: bytes | memoryview | None) -> list[Any]:
            chunks: list[Any] = [None] * shards.total
            if data is not None:
                chunks = [None if c is None else [c] for c in self._split(shard, data)]
            change(chunks)
            return shards.join(chunks)

        self.modify(shard, changed, whole)

    def write_task(self, values: Array, task: ChunkTask) -> None:
        shard, key, where, whole = task
        shards = self.format
        planned, whole = whole, whole and is_full(key, self.layout.grain)
        chunk_size = self.metadata.chunk_size
        selection = select(key, self.layout.grain)
        canonical = selection.spread(values[where], self.metadata.dtype)
        parts = plan(selection, self.metadata.chunk_size)

        def change(chunks: list[Any]) -> None:
            grain = self.layout.grain
            start = [i * g for i, g in zip(shard, grain, strict=True)]
            self.check_inside(start, grain, key, whole)
            for local, part, place, all_of_it in parts:
                number = shards.number(local)
                chunks[number] = self.changed(
                    shards.chunk(shard, local),
                    canonical[place],
                    None if whole or (all_of_it and is_full(part, chunk_size)) else part,
                    chunks[number],
                )

        if not whole:
            self._change_shard(shard, change, planned)
            return
        chunks: list[Any] = [None] * shards.total
        self.look()
        with self.hold(shard):
            change(chunks)
            self.put(shard, shards.join(chunks), None)

    def trim_object(self, idx: Shape) -> None:
        shards = self.format

        def trimmed(chunks: list[Any]) -> None:
            for number, (local, data) in enumerate(zip(shards.locals(), chunks, strict=True)):
                at = shards.chunk(idx, local)
                if data is None or not self.metadata.contains(at):
                    chunks[number] = None
                    continue
                inside = self.metadata.bounds(at).chunk
                if tuple(s.stop for s in inside) != self.metadata.chunk_size:
                    kept = self.decode(at, data[0])[inside]
                    chunks[number] = self.encoded(at, kept)

        self._change_shard(idx, trimmed)
