"""The work that load, map, apply and the like hand to a runner: one class each.

Each is called with tasks of a plan over every chunk, in whatever thread, process or rank the
runner chose, and so holds only what travels: backend datasets and the user's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np

from dosna.backends.base import Array, BackendDataset, ChunkState
from dosna.casting import check_values
from dosna.engines.halo import pieces
from dosna.errors import MemoryLimitError
from dosna.metadata import Shape, same_fill
from dosna.plan import ChunkTask, every_chunk, plan
from dosna.selection import select
from dosna.text import element_bytes, elements, is_text
from dosna.util.sizes import parse_size

Func = Callable[[Any], Any]

# Chunks are grouped for a halo, so that a neighbour is read once for the group and not once
# for each chunk beside it; and for a source whose chunks lie across them.
BLOCK_BYTES = 32 << 20


def read_box(dataset: BackendDataset, box: tuple[slice, ...]) -> Array:
    """Read a box of the array, in this thread."""
    selection = select(box, dataset.metadata.shape)
    result, canonical = selection.allocate(dataset.metadata.dtype)
    dataset.read_many(canonical, plan(selection, dataset.grain))
    return result


def read_object(dataset: BackendDataset, task: ChunkTask) -> Array:
    """Read all of a stored object, by a task of a plan over every one."""
    block = np.empty(extent_of(task.out), dataset.metadata.dtype)
    dataset.read_many(block, [task._replace(out=(...,))])
    return block


def write_object(dataset: BackendDataset, task: ChunkTask, values: Array) -> None:
    """Write all of a stored object, by a task of a plan over every one."""
    dataset.write_many(values, [task._replace(out=(...,))])


def by_chunk(
    extent: Shape,
    chunk_size: Shape,
    dtype: np.dtype[Any],
    make: Callable[[tuple[slice, ...]], Array],
) -> Array:
    """Put together what `make` gives for the place of each chunk in a stored object."""
    if all(n <= c for n, c in zip(extent, chunk_size, strict=True)):
        return make(tuple(map(slice, extent)))
    whole = np.empty(extent, dtype)
    for part in every_chunk(extent, chunk_size):
        whole[part.out] = make(part.out)
    return whole


def _read_place(dataset: BackendDataset, task: ChunkTask) -> Array:
    return read_box(dataset, task.out)


def extent_of(box: Sequence[slice]) -> Shape:
    """Give the shape of a box."""
    return tuple(s.stop - s.start for s in box)


def objects_of(box: Sequence[slice], grain: Shape) -> list[ChunkTask]:
    """Plan the stored objects in a box that begins with one; `out` is their place in the box."""
    first = [s.start // g for s, g in zip(box, grain, strict=True)]
    return [
        task._replace(idx=tuple(f + i for f, i in zip(first, task.idx, strict=True)))
        for task in every_chunk(extent_of(box), grain)
    ]


def box_of(idx: Sequence[int], shape: Shape, block: Shape) -> ChunkTask:
    """Plan one block of an array, as `every_chunk` does each."""
    box = tuple(
        slice(i * b, min(n, (i + 1) * b)) for i, n, b in zip(idx, shape, block, strict=True)
    )
    return ChunkTask(tuple(idx), tuple(slice(0, s.stop - s.start) for s in box), box, True)


@dataclass
class Load:
    """Write boxes of stored objects from a source that has shape, dtype and slicing.

    Where only some of the source is stored (`sparse`), objects of fill values are left out.
    """

    target: BackendDataset
    source: Any
    checked: bool = False
    """Whether it is an error if values do not fit the target's dtype."""
    sparse: bool = False

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        target = self.target
        dtype = target.metadata.dtype
        memory: Array | None = None
        for task in tasks:
            box = task.out
            if memory is None and hasattr(self.source, "read_into"):
                memory = np.empty(prod(extent_of(box)), self.source.dtype)
            block = self._read(box, memory)
            if self.checked:
                block = check_values(block, dtype, "data to load")
            block = elements(block, dtype)
            objects = objects_of(box, target.grain)
            if self.sparse:
                fill = np.asarray(target.metadata.fillvalue, dtype)
                objects = [part for part in objects if not _is_fill(block[part.out], fill)]
            target.write_many(block, objects)

    def _read(self, box: tuple[slice, ...], memory: Array | None) -> Array:
        # Memory that was used before costs less than fresh memory, by half.
        extent = extent_of(box)
        if memory is None or memory.size < prod(extent):
            return read_source(self.source, box)
        block = memory[: prod(extent)].reshape(extent)
        self.source.read_into(box, block)
        return block


def _is_fill(values: Array, fill: Array) -> bool:
    """Return whether all values are a fill value, bit by bit, once they have its dtype."""
    if not same_fill(values[(0,) * values.ndim], fill):
        return False
    if fill.dtype.kind == "T":
        return bool((values == fill).all())
    cast = np.ascontiguousarray(values, fill.dtype).reshape(-1).view(f"V{fill.dtype.itemsize}")
    return bool((cast == np.frombuffer(fill.tobytes(), cast.dtype)[0]).all())


def plain(data: Any) -> Array:
    """Give what is in memory as an array; TypeError for a mask, which would be lost."""
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise TypeError("a dataset has no mask: fill the array first, data.filled(value)")
    return np.asarray(data)


def read_source(source: Any, box: tuple[slice, ...]) -> Array:
    """Read a box of a source, and notice one that gives another shape than it promised."""
    if isinstance(source, BackendDataset):
        return read_box(source, box)
    block = np.asarray(source[box])
    extent = extent_of(box)
    if block.shape != extent:
        raise ValueError(
            f"{type(source).__name__} of shape {tuple(source.shape)} gave a block of shape "
            f"{block.shape} for {box}, which has {extent}"
        )
    return block


def result_of(func: Func, block: Array, extent: Shape) -> Array:
    """Call a user's function on a block, and refuse a result of another shape."""
    result = np.asarray(func(block))
    if result.shape != extent:
        raise ValueError(
            f"{name_of(func)} gave shape {result.shape} for a block of shape {extent}: "
            "a function over chunks keeps their shape (reduce makes one number of them)"
        )
    return result


def check_cast(func: Func, result: Array, dtype: np.dtype[Any], advice: str) -> Array:
    """Give a function's result back, or raise TypeError if `dtype` would cut it down."""
    if is_text(dtype):
        return elements(result, dtype)  # type: ignore[no-any-return]
    longer = result.dtype.kind in "SU" and result.dtype.itemsize > dtype.itemsize
    longer = longer or is_text(result.dtype)
    if longer or not np.can_cast(result.dtype, dtype, "same_kind"):
        raise TypeError(
            f"{name_of(func)} gave {result.dtype}, which {dtype} would cut down: {advice}"
        )
    return result


def name_of(func: Func) -> str:
    """How error messages call a user's function."""
    return getattr(func, "__qualname__", None) or repr(func)


def check_first(func: Func, result: Array, dtype: np.dtype[Any]) -> Array:
    """As `check_cast`, for a dtype that the first chunk's result has settled."""
    advice = f"the first chunk's result was {dtype}; say with dtype= what the output shall be"
    return check_cast(func, result, dtype, advice)


@dataclass
class Map:
    """Write what a function makes of each chunk to another dataset."""

    source: BackendDataset
    target: BackendDataset
    func: Func
    dtype_given: bool

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        meta = self.target.metadata
        read = read_object if self.source.grain == self.target.grain else _read_place
        for task in tasks:
            block = read(self.source, task)

            def one(place: tuple[slice, ...], block: Array = block) -> Array:
                # The ellipsis keeps an array of no axes an array.
                inside: Any = (*place, ...)
                seen = block[inside]
                result = result_of(self.func, seen, seen.shape)
                if self.dtype_given:
                    return elements(result, meta.dtype)  # type: ignore[no-any-return]
                return check_first(self.func, result, meta.dtype)

            whole = by_chunk(block.shape, meta.chunk_size, meta.dtype, one)
            write_object(self.target, task, whole)


@dataclass
class Apply:
    """Replace each chunk by what a function makes of it."""

    dataset: BackendDataset
    func: Func

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        meta = self.dataset.metadata
        for task in tasks:
            block = read_object(self.dataset, task)

            def one(place: tuple[slice, ...], block: Array = block) -> Array:
                inside: Any = (*place, ...)
                return self._result(block[inside])

            whole = by_chunk(block.shape, meta.chunk_size, meta.dtype, one)
            write_object(self.dataset, task, whole)

    def _result(self, block: Array) -> Array:
        result = result_of(self.func, block, block.shape)
        advice = "use map, whose output takes the dtype of the result"
        return check_cast(self.func, result, self.dataset.metadata.dtype, advice)


@dataclass
class HaloMap:
    """Like `Map`, where the function sees past the edge of each chunk.

    Its tasks are those of a plan over groups of chunks, see `halo_group`.
    """

    source: BackendDataset
    target: BackendDataset
    func: Func
    halo: Shape
    mode: str
    cval: Any
    dtype_given: bool

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        for task in tasks:
            # Nothing of it is left while the next one is read: two would break a memory limit.
            self._one(task.out)

    def _one(self, box: Sequence[slice]) -> None:
        meta, grain = self.target.metadata, self.target.grain
        group = self.extended(box)
        for stored in objects_of(box, grain):
            seen = group[self._around(stored.out)]

            def one(place: tuple[slice, ...], seen: Array = seen) -> Array:
                return self._result(seen[self._around(place)].copy())

            whole = by_chunk(extent_of(stored.out), meta.chunk_size, meta.dtype, one)
            write_object(self.target, stored, whole)

    def _around(self, box: Sequence[slice]) -> tuple[slice, ...]:
        """Give the place of a box with its halo, in what was read with its halo."""
        return tuple(
            slice(s.start or 0, s.stop + 2 * h) for s, h in zip(box, self.halo, strict=True)
        )

    def _result(self, block: Array) -> Array:
        inner = tuple(slice(h, n - h) for h, n in zip(self.halo, block.shape, strict=True))
        result = result_of(self.func, block, block.shape)[inner]
        dtype = self.target.metadata.dtype
        if self.dtype_given:
            return elements(result, dtype)  # type: ignore[no-any-return]
        return check_first(self.func, result, dtype)

    def extended(self, place: Sequence[slice]) -> Array:
        """Read a box of the array with its halo, whose far side the mode makes up."""
        meta = self.source.metadata
        extent = [s.stop - s.start + 2 * h for s, h in zip(place, self.halo, strict=True)]
        if self.mode == "constant":
            block = np.empty(extent, meta.dtype)
            block[...] = self.cval
        else:
            block = np.empty(extent, meta.dtype)
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
    """Give the part of a block that begins at `corner` where a box of the array lies."""
    place: list[Any] = [slice(s.start - c, s.stop - c) for s, c in zip(box, corner, strict=True)]
    # The ellipsis keeps an array of no axes an array.
    part: Array = block[*place, ...]
    return part


def halo_group(dataset: BackendDataset, halo: Shape, limit: int, at_least: int) -> Shape:
    """Choose how many elements of each axis to read together, in whole stored objects.

    `dataset` is the one that is written. Grown axis by axis while it saves reading and stays
    within `limit` bytes with its halo, and while there stay `at_least` groups to share out;
    these are then made of equal size.
    """
    meta, grain = dataset.metadata, dataset.grain
    group = list(grain)

    def nbytes() -> int:
        size = element_bytes(meta.dtype)
        for g, h in zip(group, halo, strict=True):
            size *= g + 2 * h
        return size

    def count() -> int:
        total = 1
        for g, n in zip(group, meta.shape, strict=True):
            total *= -(-n // g)
        return total

    while True:
        open_axes = [
            axis for axis in range(meta.ndim) if halo[axis] and group[axis] < meta.shape[axis]
        ]
        if not open_axes:
            break
        # The axis on which most of what is read is halo.
        axis = max(open_axes, key=lambda a: halo[a] / group[a])
        before = group[axis]
        group[axis] += grain[axis]
        if nbytes() > limit or count() < at_least:
            group[axis] = before
            break
    for axis, (g, n, c) in enumerate(zip(group, meta.shape, grain, strict=True)):
        if n:
            groups, chunks = -(-n // g), -(-n // c)
            group[axis] = -(-chunks // groups) * c
    return tuple(group)


def load_block(target: BackendDataset, chunks: Shape | None, limit: int, at_least: int) -> Shape:
    """Choose how many elements of each axis to load together, in whole stored objects.

    Grown until each chunk of the source is read once, as far as that stays within `limit` bytes
    of the target's elements and leaves `at_least` blocks to share out.
    """
    meta, grain = target.metadata, target.grain
    block = list(grain)
    if chunks is None:
        return grain

    def excess(axis: int) -> float:
        """How many elements of the source are read for one that is written."""
        size, chunk = block[axis], min(chunks[axis], meta.shape[axis])
        return 1.0 if size >= meta.shape[axis] else (size + chunk - gcd(size, chunk)) / size

    def count() -> int:
        return prod(-(-n // b) for n, b in zip(meta.shape, block, strict=True))

    axes = {axis for axis in range(meta.ndim) if excess(axis) > 1}
    while axes:
        axis = max(axes, key=excess)
        before = block[axis]
        most = -(-meta.shape[axis] // grain[axis]) * grain[axis]
        # By doubling, and by less where that would be too much.
        for grown in (2 * before, before + grain[axis]):
            block[axis] = min(grown, most)
            fits = prod(block) * element_bytes(meta.dtype) <= limit and count() >= at_least
            if fits:
                break
            block[axis] = before
        if block[axis] == before or excess(axis) == 1:
            axes.discard(axis)
    return tuple(block)


@dataclass
class Reduce:
    """Reduce each chunk to one value; gives ``(chunk index, value)`` pairs."""

    dataset: BackendDataset
    ufunc: np.ufunc
    dtype: np.dtype[Any] | None

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, Any]]:
        reduce, chunk_size = self.ufunc.reduce, self.dataset.metadata.chunk_size
        found = []
        for task in tasks:
            block = read_object(self.dataset, task)
            for idx, place in _chunks_of(task, block.shape, chunk_size):
                found.append((idx, reduce(block[place], axis=None, dtype=self.dtype)))
        return found


@dataclass
class Clear:
    """Delete stored objects; its tasks are their indices."""

    dataset: BackendDataset

    def __call__(self, tasks: Iterable[Shape]) -> None:
        self.dataset.del_objects(tasks)


@dataclass
class Verify:
    """Look at each chunk; gives ``(chunk index, state)`` pairs."""

    dataset: BackendDataset

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, ChunkState]]:
        chunk_size, verify = self.dataset.metadata.chunk_size, self.dataset.verify_chunk
        return [
            (idx, verify(idx))
            for task in tasks
            for idx, _ in _chunks_of(task, extent_of(task.out), chunk_size)
        ]


def _chunks_of(
    task: ChunkTask, extent: Shape, chunk_size: Shape
) -> Iterable[tuple[Shape, tuple[Any, ...]]]:
    """Give the chunks of a stored object: index in the array, place in the object."""
    first = [s.start // c for s, c in zip(task.out, chunk_size, strict=True)]
    if all(n <= c for n, c in zip(extent, chunk_size, strict=True)):
        yield tuple(first), (...,)
        return
    for part in every_chunk(extent, chunk_size):
        yield tuple(f + i for f, i in zip(first, part.idx, strict=True)), part.out


def workers_within(limit: int | str | None, task_bytes: int, what: str) -> int | None:
    """How many tasks at the same time stay within a memory limit; None without one.

    Raises
    ------
    MemoryLimitError
        Not even one.
    """
    if limit is None:
        return None
    size = parse_size(limit)
    if task_bytes > size:
        raise MemoryLimitError(
            f"{what} holds {task_bytes} bytes for one chunk, and memory_limit is {size}: "
            "raise the limit, or use smaller chunks"
        )
    return max(1, size // max(1, task_bytes))


@dataclass
class Compare:
    """Compare chunks with what should be equal to them, of the same shape.

    Gives ``(chunk index, how many elements differ, index of the first)`` for those that do.
    """

    dataset: BackendDataset
    other: Any
    exact: bool = False

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, int, Shape]]:
        chunk_size = self.dataset.metadata.chunk_size
        found = []
        for task in tasks:
            block = read_box(self.dataset, task.out)
            other = read_source(self.other, task.out)
            for idx, place in _chunks_of(task, block.shape, chunk_size):
                differ = (other_bytes if self.exact else unequal)(block[place], other[place])
                count = int(np.count_nonzero(differ))
                if count:
                    at = np.unravel_index(int(np.argmax(differ)), differ.shape)
                    start = (i * c for i, c in zip(idx, chunk_size, strict=True))
                    first = tuple(int(s + a) for s, a in zip(start, at, strict=True))
                    found.append((idx, count, first))
        return found


def unequal(one: Array, other: Array) -> Array:
    """Say of each element whether it differs; NaN and NaT are equal to themselves."""
    if one.dtype.names is not None:
        if one.dtype.names != other.dtype.names:
            raise TypeError(f"cannot compare {one.dtype} with {other.dtype}: fields differ")
        differ = np.zeros(one.shape, bool)
        for name in one.dtype.names:
            within = unequal(one[name], other[name])
            differ |= within.any(axis=tuple(range(one.ndim, within.ndim)))
        return differ
    if one.dtype.kind == other.dtype.kind == "V":
        return np.asarray(one != other)
    # The operator would call a text and a number different; the function refuses them.
    differ = np.asarray(np.not_equal(one, other))
    if {one.dtype.kind, other.dtype.kind} in ({"i", "f"}, {"u", "f"}):
        # NumPy compares them as floats, to which large integers are rounded.
        integers, floats = (one, other) if other.dtype.kind == "f" else (other, one)
        limits = np.iinfo(integers.dtype)
        inside = (floats >= float(limits.min)) & (floats < float(limits.max) + 1)
        differ |= ~inside | (np.where(inside, floats, 0).astype(integers.dtype) != integers)
    if one.dtype.kind in "fcmM" and differ.any():
        differ &= ~((one != one) & (other != other))
    return differ


def other_bytes(one: Array, other: Array) -> Array:
    """Say of each element of two arrays of one dtype whether any byte of its value differs."""
    if one.dtype.names is not None:
        # Field by field, for what lies between them is no value.
        differ = np.zeros(one.shape, bool)
        for name in one.dtype.names:
            within = other_bytes(one[name], other[name])
            differ |= within.any(axis=tuple(range(one.ndim, within.ndim)))
        return differ
    if is_text(one.dtype):
        return np.asarray(one != other)
    size = one.dtype.itemsize
    bytes_of = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (one, other)]
    unlike = bytes_of[0] != bytes_of[1]
    return np.asarray(unlike.reshape(*one.shape, size).any(axis=-1))
