"""Datasets in memory: a dictionary of chunks."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat
from operator import getitem, lt, methodcaller, setitem
from typing import Any, ClassVar, NoReturn

import numpy as np

from dosna.backends.base import BackendDataset, Guarantees
from dosna.backends.dataset import DatasetHome
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask, Columns, Plan
from dosna.core.types import Array, Shape, Slices
from dosna.errors import DatasetNotFoundError, StaleDatasetError
from dosna.io.holding import holding
from dosna.io.ranges import as_arrays, within
from dosna.io.scratch import owned

# A chunk below this size is replaced as a whole when it changes, so that readers need no lock.
# Above it, copying the whole chunk for a small change would cost more than locking.
_IN_PLACE_BYTES = 64 << 10
# Large allocations are backed by huge pages: a first load is about twice as fast.
_SLAB_BYTES = 32 << 20
_STRIPES = 64
# Number of tasks done without returning to the interpreter. They take milliseconds, during
# which Ctrl-C has no effect and no other thread runs.
_BATCH = 2048
_ALL: Slices = (...,)
_states = itertools.count()
"""Numbers for the states of datasets. None is used twice in a process."""


class RamDataset(BackendDataset):
    """A dataset as a dictionary of arrays, one for each chunk."""

    def __init__(self, connection: DatasetHome, name: str, metadata: DatasetMetadata) -> None:
        super().__init__(connection, name, metadata)
        self.chunks: dict[Shape, Array] = {}
        self.deleted = False
        self.state = next(_states)
        self._in_place = metadata.chunk_nbytes >= _IN_PLACE_BYTES
        self._slab: Array = np.empty((0,), np.uint8)
        self.renew_locks()

    def renew_locks(self) -> None:
        # Small chunks are copied faster than locks are taken: one lock covers a batch.
        count = _STRIPES if self._in_place else 1
        self._locks = [threading.RLock() for _ in range(count)]
        self._slab_lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"dataset {self.name!r} lives in this process's memory and cannot be sent to "
            "another: use a backend that processes share, for instance hdf5"
        )

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(
            partial_writes="threads",
            atomic_chunks=True,
            durable=False,
            checksum=False,
            notes=("the data ends with the process",),
        )

    few_objects: ClassVar[int] = 1000

    def has_chunk(self, idx: Shape) -> bool:
        found = idx in self.chunks
        self.refresh()
        return found

    def del_chunk(self, idx: Shape) -> bool:
        with self.lock(idx):
            self.refresh()
            found = self.chunks.pop(idx, None) is not None
            self.state = next(_states)
            return found

    def chunk_indices(self) -> Iterator[Shape]:
        found = list(self.chunks)
        self.refresh()
        return iter(found)

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        with self._locks[0]:
            self.refresh()
            self.metadata = change(self.metadata)

    def refresh(self) -> None:
        if not self.deleted:
            return
        if self.connection.has_dataset(self.name):
            raise StaleDatasetError(
                f"dataset {self.name!r} was deleted and created again since this handle was "
                "opened: get it again from its connection"
            )
        raise DatasetNotFoundError(f"dataset {self.name!r} was deleted")

    @holding
    def exclusive(self) -> Iterator[bool]:
        with ExitStack() as stack:
            for lock in self._locks:
                stack.enter_context(lock)
            yield True

    def lock(self, idx: Shape) -> threading.RLock:
        return self._locks[hash(idx) % len(self._locks)]

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        if slices is None:
            slices = self.metadata.bounds(idx).chunk
        chunk = self.chunks.get(idx)
        if chunk is None:
            self.refresh()
            chunk = self.metadata.fill_chunk()
        if self._in_place:
            with self.lock(idx):
                return owned(chunk[slices])
        return owned(chunk[slices])

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        if isinstance(tasks, Plan) and not self._in_place and self.metadata.ndim:
            for batch in tasks.batches(_BATCH):
                self._read_batch(out, batch)
        else:
            self._read_each(out, tasks)
        # Afterwards, because chunks deleted meanwhile were taken for chunks never written.
        self.refresh()

    def _read_each(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        get = self.chunks.get
        fill = self.metadata.fillvalue
        in_place = self._in_place
        for idx, chunk, where, _ in tasks:
            stored = get(idx)
            if stored is None:
                out[where] = fill
            elif in_place:
                with self.lock(idx):
                    out[where] = stored[chunk]
            else:
                out[where] = stored[chunk]

    def _read_batch(self, out: Array, batch: Plan) -> None:
        # Loops that run in C, which halves the cost of a small chunk beyond its copy.
        meta = self.metadata
        columns = batch.columns()
        fill = meta.fill_chunk()
        stored: Iterator[Any] = map(self.chunks.get, columns.idx, repeat(fill))
        if not self._full(columns):
            stored = map(getitem, stored, columns.chunk)
        assigned = map(setitem, repeat(out), columns.out, stored)  # type: ignore[arg-type]
        deque(assigned, maxlen=0)

    def versions(self, indices: Iterable[Shape], lasting: bool = False) -> list[str | None]:
        # Before the caller reads the chunks. A write by others is noticed for all chunks.
        version = str(self.state)
        self.refresh()
        return [version if idx in self.chunks else None for idx in indices]

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        if not self.metadata.ndim:
            tasks = as_arrays(tasks)
        try:
            if isinstance(tasks, Plan) and not self._in_place:
                grid = self.metadata.chunk_grid
                for batch in tasks.batches(_BATCH):
                    self._write_batch(values, batch, grid)
                return
            put = self._put
            for idx, chunk, where, whole in tasks:
                put(idx, values[where], chunk, whole)
        finally:
            self.state = next(_states)

    def _write_batch(self, values: Array, batch: Plan, grid: Shape) -> None:
        with self._locks[0]:
            self.refresh()
            columns = batch.columns()
            if self._full(columns) and self.metadata.chunk_grid == grid:
                fresh = methodcaller("astype", self.metadata.dtype, "C")
                parts = map(getitem, repeat(values), columns.out)
                self.chunks.update(zip(columns.idx, map(fresh, parts), strict=False))
                return
            for idx, chunk, where, whole in batch:
                self._put(idx, values[where], chunk, whole)

    def _full(self, columns: Columns) -> bool:
        """Return True if tasks cover stored chunks from end to end; uses up their `whole`."""
        meta = self.metadata
        # In an array without axes, an element would be a scalar and not an array.
        return meta.ndim > 0 and meta.tiled and all(columns.whole)

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        try:
            if slices is None:
                self._put(idx, np.asarray(values), self.metadata.bounds(idx).chunk, True)
            else:
                self._put(idx, values, slices, False)
        finally:
            self.state = next(_states)

    def _put(self, idx: Shape, values: Any, slices: Slices, whole: bool) -> None:
        """Write part of a chunk. With `whole`, nothing of it inside the array is kept."""
        meta = self.metadata
        with self._locks[hash(idx) % len(self._locks)]:
            if self.deleted:
                self.refresh()
            # Another thread may have resized the dataset since this was planned.
            if not all(map(lt, idx, meta.chunk_grid)):
                raise self._stale(idx)
            stored = self.chunks.get(idx)
            full = whole and values.shape == meta.chunk_size
            if (not meta.tiled or (whole and not full)) and slices is not _ALL:
                inside = tuple([s.stop for s in meta.bounds(idx).chunk])
                if not within(slices, meta.chunk_size, inside):
                    raise self._stale(idx)
                whole = whole and tuple([s.stop for s in slices]) == inside
            if full and not self._in_place:
                self.chunks[idx] = np.array(values, meta.dtype, order="C")
                return
            if stored is None:
                changed = (
                    self._carve() if self._in_place else np.empty(meta.chunk_size, meta.dtype)
                )
            else:
                changed = stored if self._in_place else stored.copy()
            if not full and (whole or stored is None):
                changed[...] = meta.fillvalue
            changed[slices] = values
            self.chunks[idx] = changed

    def _stale(self, idx: Shape) -> StaleDatasetError:
        return StaleDatasetError(
            f"part of chunk {idx} of dataset {self.name!r} lies outside of its shape "
            f"{self.metadata.shape}, to which it was resized meanwhile: try again"
        )

    def _carve(self) -> Array:
        """Allocate a chunk in a slab that is shared with its neighbours."""
        meta = self.metadata
        if meta.dtype.hasobject:  # text, which cannot be a view of bytes
            return np.empty(meta.chunk_size, meta.dtype)
        size = -(-meta.chunk_nbytes // 64) * 64
        with self._slab_lock:
            if self._slab.nbytes < size:
                self._slab = np.empty(
                    max(size, min(_SLAB_BYTES, size * meta.total_chunks)), np.uint8
                )
            mine, self._slab = self._slab[: meta.chunk_nbytes], self._slab[size:]
        return mine.view(meta.dtype).reshape(meta.chunk_size)


class RamReader(RamDataset):
    """A dataset of a connection of mode 'r'.

    Connections of mode 'a' share one object for each dataset.
    """

    def __init__(self, connection: DatasetHome, dataset: RamDataset) -> None:
        self.connection, self.name = connection, dataset.name
        self._in_place = dataset._in_place
        self._of = dataset

    @property
    def metadata(self) -> DatasetMetadata:  # type: ignore[override]
        return self._of.metadata

    @property
    def chunks(self) -> dict[Shape, Array]:  # type: ignore[override]
        return self._of.chunks

    @property
    def deleted(self) -> bool:  # type: ignore[override]
        return self._of.deleted

    @property
    def state(self) -> int:  # type: ignore[override]
        return self._of.state

    @property
    def _locks(self) -> list[threading.RLock]:  # type: ignore[override]
        return self._of._locks

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.connection.refuse()

    set_chunk_data = write_many = _put = _write_batch = _refuse
    del_chunk = update = resize = extend = _refuse
