"""Datasets on a store of bytes: Zarr v3 arrays whose chunks are objects."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from dosna.backends.base import ChunkState, Guarantees
from dosna.backends.stores.store import ABSENT, MOST_ATTEMPTS, Turns, lock
from dosna.backends.stores.watching import WatchedDataset
from dosna.codecs import zarr as zarr3
from dosna.codecs.arrays import bytes_of
from dosna.codecs.base import CodecError
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.text import element_bytes
from dosna.core.types import Array, Shape, Slices
from dosna.errors import ChunkCorruptError
from dosna.io.ranges import as_arrays, byte_range, byte_runs
from dosna.io.scratch import owned, scratch

__all__ = ["MOST_ATTEMPTS", "StoreDataset"]

T = TypeVar("T")

_FIRST_BYTE = (0, 1)


def is_full(key: Slices, extent: Shape) -> bool:
    """Return True if a key that was planned as all of an object covers its full extent.

    At the end of an array it does not. Others may have extended the array since, and what they
    wrote there has to be kept.
    """
    return all(k.stop == n for k, n in zip(key, extent, strict=True))


class StoreDataset(WatchedDataset):
    """A Zarr v3 array in a store, with one object for each chunk.

    `dosna.backends.stores.sharded.ShardedDataset` has many chunks in each object.
    """

    # -- methods that a subclass may override ---------------------------------------------

    def hold(self, idx: Shape) -> AbstractContextManager[Any]:
        """Return a context that keeps others from changing a stored object."""
        return lock(self.name, idx)

    # -- description ----------------------------------------------------------------------

    @property
    def guarantees(self) -> Guarantees:
        store = self.store
        conditional = store.conditional_puts
        shared = self.connection.shared_between_processes
        return Guarantees(
            partial_writes="processes" if conditional and shared else "threads",
            atomic_chunks=True,
            durable=shared,
            checksum=self.layout.pipeline.checks > 0,
            notes=self.connection.notes
            if conditional or not shared
            else (
                *self.connection.notes,
                "the store is not known to have conditional puts: partial writes of several "
                "processes can be lost, and so can those to the last chunk of an axis while it "
                "grows",
            ),
        )

    @property
    def create_options(self) -> dict[str, Any]:
        return zarr3.options_of(self.metadata)

    @property
    def grain(self) -> Shape:
        return self.layout.grain

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        return zarr3.dims_of(self.metadata)

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        key = self.connection.document(self.name)
        self.connection.drop_consolidated(self.name)
        turns = Turns(f"the metadata of {self.name!r}")
        # They need not be read again unless another writer has changed them, which is a conflict.
        known, self._written = self._written, None
        for _ in turns:
            with turns.unless_conflict(), lock(self.name):
                old, version = known or self.connection.read_metadata(self.name)
                known = None
                turns.expected = version
                self.adopt(old)
                new = zarr3.revised(change(old))
                if new.shape != old.shape:
                    self.connection.remember(self.name, old, new)
                begin = time.monotonic()
                self.store.put(key, zarr3.to_json(new), version)
                self.keep(new)
                self._looked = begin
                return

    def revision_of(self, metadata: DatasetMetadata) -> int:
        return zarr3.revision_of(metadata)

    # -- chunks ---------------------------------------------------------------------------

    @property
    def schedules_requests(self) -> bool:
        return self.store.schedules_requests

    def locations(self, idx: Shape) -> tuple[str, ...]:
        return self.store.locations(self.key(idx))

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        self.store.for_each(work, items, nbytes)

    def has_chunk(self, idx: Shape) -> bool:
        began = time.monotonic()
        blob = self.store.get(self.key(idx), (0, 1))
        if blob is None:
            self.settle(began, [idx])
            return False
        self.vouch(idx, blob)
        self.settle(began)
        return True

    def del_chunk(self, idx: Shape) -> bool:
        return self.del_object(idx)

    def del_object(self, idx: Shape) -> bool:
        self.look()
        with self.hold(idx):
            return self.store.delete(self.key(idx))

    def del_objects(self, indices: Iterable[Shape]) -> None:
        # A concurrent change of an object that is deleted here is refused by its condition.
        if self.store.conditional_puts:
            self.look()
            self.store.delete_many(map(self.key, indices))
        else:
            super().del_objects(indices)

    def versions(self, indices: Iterable[Shape], lasting: bool = False) -> list[str | None]:
        found: dict[Shape, str] = {}

        def look(idx: Shape) -> None:
            blob = self.store.get(self.key(idx), _FIRST_BYTE)
            self.vouch(idx, blob)
            if blob is not None:
                found[idx] = f"{blob.version} {blob.mark}"

        indices = list(indices)
        self.store.for_each(look, indices)
        return [found.get(idx) for idx in indices]

    listing_refreshes = True

    def object_indices(self) -> Iterator[Shape]:
        start = len(self.connection.root(self.name)) + 1
        for key in self.connection.object_keys(self.name):
            idx = self.layout.index(key[start:])
            if idx is not None:
                yield idx
        self.look_again()

    def chunk_indices(self) -> Iterator[Shape]:
        return self.object_indices()

    def verify_chunk(self, idx: Shape) -> ChunkState:
        try:
            if self.read_chunk(idx, None) is None:
                self.look()
                return "never written"
            if self._doubted > self._looked:
                self.look()
        except ChunkCorruptError:
            return "corrupt"
        return "ok" if self.layout.pipeline.checks else "unchecked"

    # -- reading --------------------------------------------------------------------------

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        key = self.metadata.bounds(idx).chunk if slices is None else slices
        began = time.monotonic()
        chunk = self.read_chunk(idx, key)
        self.settle(began, [self.object_of(idx)] if chunk is None else ())
        if self._shrunk >= began:
            self.check(idx, key, False)
        if chunk is None:
            chunk = self.metadata.fill_chunk()
        return owned(chunk[key])

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        absent: list[Shape] = []
        began = time.monotonic()
        self.store.for_each(partial(self.read_task, out, absent), tasks, self._object_nbytes)
        self.settle(began, absent, tasks)

    def read_task(self, out: Array, absent: list[Shape], task: ChunkTask) -> None:
        """Read a part of a stored object into `out`. Add it to `absent` if it does not exist."""
        idx, key, where, whole = task
        raw = self.straight(out, where) if whole else None
        chunk = self.read_chunk(idx, key, raw)
        if chunk is None:
            absent.append(idx)
            out[where] = self.metadata.fillvalue
        elif raw is None:
            out[where] = chunk[key]

    def straight(self, out: Array, where: Any) -> Array | None:
        """Return the bytes of a part of `out` if a decoder can write a chunk there, else None."""
        if not self.layout.pipeline.direct or out.dtype != self.metadata.dtype:
            return None
        target = out[where]
        if (
            not isinstance(target, np.ndarray)
            or target.nbytes != self.metadata.chunk_nbytes
            or not target.flags.c_contiguous
            or not all(type(w) is slice for w in where)
        ):
            return None
        return bytes_of(target)

    def read_chunk(self, idx: Shape, key: Slices | None, raw: Array | None = None) -> Array | None:
        """Read the part `key` of a chunk (None: all) into its place in an array of the chunk.

        The array may be in the thread's scratch memory or in memory of the store. Do not write to
        it, and pass what is to be kept of it through `owned`. If `raw` is given, the chunk is
        decoded into it.

        Returns
        -------
        array or None
            An array of the extent of a chunk. None if the chunk does not exist.
        """
        meta = self.metadata
        pipeline = self.layout.pipeline
        wanted = None
        if key is not None and pipeline.plain and not pipeline.checks:
            first, last = byte_range(meta, key)
            if 2 * (last - first) < meta.chunk_nbytes:
                wanted = (first, max(last, first + 1))
        blob = self.store.get(self.key(idx), wanted)
        if blob is None:
            return None
        self.vouch(idx, blob)
        if wanted is None:
            return self.decode(idx, blob.data, raw)
        memory = scratch.raw(meta.chunk_nbytes)
        first, last = wanted
        if len(blob.data) != last - first:
            self.corrupt(idx, f"it ends within bytes {first} to {last}")
        memory[first:last] = np.frombuffer(blob.data, np.uint8)
        return pipeline.array(memory)

    def decode(self, idx: Shape, data: Any, raw: Array | None = None) -> Array:
        """Decode a chunk, or raise ChunkCorruptError."""
        try:
            return self.decoded(data, raw)
        except CodecError as error:
            self.corrupt(idx, str(error))

    def decoded(self, data: Any, raw: Array | None = None) -> Array:
        """Decode a chunk, or raise CodecError."""
        pipeline, given = self.layout.pipeline, raw is not None
        if raw is None and pipeline.compressed and pipeline.nbytes:
            raw = scratch.raw(pipeline.nbytes)
        return pipeline.decode(data, raw, given)

    # -- writing --------------------------------------------------------------------------

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        self._write(idx, np.asarray(values), slices, False)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        if not self.metadata.ndim:
            tasks = as_arrays(tasks)
        self.store.for_each(partial(self.write_task, values), tasks, self._object_nbytes)

    def write_objects(self, objects: Iterable[tuple[ChunkTask, Array]]) -> None:
        def write(pair: tuple[ChunkTask, Array]) -> None:
            task, values = pair
            self.write_task(values, task._replace(out=(...,)))

        self.store.for_each(write, objects, self._object_nbytes)

    def write_task(self, values: Array, task: ChunkTask) -> None:
        """Write a part of a stored object, or all of it."""
        idx, key, where, whole = task
        self._write(idx, values[where], key, whole and is_full(key, self.grain), whole)

    def _write(
        self, idx: Shape, values: Array, key: Slices | None, whole: bool, planned: bool = False
    ) -> None:
        if key is None or whole:
            self.look()
            with self.hold(idx):
                self.check(idx, key, whole)
                self.put(idx, self.encoded(idx, values), None)
            return
        if self._write_ranges(idx, values, key):
            return

        def change(data: bytes | memoryview | None) -> list[Any]:
            self.check(idx, key, False)
            return self.changed(idx, values, key, data)

        self.modify(idx, change, planned)

    def _write_ranges(self, idx: Shape, values: Array, key: Slices) -> bool:
        """Write only the bytes of a part. Return False if the whole object must be written."""
        meta, pipeline, store = self.metadata, self.layout.pipeline, self.store
        if not store.most_ranges or not pipeline.plain or pipeline.checks:
            return False
        runs = byte_runs(meta, key, store.most_ranges)
        if runs is None:
            return False
        part = np.empty([k.stop - (k.start or 0) for k in key if type(k) is slice], meta.dtype)
        part[...] = values
        data = memoryview(part.tobytes())
        length = len(data) // max(1, len(runs))
        parts = [(first, bytes(data[n * length :][:length])) for n, (first, _) in enumerate(runs)]
        self.look()
        with self.hold(idx):
            self.check(idx, key, False)
            done = not runs or store.put_ranges(self.key(idx), parts)
        self.look_late()
        return done

    def check(self, idx: Shape, key: Slices | None, whole: bool) -> None:
        """Check a write of a chunk that is about to be done; see `check_inside`."""
        size = self.metadata.chunk_size
        start = [i * c for i, c in zip(idx, size, strict=True)]
        self.check_inside(start, size, key, whole)

    def encoded(self, idx: Shape, values: Array) -> list[Any]:
        """Encode a whole chunk: `values` inside the array, fill outside."""
        meta = self.metadata
        if (
            values.shape != meta.chunk_size
            or values.dtype != meta.dtype
            or meta.bounds(idx).chunk != tuple(slice(0, c) for c in meta.chunk_size)
        ):
            values = self.padded(idx, values)
        return self.layout.pipeline.encode(values)

    def changed(self, idx: Shape, values: Array, key: Slices | None, data: Any) -> list[Any]:
        """Encode a chunk of which the part `key` changes. `data` is the stored chunk, or None."""
        if key is None:
            return self.encoded(idx, values)
        meta, pipeline = self.metadata, self.layout.pipeline
        if data is None:
            chunk = scratch.chunk(meta)[0]
            chunk[...] = meta.fillvalue
        else:
            raw = scratch.raw(pipeline.nbytes) if pipeline.direct else None
            stored = self.decode(idx, data, raw)
            if pipeline.direct or meta.dtype.hasobject:
                chunk = stored
            else:
                chunk = scratch.chunk(meta)[0]
                chunk[...] = stored
        chunk[key] = values
        return pipeline.encode(chunk)

    def trim_object(self, idx: Shape) -> None:
        def trimmed(data: bytes | memoryview | None) -> list[Any] | None:
            self.look_if_doubted()
            inside = self.metadata.bounds(idx).chunk
            if data is None or not self.metadata.contains(idx):
                return None  # Others delete it, or have done so.
            return self.encoded(idx, self.decode(idx, data)[inside])

        self.modify(idx, trimmed, whole=True)

    def modify(
        self,
        idx: Shape,
        change: Callable[[bytes | memoryview | None], list[Any] | None],
        whole: bool = False,
    ) -> None:
        """Replace a stored object by the result of `change`, also if others change it.

        If the result is None, the object is as it shall be.

        A warning is given where the store cannot prevent the loss of others' changes, unless
        `whole` is set: the change then covers all of the object that this handle knows of.
        """
        if not whole and self.guarantees.partial_writes == "threads":
            self.connection.warn_of_lost_writes()
        key = self.key(idx)
        turns = Turns(f"object {key!r} of dataset {self.name!r}")
        with self.hold(idx):
            for _ in turns:
                blob = self.store.get(key)
                self.vouch(idx, blob, writes=True)
                parts = change(None if blob is None else blob.data)
                if parts is None:
                    return
                with turns.unless_conflict():
                    turns.expected = ABSENT if blob is None else blob.version
                    self.put(idx, parts, turns.expected)
                    return

    def put(self, idx: Shape, parts: list[Any], version: str | None) -> None:
        """Write a stored object, only over `version` if the store has conditional puts."""
        if version is not None and not self.store.conditional_puts:
            version = None
        mark = self._mark
        written = self.store.put_marked(self.key(idx), b"".join(parts), version, mark)
        if self.noted is not None and written is not None:
            self.noted[idx] = f"{written} {mark}"
        self.look_late()

    def put_first(self, values: Array) -> None:
        """Write the only chunk of a dataset without a document yet, if nothing is in its place."""
        idx = (0,) * self.metadata.ndim
        data = b"".join(self.encoded(idx, values))
        self.store.put_marked(self.key(idx), data, ABSENT, self._mark)

    @property
    def _mark(self) -> str | None:
        return None if self._id is None else f"{self._id}.{self._revision}"

    @property
    def _object_nbytes(self) -> int:
        return math.prod(self.grain) * element_bytes(self.metadata.dtype)
