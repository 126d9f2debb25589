"""The chunks of a dataset, one by one, and work shared out over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dosna.array.chunk import EngineDataChunk
from dosna.array.indexing import ArrayAccess
from dosna.array.values import assignable
from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk, plan
from dosna.core.progress import Progress
from dosna.core.selection import Selection, select
from dosna.core.sizes import Limit, parse_size
from dosna.core.text import elements
from dosna.core.types import Shape
from dosna.engines.base import Tasks, collective
from dosna.engines.work.boxes import Window, count_of, window, workers_within
from dosna.engines.work.flow import Overlapping
from dosna.errors import ChunkIndexError

__all__ = ["Chunked", "windows"]


class Chunked(ArrayAccess):
    """The chunks of a dataset."""

    def get_chunk(self, idx: Any) -> EngineDataChunk:
        """Return a handle on a chunk, written or not. Nothing is read or written.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.

        Returns
        -------
        EngineDataChunk
            The handle.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.

        Examples
        --------
        >>> ds.get_chunk((0, 1))[...]
        array([[3, 4],
               [7, 8]])
        """
        self.connection.check_connected()
        return EngineDataChunk(self, self.check_idx(idx))

    def iter_chunks(self) -> Iterator[EngineDataChunk]:
        """Yield a handle on each chunk of the grid, written or not, in C order.

        Yields
        ------
        EngineDataChunk
            The handle on the next chunk.

        Examples
        --------
        >>> [chunk.idx for chunk in ds.iter_chunks()]
        [(0, 0), (0, 1)]
        """
        self.connection.check_connected()
        for idx in every_chunk(self.shape, self.chunk_size).columns().idx:
            yield EngineDataChunk(self, idx)

    @collective
    def create_chunk(self, idx: Any, data: Any = None, slices: Any = None) -> EngineDataChunk:
        """Write a chunk that was not written before.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        data : array_like, optional
            The values of the selected part, or of the chunk; by default the fill value.
        slices : index, optional
            The part of the chunk to write; by default all of it. The rest is the fill value.

        Returns
        -------
        EngineDataChunk
            A handle on the chunk.

        Raises
        ------
        ChunkExistsError
            The chunk was written before.
        ChunkIndexError
            The index is outside of the chunk grid.

        Examples
        --------
        >>> half = con.create_dataset("half", shape=(2, 4), chunk_size=(2, 2))
        >>> half.create_chunk((0, 1), 7)[0]
        array([7., 7.], dtype=float32)
        """
        self.check_writable()
        at = self.check_idx(idx)
        meta = self.instance.metadata
        chunk = meta.empty_chunk()
        inside = chunk[meta.bounds(at).chunk]
        if data is not None:
            data = elements(data, meta.dtype)
            part = inside if slices is None and np.shape(data) != meta.chunk_size else chunk
            part[... if slices is None else slices] = data
        self.runner.once(lambda: self.instance.create_chunk(at, inside) and None)
        return EngineDataChunk(self, at)

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
            raise TypeError(f"the index of a chunk must be made of integers, not {idx!r}")
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

        Examples
        --------
        >>> ds.get_chunk_data((0, 1), 0)
        array([3, 4])
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

        Examples
        --------
        >>> ds.set_chunk_data((0, 1), 0)
        >>> ds[0]
        array([1, 2, 0, 0])
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

        Examples
        --------
        >>> ds.has_chunk((0, 1))
        True
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

        Examples
        --------
        >>> ds.del_chunk((0, 1))
        True
        >>> ds[0]
        array([1, 2, 0, 0])
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
        >>> ds.written_chunks()
        [(0, 0), (0, 1)]
        """
        self.connection.check_connected()
        contains = self.instance.metadata.contains
        return sorted(idx for idx in self.instance.chunk_indices() if contains(idx))

    def spread(
        self,
        what: str,
        work: Callable[[Any], Any],
        task_bytes: int,
        progress: Progress,
        memory_limit: Limit,
        *,
        tasks: Tasks[ChunkTask] | None = None,
        over: BackendDataset | None = None,
        before: int = 0,
        picklable: bool = True,
    ) -> list[Any]:
        """Share work on all chunks out over all workers; collective, as `load` and the like are.

        Parameters
        ----------
        what : str
            The name of the work where progress is shown.
        work : callable
            The work; see `dosna.engines.base.Runner.spread`.
        task_bytes : int
            The bytes that the work holds for one task; without `tasks` for one stored object.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        tasks : sized iterable, optional
            The boxes to work on; by default the stored objects, or many at once on remote stores.
        over : BackendDataset, optional
            The dataset whose stored objects are meant; by default this one.
        before : int
            The number of further tasks, which are done already.
        picklable : bool
            True if `work` can be sent to another process.

        Returns
        -------
        list
            The results of `work` for each part, in no particular order.

        Raises
        ------
        MemoryLimitError
            The limit is below what one task needs.
        """
        workers = workers_within(memory_limit, task_bytes, what)
        dataset = self.instance if over is None else over
        if dataset.schedules_requests and not isinstance(work, Overlapping):
            workers = 1  # All tasks are then one batch of requests of the store.
        if tasks is None:
            tasks = self._boxes(work, dataset, task_bytes, memory_limit)
        # Counted and not planned: few of very many objects may have to be loaded.
        total, boxes = count_of(self.shape, dataset.grain), max(1, before + len(tasks))
        with self.runner.reporting(progress, total, what) as tell:
            report = None if tell is None else lambda done: tell((before + done) * total // boxes)
            spread = partial(self.runner.spread, workers=workers, picklable=picklable)
            return spread(work, tasks, report=report)

    def _boxes(
        self, work: Any, over: BackendDataset, task_bytes: int, memory_limit: Limit
    ) -> Tasks[ChunkTask]:
        """Plan boxes of whole stored objects of a dataset of this shape."""
        found = Window(over.grain, False)
        if over.remote or self.instance.remote:
            held = max(task_bytes, over.metadata.chunk_nbytes)
            found = windows(self, over.grain, held, memory_limit)
        if isinstance(work, Overlapping):
            work.overlaps = found.overlaps
        return every_chunk(self.shape, found.extent)


def windows(
    dataset: Chunked, block: Shape, block_bytes: int, memory_limit: Limit, held: int = 0
) -> Window:
    """Return the extent of boxes of many blocks, for work on a remote dataset."""
    workers = dataset.runner.workers
    share = None
    if memory_limit is not None:
        # Boxes are also read ahead and written behind, and requests under way hold objects too:
        # encoded, joined, and in the memory of a client.
        share = (parse_size(memory_limit) // dataset.runner.sharers - held) // 6
    return window(dataset.shape, block, block_bytes, share, workers)


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
