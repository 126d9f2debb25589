"""A dataset as an array: its description, indexing, chunks and attributes.

All slicing of every backend and engine is here: an index becomes a selection, the selection
a plan, and the plan is read or written by the backend in this process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.astype import AsType
from dosna.array.attributes import Attributes
from dosna.array.home import ArrayHome
from dosna.array.values import assignable, is_source
from dosna.backends.base import BackendDataset, Guarantees
from dosna.core.casting import check_values
from dosna.core.identity import Identified
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask, Index, plan, single
from dosna.core.selection import Selection, select
from dosna.core.text import element_bytes, elements
from dosna.core.types import Array, Shape
from dosna.engines.base import R, Runner, Tasks, collective
from dosna.engines.work.boxes import read_source
from dosna.errors import ChunkIndexError, IncompleteDatasetWarning


class ArrayAccess(Identified):
    """What a dataset shares with a NumPy array and an ``h5py.Dataset``.

    Parameters
    ----------
    connection : EngineConnection
    instance : BackendDataset
        What stores the chunks.
    runner : Runner
        Who does the work.
    """

    def __init__(self, connection: ArrayHome, instance: BackendDataset, runner: Runner) -> None:
        self.connection = connection
        self.instance = instance
        self.runner = runner

    @property
    def identity(self) -> tuple[Any, ...]:
        """What processes that work together must agree on before they start."""
        return (*self.connection.identity, self.name, self.shape, str(self.dtype))

    def change(self, make: Callable[[], R]) -> R:
        """Change the stored metadata in one process, and let all know the new ones."""

        def changed() -> tuple[R, DatasetMetadata]:
            return make(), self.instance.metadata

        result, metadata = self.runner.once(changed)
        if metadata is not self.instance.metadata:
            self.instance.metadata = metadata
        return result

    # -- description ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name within the connection."""
        return self.instance.name

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self.instance.metadata.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.instance.metadata.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.instance.metadata.size

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory, however it is stored."""
        return self.instance.metadata.nbytes

    @property
    def fillvalue(self) -> Any:
        """What a chunk that was never written reads as."""
        return self.instance.metadata.fillvalue

    @property
    def chunk_size(self) -> Shape:
        """Extent of a chunk on each axis."""
        return self.instance.metadata.chunk_size

    @property
    def chunks(self) -> Shape:
        """Alias of `chunk_size`, as h5py and zarr call it."""
        return self.chunk_size

    @property
    def chunk_grid(self) -> Shape:
        """Number of chunks along each axis."""
        return self.instance.metadata.chunk_grid

    @property
    def total_chunks(self) -> int:
        """Number of chunks in the grid, written or not."""
        return self.instance.metadata.total_chunks

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        """Names of the axes, or None where they have none."""
        return self.instance.dims

    @property
    def shards(self) -> Shape | None:
        """Extent of a stored object of many chunks, or None where each chunk is one."""
        return self.instance.shards

    @property
    def guarantees(self) -> Guarantees:
        """What the store promises for this dataset."""
        return self.instance.guarantees

    @property
    def attrs(self) -> Attributes:
        """The user's attributes: a mapping that is stored with the dataset."""
        return Attributes(self)

    def check_writable(self) -> None:
        """Raise ReadOnlyError if chunks cannot be written."""
        self.connection.check_writable()
        self.instance.check_writable()

    def __repr__(self) -> str:
        return (
            f"<dosna.Dataset {self.name!r}: shape {self.shape}, dtype {self.dtype}, "
            f"chunk_size {self.chunk_size}>"
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"dataset {self.name!r} is a scalar and has no len()")
        return self.shape[0]

    # -- a dataset whose data are still to come -------------------------------------------

    @property
    def incomplete(self) -> bool:
        """Whether data of it are still to come, or never came because that was interrupted."""
        return self.instance.metadata.incomplete

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where the data were ingested from, as `EngineConnection.ingest` noted it."""
        origin = self.instance.metadata.origin
        return None if origin is None else dict(origin)

    @property
    def linked(self) -> dict[str, Any] | None:
        """Where the chunks lie, if not in the connection: 'url', 'name', 'fingerprint', …."""
        link = self.instance.metadata.link
        return None if link is None else dict(link)

    @collective
    def mark_complete(self) -> None:
        """Say that all data of an `incomplete` dataset have been written."""
        self.connection.check_writable()
        self.change(lambda: self.instance.update(lambda m: m.replace(incomplete=False)))

    _noted = False

    def note_reading(self) -> None:
        """Warn, once for a handle, about a dataset that is read before it is complete."""
        if self.instance.metadata.incomplete and not self._noted:
            self._noted = True
            origin = self.instance.metadata.origin or {}
            source = f" from {origin['source']}" if "source" in origin else ""
            warnings.warn(
                f"dataset {self.name!r} is incomplete: writing its data{source} is not finished, "
                "and what is missing reads as fill; run what was interrupted once more, or call "
                "mark_complete()",
                IncompleteDatasetWarning,
                stacklevel=3,
            )

    # -- indexing -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        instance = self.instance
        # Asked here first: a call more is a tenth of the time of a single element.
        if not self.connection.instance.connected:
            self.connection.check_connected()
        meta = instance.metadata
        if meta.incomplete:
            self.note_reading()
        one = single(key, meta.shape, meta.chunk_size)
        if one is not None:
            return instance.get_chunk_data(*one)
        return self.read(key)

    def __setitem__(self, key: Any, values: Any) -> None:
        self.check_writable()
        instance = self.instance
        meta = instance.metadata
        one = single(key, meta.shape, meta.chunk_size)
        # What covers the chunk goes the general way: it needs no reading first. So does text,
        # for NumPy makes one text of a list that is assigned to one element.
        if (
            one is not None
            and _is_part(*one, meta)
            and not is_source(values)
            and meta.dtype.kind != "T"
        ):
            instance.set_chunk_data(one[0], assignable(values, meta.dtype), one[1])
        else:
            self._write(key, values)

    def get_data(self, slices: Any = None) -> Any:
        """Read a selection; all of the array by default. The same as ``ds[slices]``."""
        return self[... if slices is None else slices]

    def set_data(self, values: Any, slices: Any = None) -> None:
        """Write a selection; all of the array by default. The same as ``ds[slices] = values``."""
        self[... if slices is None else slices] = values

    def read(self, key: Any = ..., out: Array | None = None) -> Any:
        """Read a selection, into an array of one's own if `out` is given.

        Parameters
        ----------
        key : index
            Anything that NumPy takes, but not names of fields.
        out : ndarray, optional
            Of the selection's shape, and of a dtype that the elements can be cast to
            (``same_kind``). Reusing one saves the time that fresh memory takes.

        Returns
        -------
        ndarray or scalar
            Equal to what NumPy gives for the whole array in memory; `out` if it was given.

        Raises
        ------
        IndexError
            An index out of range, or of a kind that is not supported.
        ChunkCorruptError
            A chunk that cannot be what was written.
        """
        self.connection.check_connected()
        self.note_reading()
        meta = self.instance.metadata
        selection = select(key, meta.shape)
        if out is None:
            result, canonical = selection.allocate(meta.dtype)
            self._read_into(canonical, selection)
            return selection.finish(result)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out is a NumPy array, not a {type(out).__name__}")
        if not np.can_cast(meta.dtype, out.dtype, "same_kind"):
            raise TypeError(f"cannot read {meta.dtype} into out, which is of {out.dtype}")
        view = selection.view(out)
        if view is not None:
            self._read_into(view, selection)
        else:
            out[...] = self.read(key)
        return out

    def _read_into(self, canonical: Array, selection: Selection) -> None:
        work = partial(self.instance.read_many, canonical)
        self._in_parallel(work, plan(selection, self.instance.grain), canonical.nbytes)

    def _write(self, key: Any, values: Any, *, shared_edge: bool = False) -> None:
        """Write a selection; with `shared_edge` others may be writing beyond the array's end."""
        meta = self.instance.metadata
        selection = select(key, meta.shape)
        tasks: Tasks[ChunkTask] = plan(selection, self.instance.grain)
        if shared_edge:
            tasks = [t._replace(whole=t.whole and _is_full(t, self.instance.grain)) for t in tasks]
        nbytes = selection.size * element_bytes(meta.dtype)
        if is_source(values):
            # Slices of the source are those of the tasks where no axis came, went or turned.
            if selection.in_order and selection.out_shape == tuple(values.shape):
                source = values.instance if isinstance(values, ArrayAccess) else values
                self._in_parallel(partial(_write_from, self.instance, source), tasks, nbytes)
                return
            values = read_source(values, tuple(slice(0, n) for n in values.shape))
        canonical = selection.spread(assignable(values, meta.dtype), meta.dtype)
        self._in_parallel(partial(self.instance.write_many, canonical), tasks, nbytes)

    def _in_parallel(self, work: Any, tasks: Tasks[ChunkTask], nbytes: int) -> None:
        instance = self.instance
        backend = instance.connection
        if (
            self.runner.threads == 1
            or nbytes < backend.parallel_bytes
            or instance.metadata.chunk_nbytes < backend.parallel_chunk_bytes
            or len(tasks) < 2
        ):
            work(tasks)
        else:
            self.runner.map(work, tasks)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"dataset {self.name!r} is not in memory: an array of it is a copy")
        return np.asarray(self.read(...), dtype)

    def __dask_tokenize__(self) -> bytes:
        # Of two graphs over one dataset the second may be about other values: Dask must not
        # take what it holds of the first for it.
        return os.urandom(16)

    def __iter__(self) -> Iterator[Any]:
        # A row of chunks at a time, so that no chunk is read twice.
        for begin in range(0, len(self), self.chunk_size[0]):
            yield from self[begin : begin + self.chunk_size[0]]

    def astype(self, dtype: DTypeLike) -> AsType:
        """Give a view whose elements are converted as they are read.

        Parameters
        ----------
        dtype : dtype

        Returns
        -------
        AsType
            Something with shape, dtype and slicing; ``np.asarray`` reads all of it.
        """
        return AsType(self, np.dtype(dtype))

    # -- chunks ---------------------------------------------------------------------------

    def check_idx(self, idx: Any) -> Shape:
        """Give a chunk index as a tuple of int.

        Raises
        ------
        ChunkIndexError
            Outside of the grid.
        TypeError
            Not integers.
        """
        given = (idx,) if isinstance(idx, (int, np.integer)) else tuple(idx)
        if any(isinstance(i, bool) or not isinstance(i, (int, np.integer)) for i in given):
            raise TypeError(f"a chunk index is made of integers, not {idx!r}")
        checked = tuple(map(int, given))
        if not self.instance.metadata.contains(checked):
            raise ChunkIndexError(
                f"dataset {self.name!r} has no chunk {checked}: its grid is {self.chunk_grid}"
            )
        return checked

    def get_chunk_data(self, idx: Any, slices: Any = None) -> Any:
        """Read part of a chunk; `slices` index the part of it that lies inside the array."""
        self.connection.check_connected()
        at = self.check_idx(idx)
        extent = tuple(s.stop for s in self.instance.metadata.bounds(at).chunk)
        return self.read_chunk(at, slices, extent)

    def set_chunk_data(self, idx: Any, values: Any, slices: Any = None) -> None:
        """Write part of a chunk; `slices` index the part of it that lies inside the array."""
        self.check_writable()
        at = self.check_idx(idx)
        extent = tuple(s.stop for s in self.instance.metadata.bounds(at).chunk)
        self.write_chunk(at, values, slices, extent)

    def read_chunk(self, idx: Shape, key: Any, extent: Shape) -> Any:
        """Read a NumPy index of the first `extent` elements of a stored chunk."""
        self.note_reading()
        selection = select(... if key is None else key, extent)
        result, canonical = selection.allocate(self.dtype)
        for task in _one_chunk(selection, idx):
            canonical[task.out] = self.instance.get_chunk_data(idx, task.chunk)
        return selection.finish(result)

    def write_chunk(self, idx: Shape, values: Any, key: Any, extent: Shape) -> None:
        """Write a NumPy index of the first `extent` elements of a stored chunk.

        What lies outside of the array stays fill, whatever is given for it.
        """
        meta = self.instance.metadata
        selection = select(... if key is None else key, extent)
        canonical = selection.spread(assignable(values, meta.dtype), meta.dtype)
        inside = tuple(s.stop for s in meta.bounds(idx).chunk)
        tasks = _one_chunk(selection, idx)
        if inside != extent and tasks:
            tasks = [_clipped(tasks[0], selection, inside)]
        for task in tasks:
            part = None if task.whole else task.chunk
            self.instance.set_chunk_data(idx, canonical[task.out], part)

    def has_chunk(self, idx: Any) -> bool:
        """Whether the chunk was written."""
        self.connection.check_connected()
        return self.instance.has_chunk(self.check_idx(idx))

    def del_chunk(self, idx: Any) -> bool:
        """Delete a chunk, so that it reads as fill; False if it was not written."""
        self.check_writable()
        return self.instance.del_chunk(self.check_idx(idx))

    def written_chunks(self) -> list[Shape]:
        """List the indices of the chunks that were written, sorted."""
        self.connection.check_connected()
        contains = self.instance.metadata.contains
        return sorted(idx for idx in self.instance.chunk_indices() if contains(idx))


class Appended:
    """A source that is appended, which may be the dataset itself, or a view of it.

    It keeps the extent that it had before, and has no values that `dtype` would change.

    Parameters
    ----------
    source : object
    shape : tuple of int
    dtype : dtype
        Of the dataset.
    """

    def __init__(self, source: Any, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.source = source.instance if isinstance(source, ArrayAccess) else source
        self.shape, self.dtype = shape, np.dtype(source.dtype)
        self._target = dtype

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        return check_values(read_source(self.source, key), self._target, "data to append")


def _is_part(idx: Shape, local: Index, meta: DatasetMetadata) -> bool:
    """Whether what `single` found leaves out some of the chunk that lies inside the array."""
    for i, k, c, n in zip(idx, local, meta.chunk_size, meta.shape):  # noqa: B905  hot
        count = 1 if type(k) is int else k.stop - k.start
        if count < c and count < n - i * c:
            return True
    return False


def _write_from(target: BackendDataset, source: Any, tasks: Any) -> None:
    for task in tasks:
        block = elements(read_source(source, task.out), target.metadata.dtype)
        target.write_many(block, [task._replace(out=(...,))])


def _is_full(task: ChunkTask, chunk_size: Shape) -> bool:
    return all(s.stop == c for s, c in zip(task.chunk, chunk_size, strict=True))


def _one_chunk(selection: Selection, idx: Shape) -> list[ChunkTask]:
    """Plan a selection of a single chunk, at the chunk's place in the grid."""
    chunk_size = tuple(max(1, n) for n in selection.shape)
    return [task._replace(idx=idx) for task in plan(selection, chunk_size)]


def _clipped(task: ChunkTask, selection: Selection, inside: Shape) -> ChunkTask:
    """Drop what a task would write outside of the array."""
    chunk, out = list(task.chunk), list(task.out)
    slice_axes = [axis for axis, c in enumerate(chunk) if isinstance(c, slice)]
    places = list(range(len(out)))
    if selection.points is not None:
        at = places.pop(selection.point_axis)
        points = [axis for axis in range(len(chunk)) if axis not in slice_axes]
        keep = np.flatnonzero(np.logical_and.reduce([chunk[a] < inside[a] for a in points]))
        for axis in points:
            chunk[axis] = chunk[axis][keep]
        o = out[at]
        out[at] = keep + o.start if isinstance(o, slice) else o[keep]
    for axis, place in zip(slice_axes, places, strict=True):
        c, o = chunk[axis], out[place]
        chunk[axis] = slice(c.start, min(c.stop, inside[axis]), c.step)
        count = len(range(*chunk[axis].indices(inside[axis])))
        out[place] = slice(o.start, o.start + count)
    return ChunkTask(task.idx, tuple(chunk), tuple(out), task.whole)
