"""Rows of a dataset: a range or a selection, in few calls and without additional copies."""

from __future__ import annotations

import math
import threading
from itertools import pairwise
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, plan
from dosna.core.selection import select
from dosna.core.types import Array
from dosna.engines.work.boxes import read_box
from dosna.errors import FormatError
from dosna.io.fork import renew_in_children
from dosna.query.remote import remote_of

__all__ = ["Known", "check_rows", "read_rows", "take_rows"]

_SLAB_BYTES = 8 << 20


class _Slab:
    """Memory from which arrays of results are allocated.

    Large allocations are backed by huge pages; filling them takes half the time of filling many
    small ones. An array keeps its slab alive. All threads share one: with one for each, the
    columns of a range, which a store reads in many threads, would keep many alive.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Start anew, also in a forked child, where the parent's lock may never be released."""
        self._left: Array = np.empty(0, np.uint8)
        self._lock = threading.Lock()

    def carve(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new array with arbitrary elements."""
        size = -(-math.prod(shape) * dtype.itemsize // 64) * 64
        if size > _SLAB_BYTES // 2 or dtype.hasobject:
            return np.empty(shape, dtype)
        with self._lock:
            if len(self._left) < size:
                self._left = np.empty(_SLAB_BYTES, np.uint8)
            mine, self._left = self._left[:size], self._left[size:]
        return np.ndarray(shape, dtype, mine)


_slab = _Slab()


def read_rows(dataset: BackendDataset, start: int, stop: int, kept: bool = False) -> Array:
    """Read the rows from `start` to `stop`.

    Parameters
    ----------
    dataset : BackendDataset
    start, stop : int
        The range of rows.
    kept : bool
        True if they are part of a result.

    Raises
    ------
    FormatError
        The dataset has fewer rows.
    """
    check_rows(dataset, stop)
    meta, grain = dataset.metadata, dataset.grain
    inner = meta.shape[1:]
    if _is_cut(inner, grain):
        return read_box(dataset, (slice(start, stop), *(slice(0, n) for n in inner)))
    shape = (stop - start, *inner)
    out = _slab.carve(shape, meta.dtype) if kept else np.empty(shape, meta.dtype)
    dataset.read_many(out, _range_tasks(start, stop, grain[0], meta.shape))
    return out


Known = dict[int, list[ChunkTask]]
"""The parts of the same rows in stored objects, by the rows of an object."""


def take_rows(
    dataset: BackendDataset, rows: Array, start: int = 0, known: Known | None = None
) -> Array:
    """Read some rows, with increasing numbers. Stored objects without such a row are not read.

    Parameters
    ----------
    dataset : BackendDataset
    rows : ndarray of int
        The numbers of the rows, counted from `start`.
    start : int
        The row from which they are counted.
    known : dict, optional
        The results for the same rows of other datasets, to which those of this one are added.

    Raises
    ------
    FormatError
        The dataset has fewer rows.
    """
    meta, grain = dataset.metadata, dataset.grain
    inner = meta.shape[1:]
    if not len(rows):
        return np.empty((0, *inner), meta.dtype)
    first, last = int(rows[0]), int(rows[-1])
    check_rows(dataset, start + last + 1)
    remote = remote_of(dataset)
    if remote is not None:
        return remote.take(rows + start)
    if last - first == len(rows) - 1:
        return read_rows(dataset, start + first, start + last + 1, kept=True)
    if _is_cut(inner, grain):
        selection = select((rows + start, *(slice(None) for _ in inner)), meta.shape)
        result, canonical = selection.allocate(meta.dtype)
        dataset.read_many(canonical, plan(selection, grain))
        return selection.finish(result)  # type: ignore[no-any-return]
    out = _slab.carve((len(rows), *inner), meta.dtype)
    tasks = None if known is None or inner else known.get(grain[0])
    if tasks is None:
        tasks = _tasks(rows, start, grain[0], tuple(slice(0, n) for n in inner))
        if known is not None and not inner:
            known[grain[0]] = tasks
    dataset.read_many(out, tasks)
    return out


def _is_cut(inner: tuple[int, ...], grain: tuple[int, ...]) -> bool:
    """Return True if stored objects contain parts of rows instead of whole rows."""
    return bool(inner) and any(n > g for n, g in zip(inner, grain[1:], strict=True))


def _range_tasks(start: int, stop: int, grain: int, shape: tuple[int, ...]) -> list[ChunkTask]:
    """Plan one task for each stored object that contains rows of a range."""
    inner = tuple([slice(0, n) for n in shape[1:]])
    zeros: Any = (0,) * len(inner)
    tasks: list[ChunkTask] = []
    while start < stop:
        number, first = divmod(start, grain)
        last = min(grain, first + stop - start)
        whole = not first and last == min(grain, shape[0] - number * grain)
        at = len(tasks) and tasks[-1].out[0].stop
        where = slice(at, at + last - first)
        part = slice(first, last)
        tasks.append(ChunkTask((number, *zeros), (part, *inner), (where, *inner), whole))
        start += last - first
    return tasks


def _tasks(rows: Array, start: int, grain: int, inner: tuple[slice, ...]) -> list[ChunkTask]:
    """Plan one task for each stored object that contains some of the rows."""
    first, last = (start + int(rows[0])) // grain, (start + int(rows[-1])) // grain
    edges = [0, len(rows)]
    if first != last:
        borders = np.arange(first + 1, last + 1) * grain - start
        edges[1:1] = np.searchsorted(rows, borders).tolist()
    zeros: Any = (0,) * len(inner)
    return [
        ChunkTask(
            (first + number, *zeros),
            (rows[a:b] - ((first + number) * grain - start), *inner),
            (slice(a, b), *inner),
            False,
        )
        for number, (a, b) in enumerate(pairwise(edges))
        if a < b
    ]


def check_rows(dataset: BackendDataset, stop: int) -> None:
    """Raise FormatError if a dataset ends before a row."""
    rows = dataset.metadata.shape[0]
    if rows < stop:
        raise FormatError(
            f"dataset {dataset.name!r} ends at row {rows}, but its tree has rows up to {stop}: "
            "it is damaged or was replaced. Ingest the tree again"
        )
