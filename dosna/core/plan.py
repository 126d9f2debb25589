"""Plans: the chunks that a selection touches, and what to copy between them and the result.

A :class:`Plan` holds columns, one for each axis, and makes its tasks while it is iterated, so that
many tasks cost no memory. Parts of a plan are ranges of its task numbers, so they are balanced
exactly and small to send to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product, repeat
from math import prod
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dosna.core.cuts import Axis, Groups, cut, group
from dosna.core.selection import Selection

__all__ = [
    "ChunkTask",
    "Columns",
    "Index",
    "Plan",
    "every_chunk",
    "plan",
    "single",
    "touched",
]

Index = tuple[Any, ...]
"""An index of slices and, at points, of integer arrays."""

Places = npt.NDArray[np.int64]
"""Places in a grid of chunks, one per row."""


class ChunkTask(NamedTuple):
    """The work on one chunk: ``canonical[out]`` and ``chunk_array[chunk]`` correspond.

    Attributes
    ----------
    idx : tuple of int
        The index of the chunk in the chunk grid.
    chunk : tuple of slice or int64 array
        The part of the chunk, counted from the chunk's first element. The steps of slices are
        positive integers.
    out : tuple of slice or int64 array
        The part of the canonical array (see `Selection`). Slices have no steps.
    whole : bool
        True if the task covers, in order, everything of the chunk that lies inside the array, so
        that writing it needs no reading first. It is always False for points.
    """

    idx: tuple[int, ...]
    chunk: Index
    out: Index
    whole: bool


class Columns(NamedTuple):
    """The four fields of a plan's tasks, as separate iterators of equal length."""

    idx: Iterator[tuple[int, ...]]
    chunk: Iterator[Index]
    out: Iterator[Index]
    whole: Iterator[bool]


# Twice as fast as calling the class, which goes through a Python function.
_task: Callable[[tuple[Any, ...]], ChunkTask] = partial(tuple.__new__, ChunkTask)

_Column = Axis | Groups
_Box = tuple[tuple[int, int], ...]


# Not frozen, and yet never changed: a frozen one takes longer to make.
@dataclass(slots=True, eq=False)
class Plan:
    """Tasks of a selection, one for each chunk that it touches; made by :func:`plan`.

    Iterating yields :class:`ChunkTask`; ``len`` is their number. Plans are immutable, may be
    iterated many times and by several threads at once, and pickle small.
    """

    _columns: tuple[_Column, ...]
    _start: int
    _stop: int
    # With points on several axes: their place among the columns, and how to put the axes into
    # order afterwards (None if they are in order).
    _group: int | None = None
    _axes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[ChunkTask]:
        return map(_task, zip(*self.columns(), strict=False))

    def columns(self) -> Columns:
        """Return the tasks' fields as separate iterators (for loops that need no tasks).

        Returns
        -------
        Columns
            Iterators of idx, chunk, out and whole.
        """
        columns = self._columns
        lengths = [column.length for column in columns]
        if self._stop - self._start == prod(lengths):
            # Most plans have all tasks, and if these are few, this is twice as fast.
            idx, chunk, out, whole = _fields(columns, lengths)
        else:
            boxes = [
                _fields(
                    [column.part(*ends) for column, ends in zip(columns, box, strict=True)],
                    [stop - start for start, stop in box],
                )
                for box in _boxes(lengths, self._start, self._stop)
            ]
            idx = chain.from_iterable([box.idx for box in boxes])
            chunk = chain.from_iterable([box.chunk for box in boxes])
            out = chain.from_iterable([box.out for box in boxes])
            whole = chain.from_iterable([box.whole for box in boxes])
        if self._group is not None:
            idx, chunk = self._spliced(idx), self._spliced(chunk)
        return Columns(idx, chunk, out, whole)

    def boxes(self, chunk_size: Sequence[int]) -> list[tuple[Index, Index]] | None:
        """Return the tasks as few boxes, for arrays that need not be read chunk by chunk.

        Returns
        -------
        list of tuple
            Boxes of the array, as slices of step 1, and the corresponding parts of the canonical
            array. None if the selection has points or steps.
        """
        axes = [column for column in self._columns if isinstance(column, Axis)]
        if len(axes) < len(self._columns):
            return None
        found = []
        for box in _boxes([axis.length for axis in axes], self._start, self._stop):
            parts = [axis.part(*ends) for axis, ends in zip(axes, box, strict=True)]
            place = tuple(
                slice(a.idx[0] * c + a.chunk[0].start, a.idx[-1] * c + a.chunk[-1].stop)
                for a, c in zip(parts, chunk_size, strict=True)
            )
            out = tuple(slice(a.out[0].start, a.out[-1].stop) for a in parts)
            if any(p.stop - p.start != o.stop - o.start for p, o in zip(place, out, strict=True)):
                return None  # there are gaps
            found.append((place, out))
        return found

    def split(self, k: int) -> list[Plan]:
        """Divide into at most `k` plans, in order, whose lengths differ by at most one."""
        k = min(k, len(self))
        return [self.part(i, k) for i in range(k)]

    def part(self, i: int, n: int) -> Plan:
        """Return the share of process `i` of `n`: contiguous, possibly empty."""
        count = len(self)
        return self.between(count * i // n, count * (i + 1) // n)

    def batches(self, size: int) -> Iterator[Plan]:
        """Divide into plans of `size` tasks (the last may have fewer), made one by one."""
        size = max(1, size)
        count = len(self)
        if 0 < count <= size:
            return iter((self,))
        return (self.between(i, min(i + size, count)) for i in range(0, count, size))

    def between(self, start: int, stop: int) -> Plan:
        """Return the tasks from number `start` up to number `stop`."""
        first = self._start
        return Plan(self._columns, first + start, first + stop, self._group, self._axes)

    def _spliced(self, entries: Iterator[Index]) -> Iterator[Index]:
        group = self._group
        assert group is not None
        if len(self._columns) == 1:
            return map(itemgetter(0), entries)
        after = group + 1
        entries = ((*e[:group], *e[group], *e[after:]) for e in entries)
        return entries if self._axes is None else map(itemgetter(*self._axes), entries)

    def __reduce__(self) -> tuple[Any, ...]:
        columns, start, stop = list(self._columns), self._start, self._stop
        if columns:
            # Send only the used part of the first axis.
            row = prod(column.length for column in columns[1:])
            if start < stop:
                first = start // row
                columns[0] = columns[0].part(first, -(-stop // row))
                start, stop = start - first * row, stop - first * row
        return Plan, (tuple(columns), start, stop, self._group, self._axes)


def plan(selection: Selection, chunk_size: Sequence[int]) -> Plan:
    """Cut a selection along the chunks of its array.

    Parameters
    ----------
    selection : Selection
        The selection to read or write.
    chunk_size : sequence of int
        The shape of a chunk, one number for each axis.

    Returns
    -------
    Plan
        The tasks, one for each chunk that the selection touches.
    """
    columns: list[_Column] = []
    point_axes: list[int] = []
    for axis, (r, n, c) in enumerate(
        zip(selection.ranges, selection.shape, chunk_size, strict=True)
    ):
        if r is None:
            point_axes.append(axis)
        else:
            columns.append(cut(r, n, c))
    if selection.points is None:
        return _all_of(columns)

    at = selection.point_axis
    grid = [-(-selection.shape[axis] // chunk_size[axis]) for axis in point_axes]
    groups = group(selection.points, [chunk_size[axis] for axis in point_axes], grid)
    columns.insert(at, groups)
    if len(point_axes) == 1:
        return _all_of(columns)
    axes = None
    if point_axes[-1] - point_axes[0] >= len(point_axes):
        others = [a for a in range(len(selection.shape)) if a not in point_axes]
        order = [*point_axes, *others]
        axes = tuple(order.index(a) for a in range(len(order)))
    return Plan(tuple(columns), 0, prod(c.length for c in columns), at, axes)


def every_chunk(shape: Sequence[int], chunk_size: Sequence[int]) -> Plan:
    """Return the plan of a whole array.

    Parameters
    ----------
    shape, chunk_size : sequence of int
        The extents of the array and of a chunk.

    Returns
    -------
    Plan
        A task for each chunk; `out` is the part of the chunk that lies inside the array.
    """
    return _all_of([cut((0, n, 1), n, c) for n, c in zip(shape, chunk_size, strict=True)])


_WHOLE_AXES = (slice(None),) * 64


def single(
    key: Any, shape: Sequence[int], chunk_size: Sequence[int]
) -> tuple[tuple[int, ...], Index] | None:
    """Find the one chunk that a simple key lies in, faster than :func:`plan` does.

    Parameters
    ----------
    key : index
        The index, in any form that NumPy takes.
    shape, chunk_size : sequence of int
        The extents of the array and of a chunk.

    Returns
    -------
    idx : tuple of int
        The index of the chunk in the chunk grid.
    local : tuple of int and slice
        The part of the chunk: ``chunk_array[local]`` is NumPy's result.

    The function returns None unless the key consists of integers and slices of step 1, none of
    them negative or out of range, and all of it lies in one chunk. Axes that the key leaves out
    are taken whole. None is not an error: use :func:`plan` for such keys.
    """
    if type(key) is not tuple:
        key = (key,)
    missing = len(shape) - len(key)
    if missing:
        if missing < 0:
            return None
        key = (*key, *_WHOLE_AXES[:missing])  # as NumPy takes axes that are not named
    idx: list[int] = []
    local: list[int | slice] = []
    for k, n, c in zip(key, shape, chunk_size):  # noqa: B905  (strict costs a tenth)
        if type(k) is int:
            if not 0 <= k < n:
                return None
            i = k // c
            local.append(k - i * c)
        elif type(k) is slice:
            start, stop, step = k.start, k.stop, k.step
            if start is None:
                start = 0
            if stop is None:
                stop = n
            if type(start) is not int or type(stop) is not int or (step is not None and step != 1):
                return None
            if stop > n:
                stop = n
            if not 0 <= start < stop:
                return None
            i = start // c
            first = i * c
            if stop > first + c:
                return None
            local.append(slice(start - first, stop - first))
        else:
            return None
        idx.append(i)
    return tuple(idx), tuple(local)


def _all_of(columns: Sequence[_Column]) -> Plan:
    return Plan(tuple(columns), 0, prod([column.length for column in columns]))


def _boxes(sizes: Sequence[int], start: int, stop: int) -> Iterator[_Box]:
    """Cut the range `start:stop` of C-ordered numbers of a grid into boxes, in order."""
    if start >= stop:
        return
    if not sizes:
        yield ()
        return
    inner = sizes[1:]
    row = prod(inner)
    first, begin = divmod(start, row)
    last, end = divmod(stop, row)
    if begin or first == last:
        for box in _boxes(inner, begin, end if first == last else row):
            yield ((first, first + 1), *box)
        if first == last:
            return
        first += 1
    if first < last:
        yield ((first, last), *((0, n) for n in inner))
    for box in _boxes(inner, 0, end):
        yield ((last, last + 1), *box)


def _product(columns: Sequence[Iterable[Any]]) -> Iterator[Index]:
    # zip stays lazy, whereas product keeps its inputs: too much for 10^6 groups of points.
    return zip(columns[0]) if len(columns) == 1 else product(*columns)


def _fields(box: Sequence[_Column], lengths: Sequence[int]) -> Columns:
    """Make the columns of a box's tasks, with the points not yet in their places."""
    return Columns(
        _product([column.idx for column in box]),
        _product([column.chunk for column in box]),
        _product([column.out for column in box]),
        _whole(box, lengths),
    )


def _whole(box: Sequence[_Column], lengths: Sequence[int]) -> Iterator[bool]:
    """Return the `whole` flags of a box's tasks."""
    flags: list[tuple[bool, ...]] = []
    every = True
    for column in box:
        if not isinstance(column, Axis) or not column.any_whole:
            return repeat(False, prod(lengths))
        flags.append(column.whole)
        every = every and column.all_whole
    return repeat(True, prod(lengths)) if every else map(all, product(*flags))


def touched(
    stored: Places, chunks: Sequence[int], shape: Sequence[int], block: Sequence[int]
) -> Places:
    """Return the blocks that some chunks lie in.

    Parameters
    ----------
    stored : array of int64
        The places of the chunks in their grid, one per row.
    chunks, shape, block : sequence of int
        The extents of a chunk, of the array, and of a block.

    Returns
    -------
    array of int64
        The places of the blocks in the grid of blocks, one per row.
    """
    found = np.asarray(stored, np.int64)
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    for axis, (c, n, b) in enumerate(zip(chunks, shape, block, strict=True)):
        first = found[:, axis] * c // b
        last = (np.minimum((found[:, axis] + 1) * c, n) - 1) // b
        count = np.maximum(last - first + 1, 0)
        rows = np.repeat(np.arange(len(found)), count)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        found = found[rows]
        found[:, axis] = first[rows] + place
        grid[axis] = -(-n // b)
        # If many chunks lie in one block, one of them is enough from here on.
        found = _distinct(found, grid)
    return found


def _distinct(places: Places, grid: Sequence[int]) -> Places:
    if prod(grid) < 1 << 62:
        numbers = np.unique(np.ravel_multi_index(tuple(places.T), grid))
        return np.stack(np.unravel_index(numbers, grid), axis=-1)
    return np.unique(places, axis=0)
