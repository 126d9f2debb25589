"""A dataset as an array: its description, indexing, chunks and attributes.

All slicing of every backend and engine is here: an index becomes a selection, the selection
becomes a plan, and the backend reads or writes the plan in this process.
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
    """The part of a dataset that it shares with a NumPy array and an ``h5py.Dataset``.

    Parameters
    ----------
    connection : EngineConnection
        The connection that the dataset belongs to.
    instance : BackendDataset
        The backend's dataset, which stores the chunks.
    runner : Runner
        The runner that does the work.
    """

    def __init__(self, connection: ArrayHome, instance: BackendDataset, runner: Runner) -> None:
        self.connection = connection
        self.instance = instance
        self.runner = runner

    @property
    def identity(self) -> tuple[Any, ...]:
        """The values that cooperating processes must agree on before they start."""
        return (*self.connection.identity, self.name, self.shape, str(self.dtype))

    def change(self, make: Callable[[], R]) -> R:
        """Change the stored metadata in one process, and hand the new metadata to all.

        Parameters
        ----------
        make : callable
            A function that changes the metadata of `instance`.

        Returns
        -------
        object
            The result of `make`, the same in all processes.
        """

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
        """The value as which a chunk that was never written is read."""
        return self.instance.metadata.fillvalue

    @property
    def chunk_size(self) -> Shape:
        """Extent of a chunk on each axis."""
        return self.instance.metadata.chunk_size

    @property
    def chunks(self) -> Shape:
        """Alias of `chunk_size`: the name in h5py and zarr."""
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
        """Extent of a stored object of many chunks, or None where each chunk is an object."""
        return self.instance.shards

    @property
    def guarantees(self) -> Guarantees:
        """The guarantees that the store gives for this dataset."""
        return self.instance.guarantees

    @property
    def attrs(self) -> Attributes:
        """The user's attributes: a mapping that is stored with the dataset.

        Values are JSON values, NumPy scalars and arrays. Each change is stored at once. See
        `dosna.array.attributes.Attributes`.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("attrs", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", shape=(4, 4))
        >>> ds.attrs["unit"] = "mm"
        >>> ds.attrs.update(author="Ada", year=2024)
        >>> dict(ds.attrs)
        {'unit': 'mm', 'author': 'Ada', 'year': 2024}
        """
        return Attributes(self)

    def check_writable(self) -> None:
        """Raise an error if chunks cannot be written.

        Raises
        ------
        ReadOnlyError
            The connection's mode is 'r', or the dataset is a link.
        NotConnectedError
            The connection is not open.
        """
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
        """True if data are still to come, or never came because writing was interrupted."""
        return self.instance.metadata.incomplete

    @property
    def origin(self) -> dict[str, Any] | None:
        """The origin of the data, as `EngineConnection.ingest` noted it, or None."""
        origin = self.instance.metadata.origin
        return None if origin is None else dict(origin)

    @property
    def linked(self) -> dict[str, Any] | None:
        """The place of the chunks of a link: 'url', 'name', 'fingerprint', …; or None."""
        link = self.instance.metadata.link
        return None if link is None else dict(link)

    @collective
    def mark_complete(self) -> None:
        """Mark an `incomplete` dataset as one whose data have all been written."""
        self.connection.check_writable()
        self.change(lambda: self.instance.update(lambda m: m.replace(incomplete=False)))

    _noted = False

    def note_reading(self) -> None:
        """Warn, once for each handle, if the dataset is read before it is complete."""
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
        # Checked inline first: one more call is a tenth of the time of a single element.
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
        # A selection that covers the chunk takes the general path: it needs no reading first.
        # So does text, because NumPy makes one text of a list assigned to one element.
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
        """Read a selection; by default all of the array. The same as ``ds[slices]``.

        Parameters
        ----------
        slices : index, optional
            The selection: anything that NumPy takes, except names of fields.

        Returns
        -------
        ndarray or scalar
            The values; see `read`.
        """
        return self[... if slices is None else slices]

    def set_data(self, values: Any, slices: Any = None) -> None:
        """Write a selection; by default all of the array. The same as ``ds[slices] = values``.

        Parameters
        ----------
        values : array_like
            The values, which are broadcast to the selection as by NumPy.
        slices : index, optional
            The selection: anything that NumPy takes, except names of fields.
        """
        self[... if slices is None else slices] = values

    def read(self, key: Any = ..., out: Array | None = None) -> Any:
        """Read a selection, into the caller's own array if `out` is given.

        Parameters
        ----------
        key : index
            The selection: anything that NumPy takes, except names of fields.
        out : ndarray, optional
            The array to read into, of the selection's shape, and of a dtype that the elements can
            be cast to (``same_kind``). Reusing one saves the time that fresh memory takes.

        Returns
        -------
        ndarray or scalar
            The values that NumPy gives for the whole array in memory; `out` if it was given.

        Raises
        ------
        IndexError
            An index is out of range, or of a kind that is not supported.
        TypeError
            `out` is not an array, or of a dtype that the elements cannot be cast to.
        ChunkCorruptError
            A stored chunk cannot be what was written.

        Examples
        --------
        >>> import numpy as np
        >>> import dosna as dn
        >>> con = dn.Connection("read", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> ds.read((0, slice(1, 3)), out=np.empty(2))
        array([2., 3.])
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
        """Write a selection.

        With `shared_edge`, others may be writing beyond the array's end at the same time.
        """
        meta = self.instance.metadata
        selection = select(key, meta.shape)
        tasks: Tasks[ChunkTask] = plan(selection, self.instance.grain)
        if shared_edge:
            tasks = [t._replace(whole=t.whole and _is_full(t, self.instance.grain)) for t in tasks]
        nbytes = selection.size * element_bytes(meta.dtype)
        if is_source(values):
            # The slices of the source are those of the tasks if no axis was added, dropped or
            # reversed.
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
        # Two graphs over one dataset may be about different values: Dask must not use what it
        # holds of the first for the second.
        return os.urandom(16)

    def __iter__(self) -> Iterator[Any]:
        # A row of chunks at a time, so that no chunk is read twice.
        for begin in range(0, len(self), self.chunk_size[0]):
            yield from self[begin : begin + self.chunk_size[0]]

    def astype(self, dtype: DTypeLike) -> AsType:
        """Return a view whose elements are converted as they are read.

        Parameters
        ----------
        dtype : dtype
            The dtype to convert to.

        Returns
        -------
        AsType
            The view, which has shape, dtype and slicing; ``np.asarray`` reads all of it.
        """
        return AsType(self, np.dtype(dtype))

    # -- chunks ---------------------------------------------------------------------------

    def check_idx(self, idx: Any) -> Shape:
        """Return a chunk index as a tuple of int.

        Parameters
        ----------
        idx : int or sequence of int
            The index of the chunk in the chunk grid.

        Returns
        -------
        tuple of int
            The same index.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.
        TypeError
            The index is not made of integers.
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
        """Read part of a chunk.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        slices : index, optional
            The selection within the part of the chunk that lies inside the array; by default all
            of that part.

        Returns
        -------
        ndarray or scalar
            The values.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.
        """
        self.connection.check_connected()
        at = self.check_idx(idx)
        extent = tuple(s.stop for s in self.instance.metadata.bounds(at).chunk)
        return self.read_chunk(at, slices, extent)

    def set_chunk_data(self, idx: Any, values: Any, slices: Any = None) -> None:
        """Write part of a chunk.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        values : array_like
            The values, which are broadcast to the selection as by NumPy.
        slices : index, optional
            The selection within the part of the chunk that lies inside the array; by default all
            of that part.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.
        """
        self.check_writable()
        at = self.check_idx(idx)
        extent = tuple(s.stop for s in self.instance.metadata.bounds(at).chunk)
        self.write_chunk(at, values, slices, extent)

    def read_chunk(self, idx: Shape, key: Any, extent: Shape) -> Any:
        """Read a NumPy index of the first `extent` elements of a stored chunk.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        key : index or None
            The selection within `extent`; None for all of it.
        extent : tuple of int
            The number of elements along each axis that can be selected.

        Returns
        -------
        ndarray or scalar
            The values.
        """
        self.note_reading()
        selection = select(... if key is None else key, extent)
        result, canonical = selection.allocate(self.dtype)
        for task in _one_chunk(selection, idx):
            canonical[task.out] = self.instance.get_chunk_data(idx, task.chunk)
        return selection.finish(result)

    def write_chunk(self, idx: Shape, values: Any, key: Any, extent: Shape) -> None:
        """Write a NumPy index of the first `extent` elements of a stored chunk.

        What lies outside of the array keeps the fill value, whatever is given for it.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        values : array_like
            The values, which are broadcast to the selection as by NumPy.
        key : index or None
            The selection within `extent`; None for all of it.
        extent : tuple of int
            The number of elements along each axis that can be selected.
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
        """Return True if the chunk was written.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.

        Returns
        -------
        bool
            True if the chunk was written.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.
        """
        self.connection.check_connected()
        return self.instance.has_chunk(self.check_idx(idx))

    def del_chunk(self, idx: Any) -> bool:
        """Delete a chunk, so that it reads as the fill value.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.

        Returns
        -------
        bool
            False if the chunk was not written.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.
        """
        self.check_writable()
        return self.instance.del_chunk(self.check_idx(idx))

    def written_chunks(self) -> list[Shape]:
        """List the indices of the chunks that were written, sorted.

        Returns
        -------
        list of tuple of int
            The indices in the chunk grid.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("written", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", shape=(4, 4), chunk_size=(2, 2))
        >>> ds[:2] = 1
        >>> ds.written_chunks()
        [(0, 0), (0, 1)]
        """
        self.connection.check_connected()
        contains = self.instance.metadata.contains
        return sorted(idx for idx in self.instance.chunk_indices() if contains(idx))


class Appended:
    """A source that is appended, which may be the dataset itself, or a view of it.

    It keeps the extent that it had before the append. A value that `dtype` would change is an
    error.

    Parameters
    ----------
    source : object
        The source of the values.
    shape : tuple of int
        The shape of the source before the append.
    dtype : dtype
        The dtype of the dataset.
    """

    def __init__(self, source: Any, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.source = source.instance if isinstance(source, ArrayAccess) else source
        self.shape, self.dtype = shape, np.dtype(source.dtype)
        self._target = dtype

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        return check_values(read_source(self.source, key), self._target, "data to append")


def _is_part(idx: Shape, local: Index, meta: DatasetMetadata) -> bool:
    """Return True if what `single` found leaves out part of the chunk inside the array."""
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
