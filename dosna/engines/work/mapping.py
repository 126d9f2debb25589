"""The work that map and apply hand to a runner: one class each.

Each is called with tasks of a plan over every chunk, in whatever thread, process or rank the
runner chose, and so holds only what can be sent there: backend datasets and the user's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.halo import pieces
from dosna.core.plan import ChunkTask, plan
from dosna.core.selection import select
from dosna.core.text import element_bytes, elements, is_text
from dosna.core.types import Array, Shape
from dosna.engines.work.boxes import (
    WINDOW_OBJECTS,
    BoxReader,
    Memory,
    Placed,
    by_chunk,
    bytes_of,
    chunks_of,
    count_of,
    extent_of,
    objects_of,
    plain,
    read_box,
)
from dosna.engines.work.flow import HELD, WRITE_BEHIND, Flow, Overlapping

Func = Callable[[Any], Any]


def result_of(func: Func, block: Array, extent: Shape) -> Array:
    """Call a user's function on a block, and return its result as an array.

    Raises
    ------
    ValueError
        The result has another shape than `extent`.
    TypeError
        It has a mask.
    """
    result = plain(func(block))
    if result.shape != extent:
        raise ValueError(
            f"cannot use the result of {name_of(func)}: it has shape {result.shape}, not that of "
            f"the block, {extent}. A function of chunks must keep their shape"
        )
    return result


def check_cast(func: Func, result: Array, dtype: np.dtype[Any], advice: str) -> Array:
    """Return a function's result, or raise TypeError if `dtype` would cut it down."""
    if is_text(dtype):
        return elements(result, dtype)  # type: ignore[no-any-return]
    longer = result.dtype.kind in "SU" and result.dtype.itemsize > dtype.itemsize
    longer = longer or is_text(result.dtype)
    if longer or not np.can_cast(result.dtype, dtype, "same_kind"):
        raise TypeError(
            f"cannot store the result of {name_of(func)}: {dtype} would cut down {result.dtype}. "
            f"{advice}"
        )
    return result


def name_of(func: Func) -> str:
    """Return the name of a user's function for error messages."""
    return getattr(func, "__qualname__", None) or repr(func)


def _fitted(func: Func, result: Array, dtype: np.dtype[Any], dtype_given: bool) -> Array:
    """Return a result in a dtype: the given one, or that of the first chunk's result."""
    if dtype_given:
        return elements(result, dtype)  # type: ignore[no-any-return]
    advice = "The dtype is that of the first chunk's result: choose another by dtype="
    return check_cast(func, result, dtype, advice)


@dataclass
class Map(Overlapping, Placed):
    """The work of writing a function's result for each chunk to another dataset."""

    near: ClassVar[str] = "source"

    source: BackendDataset
    target: BackendDataset
    func: Func
    dtype_given: bool

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        _replace_boxes(self.source, self.target, self._result, tasks, self.overlaps)

    def _result(self, block: Array) -> Array:
        result = result_of(self.func, block, block.shape)
        return _fitted(self.func, result, self.target.metadata.dtype, self.dtype_given)


@dataclass
class Apply(Overlapping, Placed):
    """The work of replacing each chunk by a function's result for it."""

    dataset: BackendDataset
    func: Func

    repeatable: ClassVar[bool] = False
    """False because a second run would apply the function to its own result."""

    def chunks_of(self, tasks: Iterable[ChunkTask]) -> list[Shape]:
        """Return the indices of the chunks that tasks change."""
        chunk_size = self.dataset.metadata.chunk_size
        return [
            idx for task in tasks for idx, _ in chunks_of(task, extent_of(task.out), chunk_size)
        ]

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        _replace_boxes(self.dataset, self.dataset, self._result, tasks, self.overlaps)

    def _result(self, block: Array) -> Array:
        result = result_of(self.func, block, block.shape)
        advice = "Use map, whose output has the dtype of the result"
        return check_cast(self.func, result, self.dataset.metadata.dtype, advice)


def _replace_boxes(
    source: BackendDataset,
    target: BackendDataset,
    result_for: Func,
    tasks: Iterable[ChunkTask],
    overlaps: bool,
) -> None:
    """Write the result for each chunk of the boxes of one dataset to another, or the same."""
    ahead, writing = overlaps and source.remote, _Writing(target, overlaps)
    with Flow(ahead=ahead, behind=writing.behind) as flow:
        read = BoxReader(source, HELD * ahead)
        for task, block in flow.read(read, tasks):

            def result(stored: ChunkTask, block: Array = block) -> Array:
                part = block[stored.out]

                def one(place: tuple[slice, ...]) -> Array:
                    # The ellipsis keeps an array of no axes an array.
                    inside: Any = (*place, ...)
                    return result_for(part[inside])  # type: ignore[no-any-return]

                return writing.by_chunk(stored, one)

            writing.write(flow, task.out, result)


class _Writing:
    """A writer of the results of a function for the chunks of boxes.

    Parameters
    ----------
    target : BackendDataset
        The dataset to write.
    overlaps : bool
        True if boxes may be written behind.
    """

    def __init__(self, target: BackendDataset, overlaps: bool) -> None:
        self._target = target
        self.behind = overlaps and target.remote
        # Many results are held at a time where they are written together.
        held = (1 + WRITE_BEHIND) * WINDOW_OBJECTS
        self._memory = Memory(held) if target.remote else None

    def by_chunk(self, stored: ChunkTask, one: Callable[[tuple[slice, ...]], Array]) -> Array:
        """Return the values of a stored object, from those of each chunk in it."""
        meta = self._target.metadata
        return by_chunk(extent_of(stored.chunk), meta.chunk_size, meta.dtype, one, self._memory)

    def write(
        self, flow: Flow, box: Sequence[slice], result: Callable[[ChunkTask], Array]
    ) -> None:
        """Write the stored objects of a box.

        Parameters
        ----------
        flow : Flow
            The flow of the boxes.
        box : sequence of slice
            The place of the box.
        result : callable
            A function that returns the values of an object in the box, which it is given as a
            task of a plan over all of the box.
        """
        target = self._target
        results: Iterable[tuple[ChunkTask, Array]] = (
            (stored, result(stored)) for stored in objects_of(box, target.grain)
        )
        if target.remote:
            # The function is called in this thread, and the results are written by many.
            results = list(results)
        flow.write(target.write_objects, results)


@dataclass
class HaloMap(Overlapping, Placed):
    """The work of `Map` for a function that sees past the edge of each chunk.

    Its tasks are those of a plan over groups of chunks, see `halo_group`.
    """

    near: ClassVar[str] = "source"

    source: BackendDataset
    target: BackendDataset
    func: Func
    halo: Shape
    mode: str
    cval: Any
    dtype_given: bool

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        ahead, writing = self.overlaps and self.source.remote, _Writing(self.target, self.overlaps)
        # An allocator keeps more than groups of fresh memory, which differ in size, ever hold.
        memory = Memory(HELD if ahead else 1)
        with Flow(ahead=ahead, behind=writing.behind) as flow:
            for task, group in flow.read(lambda task: self.extended(task.out, memory), tasks):
                result = partial(self._of_object, writing, [group])
                # Nothing of one group is held while the next is read: two would exceed the limit.
                del group
                writing.write(flow, task.out, result)
                del result

    def _of_object(self, writing: _Writing, group: list[Array], stored: ChunkTask) -> Array:
        seen = group[0][self._around(stored.out)]

        def one(place: tuple[slice, ...]) -> Array:
            return self._result(seen[self._around(place)].copy())

        return writing.by_chunk(stored, one)

    def _around(self, box: Sequence[slice]) -> tuple[slice, ...]:
        """Return the place of a box with its halo, in what was read with its halo."""
        return tuple(
            slice(s.start or 0, s.stop + 2 * h) for s, h in zip(box, self.halo, strict=True)
        )

    def _result(self, block: Array) -> Array:
        inner = tuple(slice(h, n - h) for h, n in zip(self.halo, block.shape, strict=True))
        result = result_of(self.func, block, block.shape)[inner]
        return _fitted(self.func, result, self.target.metadata.dtype, self.dtype_given)

    def extended(self, place: Sequence[slice], memory: Memory | None = None) -> Array:
        """Read a box of the array with its halo; `mode` fills what lies outside the array."""
        if not any(self.halo):
            return read_box(self.source, tuple(place), memory)
        meta = self.source.metadata
        extent = [s.stop - s.start + 2 * h for s, h in zip(place, self.halo, strict=True)]
        block = (memory or Memory(1)).take(extent, meta.dtype)
        if self.mode == "constant":
            block[...] = self.cval
        corner = [s.start - h for s, h in zip(place, self.halo, strict=True)]
        known = tuple(
            slice(max(0, s.start - h), min(n, s.stop + h))
            for s, h, n in zip(place, self.halo, meta.shape, strict=True)
        )
        self._read(known, _moved(block, known, corner))
        for piece in pieces(place, self.halo, meta.shape, self.mode):
            # The ellipsis keeps an array of no axes an array.
            out: Any = (*piece.out, ...)
            flip: Any = (*piece.flip, ...)
            where = block[out][flip]
            inside = zip(piece.source, known, strict=True)
            if all(k.start <= s.start and s.stop <= k.stop for s, k in inside):
                where[...] = _moved(block, piece.source, corner)
            else:
                self._read(piece.source, where)
        return block

    def _read(self, box: tuple[slice, ...], where: Array) -> None:
        meta = self.source.metadata
        self.source.read_many(where, plan(select(box, meta.shape), self.source.grain))


def _moved(block: Array, box: tuple[slice, ...], corner: Sequence[int]) -> Array:
    """Return the part of a block beginning at `corner` that holds a box of the array."""
    place: list[Any] = [slice(s.start - c, s.stop - c) for s, c in zip(box, corner, strict=True)]
    # The ellipsis keeps an array of no axes an array.
    part: Array = block[*place, ...]
    return part


def halo_group(dataset: BackendDataset, halo: Shape, limit: int, at_least: int) -> Shape:
    """Choose how many elements of each axis to read together, in whole stored objects.

    `dataset` is the one that is written. The group grows axis by axis while that saves reading,
    while it stays within `limit` bytes with its halo, and while `at_least` groups remain to share
    out. The groups are then made of equal size.
    """
    meta, grain = dataset.metadata, dataset.grain
    group = list(grain)

    itemsize = element_bytes(meta.dtype)
    while True:
        open_axes = [
            axis for axis in range(meta.ndim) if halo[axis] and group[axis] < meta.shape[axis]
        ]
        if not open_axes:
            break
        # The axis with the largest share of halo in what is read.
        axis = max(open_axes, key=lambda a: halo[a] / group[a])
        before = group[axis]
        group[axis] += grain[axis]
        too_large = bytes_of(group, itemsize, halo) > limit
        if too_large or count_of(meta.shape, group) < at_least:
            group[axis] = before
            break
    for axis, (g, n, c) in enumerate(zip(group, meta.shape, grain, strict=True)):
        if n:
            groups, chunks = -(-n // g), -(-n // c)
            group[axis] = -(-chunks // groups) * c
    return tuple(group)
