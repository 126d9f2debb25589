"""Indexing of a dataset, for every backend and engine.

An index becomes a selection, the selection becomes a plan, and the backend reads or writes the
plan in this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.astype import AsType
from dosna.array.description import Described
from dosna.array.values import assignable, is_source
from dosna.backends.base import BackendDataset
from dosna.core import stopping
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask, Index, plan, single
from dosna.core.selection import Selection, select
from dosna.core.text import converted, element_bytes, elements, is_text
from dosna.core.types import Array, Shape
from dosna.engines.base import Tasks
from dosna.engines.work.boxes import read_source

__all__ = ["ArrayAccess"]


class ArrayAccess(Described):
    """The part of a dataset that it shares with a NumPy array."""

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
            The selection: anything that NumPy takes, except names of fields and
            booleans without axes.

        Returns
        -------
        ndarray or scalar
            The values; see `read`.

        Raises
        ------
        IndexError
            An index is out of range, or of a kind that is not supported.

        Examples
        --------
        >>> ds.get_data(0)
        array([1, 2, 3, 4])
        """
        return self[... if slices is None else slices]

    def set_data(self, values: Any, slices: Any = None) -> None:
        """Write a selection; by default all of the array. The same as ``ds[slices] = values``.

        Parameters
        ----------
        values : array_like
            The values, which are broadcast to the selection as by NumPy.
        slices : index, optional
            The selection: anything that NumPy takes, except names of fields and
            booleans without axes.

        Raises
        ------
        IndexError
            An index is out of range, or of a kind that is not supported.
        ValueError
            The values cannot be broadcast to the selection.

        Examples
        --------
        >>> ds.set_data(0, slices=(..., 3))
        >>> ds[0]
        array([1, 2, 3, 0])
        """
        self[... if slices is None else slices] = values

    def read(self, key: Any = ..., out: Array | None = None) -> Any:
        """Read a selection, into the caller's own array if `out` is given.

        Parameters
        ----------
        key : index
            The selection: anything that NumPy takes, except names of fields and
            booleans without axes.
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
        >>> ds.read((0, slice(1, 3)), out=np.empty(2))
        array([2., 3.])
        """
        if not self.connection.instance.connected:
            self.connection.check_connected()
        meta = self.instance.metadata
        if meta.incomplete:
            self.note_reading()
        selection = select(key, meta.shape)
        if out is None:
            result, canonical = selection.allocate(meta.dtype)
        else:
            view = _view_into(out, selection, meta.dtype)
            if view is None:
                out[...] = converted(np.asarray(self.read(key), meta.dtype), out.dtype)
                return out
            canonical = view
        work: Any = partial(self.instance.read_many, canonical)
        stop = stopping.current.get()
        if stop is not None:
            work = stopping.Stopping(work, stop)
        self._in_parallel(work, plan(selection, self.instance.grain), canonical.nbytes)
        return selection.finish(result) if out is None else out

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
            or instance.schedules_requests
            or nbytes < backend.parallel_bytes
            or instance.metadata.chunk_nbytes < backend.parallel_chunk_bytes
            or len(tasks) < 2
        ):
            work(tasks)
        else:
            self.runner.map(work, tasks)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                f"cannot make an array of {self.name!r} without a copy: it is not in memory"
            )
        found = np.asarray(self.read(...))
        return found if dtype is None else converted(found, np.dtype(dtype))

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

        Raises
        ------
        TypeError
            `dtype` is not a dtype.

        Examples
        --------
        >>> ds.astype("float32")[0]
        array([1., 2., 3., 4.], dtype=float32)
        """
        return AsType(self, np.dtype(dtype))


def _view_into(out: Array, selection: Selection, dtype: np.dtype[Any]) -> Array | None:
    """Return the caller's array as `Selection.view` does, if elements can be read into it."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(
            f"cannot read {dtype} into out, which has dtype {out.dtype}: the cast is not "
            "'same_kind'. Give an array of another dtype, or use astype"
        )
    view = selection.view(out)
    return view if is_text(dtype) == is_text(out.dtype) else None


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
