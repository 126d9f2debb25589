"""Chunks in this process's memory: for experiments, tests and scratch data.

Connections of one name share their datasets for as long as the process lives.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice, repeat
from operator import getitem, lt, methodcaller, setitem
from typing import Any, ClassVar, NoReturn

import numpy as np

from dosna.backends.base import (
    Backend,
    BackendConnection,
    BackendDataChunk,
    BackendDataset,
    Guarantees,
)
from dosna.core.metadata import DatasetMetadata, check_dims
from dosna.core.names import check_group, check_nesting, parents
from dosna.core.plan import ChunkTask, Columns, Plan
from dosna.core.types import Array, Shape, Slices
from dosna.errors import DatasetExistsError, DatasetNotFoundError, StaleDatasetError
from dosna.io.ranges import as_arrays, within
from dosna.io.scratch import owned

# A chunk below this size is replaced as a whole when it changes, so that readers need no lock.
# Above it, copying the whole chunk for a small change would cost more than locking.
_IN_PLACE_BYTES = 64 << 10
# Large allocations are backed by huge pages: a first load is about twice as fast.
_SLAB_BYTES = 32 << 20
_STRIPES = 64
_MOST_NAMED = 10
"""Number of existing datasets named in the message that a dataset does not exist."""
# Number of tasks done without returning to the interpreter. They take milliseconds, during
# which Ctrl-C has no effect and no other thread runs.
_BATCH = 2048
_ALL: Slices = (...,)


class _Datasets(dict[str, "RamDataset"]):
    """Datasets by name, with the number of them in each group.

    With these numbers, looking for datasets around a name costs the same for any number of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}

    def __setitem__(self, name: str, dataset: RamDataset) -> None:
        if name not in self:
            for group in parents(name):
                self._counts[group] = self._counts.get(group, 0) + 1
        super().__setitem__(name, dataset)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        for group in parents(name):
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def around(self, name: str) -> Iterable[str]:
        """Return the datasets that a new one may lie in, or that may lie in it.

        These are the datasets above the name; else, if the name is a group, all datasets.
        """
        above = [group for group in parents(name) if group in self]
        return above or (self if name in self._counts else ())


_stores: dict[str, _Datasets] = {}
_groups: dict[tuple[str, str], dict[str, Any]] = {}
_stores_lock = threading.Lock()


def _renew_locks() -> None:
    """Create new locks in a forked child, where nobody would release those of the parent."""
    global _stores_lock
    _stores_lock = threading.Lock()
    for store in _stores.values():
        for dataset in store.values():
            dataset.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)


class RamConnection(BackendConnection):
    """A namespace in this process's memory."""

    shared_between_processes = False
    stores_text = True
    # Copies run at the speed of memory: threads pay off only for large requests, and with small
    # chunks they cost more than the copies.
    parallel_bytes = 8 << 20
    parallel_chunk_bytes = 16 << 10

    @property
    def _datasets(self) -> _Datasets:
        with _stores_lock:
            return _stores.setdefault(self.name, _Datasets())

    def create_dataset(
        self,
        name: str,
        metadata: DatasetMetadata,
        *,
        dims: Sequence[str | None] | None = None,
    ) -> RamDataset:
        """Create a dataset.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        dims : sequence of str or None, optional
            The names of the axes.
        """
        self.check_writable()
        names = check_dims(dims, metadata.ndim)
        if names is not None:
            metadata = metadata.replace(storage={**metadata.storage, "dims": list(names)})
        datasets = self._datasets
        with _stores_lock:
            if name in datasets:
                raise DatasetExistsError(
                    f"dataset {name!r} exists in ram connection {self.name!r}"
                )
            check_nesting(name, datasets.around(name))
            datasets[name] = RamDataset(self, name, metadata)
            return datasets[name]

    def get_dataset(self, name: str) -> RamDataset:
        found = self._find(name)
        return found if self.mode == "a" else RamReader(self, found)

    def _find(self, name: str) -> RamDataset:
        datasets = self._datasets
        try:
            return datasets[name]
        except KeyError:
            with _stores_lock:
                some = sorted(islice(datasets, _MOST_NAMED))
            raise DatasetNotFoundError(
                f"no dataset {name!r} in ram connection {self.name!r}, "
                f"which has {', '.join(map(repr, some)) or 'none'}"
                + (", …" if len(datasets) > _MOST_NAMED else "")
            ) from None

    def has_dataset(self, name: str) -> bool:
        return name in self._datasets

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        self.check_writable()
        dataset = self._find(name)
        with dataset.exclusive(), _stores_lock:
            datasets = _stores[self.name]
            if datasets.get(name) is not dataset or only not in (None, dataset):
                raise DatasetNotFoundError(f"dataset {name!r} was deleted or replaced meanwhile")
            del datasets[name]
            dataset.deleted = True
            dataset.chunks.clear()

    def begin_replacement(self, name: str) -> str:
        self.check_writable()
        return f".replacing-{secrets.token_hex(8)}"

    def replace_dataset(self, temporary: str, name: str) -> None:
        self.check_writable()
        new, old = self.get_dataset(temporary), self._datasets.get(name)
        with ExitStack() as stack:
            if old is not None:
                stack.enter_context(old.exclusive())
            stack.enter_context(_stores_lock)
            datasets = _stores[self.name]
            if datasets.get(name) is not old:
                raise DatasetExistsError(f"dataset {name!r} was made or replaced meanwhile")
            if old is None:
                check_nesting(name, datasets.around(name))
            else:
                old.deleted = True
                old.chunks.clear()
            moved = datasets[temporary]
            del datasets[temporary]
            datasets[name] = moved
            new.name = name

    def end_replacement(self, temporary: str) -> None:
        with suppress(DatasetNotFoundError):
            self.del_dataset(temporary)

    def dataset_names(self) -> list[str]:
        return sorted(name for name in self._datasets if not name.startswith("."))

    @property
    def keeps_groups(self) -> bool:
        return True

    def group_attrs(self, name: str) -> dict[str, Any]:
        with _stores_lock:
            return dict(_groups.get((self.name, name), {}))

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        self.check_writable()
        datasets = self._datasets
        with _stores_lock:
            check_group(name, datasets)
            _groups[self.name, name] = dict(attrs)
            if not attrs:
                del _groups[self.name, name]


class RamDataset(BackendDataset):
    """A dataset as a dictionary of arrays, one for each chunk."""

    def __init__(self, connection: RamConnection, name: str, metadata: DatasetMetadata) -> None:
        super().__init__(connection, name, metadata)
        self.chunks: dict[Shape, Array] = {}
        self.deleted = False
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

    def get_chunk(self, idx: Shape) -> RamDataChunk:
        return RamDataChunk(self, idx)

    few_objects: ClassVar[int] = 1000

    def has_chunk(self, idx: Shape) -> bool:
        found = idx in self.chunks
        self.refresh()
        return found

    def del_chunk(self, idx: Shape) -> bool:
        with self.lock(idx):
            self.refresh()
            return self.chunks.pop(idx, None) is not None

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
                f"dataset {self.name!r} was deleted and made again since this handle was opened: "
                "get it again from its connection"
            )
        raise DatasetNotFoundError(f"dataset {self.name!r} was deleted")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with ExitStack() as stack:
            for lock in self._locks:
                stack.enter_context(lock)
            yield

    def lock(self, idx: Shape) -> threading.RLock:
        return self._locks[hash(idx) % len(self._locks)]

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        if slices is None:
            slices = self.metadata.bounds(idx).chunk
        chunk = self.chunks.get(idx)
        if chunk is None:
            self.refresh()
            chunk = _filled(self.metadata)
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
        fill = _filled(meta)
        stored: Iterator[Any] = map(self.chunks.get, columns.idx, repeat(fill))
        if not self._full(columns):
            stored = map(getitem, stored, columns.chunk)
        assigned = map(setitem, repeat(out), columns.out, stored)  # type: ignore[arg-type]
        deque(assigned, maxlen=0)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        if not self.metadata.ndim:
            tasks = as_arrays(tasks)
        if isinstance(tasks, Plan) and not self._in_place:
            grid = self.metadata.chunk_grid
            for batch in tasks.batches(_BATCH):
                self._write_batch(values, batch, grid)
            return
        put = self._put
        for idx, chunk, where, whole in tasks:
            put(idx, values[where], chunk, whole)

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
        if slices is None:
            self._put(idx, np.asarray(values), self.metadata.bounds(idx).chunk, True)
        else:
            self._put(idx, values, slices, False)

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

    def __init__(self, connection: RamConnection, dataset: RamDataset) -> None:
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
    def _locks(self) -> list[threading.RLock]:  # type: ignore[override]
        return self._of._locks

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.connection.refuse()

    set_chunk_data = write_many = _put = _write_batch = _refuse
    del_chunk = update = resize = extend = _refuse


def _filled(metadata: DatasetMetadata) -> Array:
    """Return a chunk of fill values that takes the memory of a single element."""
    return np.broadcast_to(np.asarray(metadata.fillvalue, metadata.dtype), metadata.chunk_size)


class RamDataChunk(BackendDataChunk):
    """A handle on one entry of the dictionary."""

    dataset: RamDataset

    def get_data(self, slices: Slices | None = None) -> Any:
        return self.dataset.get_chunk_data(self.idx, _ALL if slices is None else slices)

    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        self.dataset.set_chunk_data(self.idx, values, _ALL if slices is None else slices)


BACKEND = Backend(
    name="ram",
    connection=RamConnection,
    description="in this process's memory",
)
