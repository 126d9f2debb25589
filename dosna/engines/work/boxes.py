"""Parts of arrays that are read, written and held at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from math import prod
from sys import getrefcount
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk, plan
from dosna.core.selection import select
from dosna.core.sizes import parse_size
from dosna.core.types import Array, Shape
from dosna.core.values import is_masked
from dosna.errors import MemoryLimitError

__all__ = [
    "BLOCK_BYTES",
    "BoxReader",
    "Memory",
    "Placed",
    "Window",
    "box_of",
    "by_chunk",
    "bytes_of",
    "chunks_of",
    "count_of",
    "extent_of",
    "is_remote",
    "objects_of",
    "plain",
    "read_box",
    "read_source",
    "window",
    "workers_within",
]


WINDOW_BYTES = 48 << 20
"""Most bytes that are held for a box of many stored objects of a remote dataset.

Larger ones gain nothing, and malloc takes the memory of arrays above 32 MiB fresh each time.
"""

_ROOM = 128 << 20
"""Bytes of which two smallest boxes may take half each, unless a limit is given."""

WINDOW_OBJECTS = 32
"""Most stored objects in such a box: twice the requests that stores have under way."""

_FEW_OBJECTS = 8  # as two boxes are read, and two written, at a time

# Chunks are grouped for a halo, so that a neighbour is read once for the group and not once
# for each chunk beside it; and for a source whose chunks lie across the dataset's.
BLOCK_BYTES = 32 << 20


_fresh = [np.empty(0)]
_ALONE = getrefcount(_fresh[0])  # the references to what only a list holds


class Memory:
    """Memory for boxes, which is used again once nothing refers to it any more.

    To use memory again costs half of what fresh memory does. Several threads may take some.

    Parameters
    ----------
    held : int
        The most boxes that are kept for that.
    """

    def __init__(self, held: int) -> None:
        self._held = held
        self._boxes: list[Array] = []
        self._lock = threading.Lock()

    def take(self, extent: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Return an array of any content."""
        size = prod(extent)
        with self._lock:
            boxes = self._boxes
            at = [n for n in range(len(boxes)) if getrefcount(boxes[n]) == _ALONE]
            box = boxes.pop(at[0]) if at else None
            if box is None or box.size < size or box.dtype != dtype:
                box = np.empty(size, dtype)
            boxes.append(box)
            del boxes[: -self._held]
            return box[:size].reshape(extent)

    def own(self, held: list[Array], dtype: np.dtype[Any]) -> Array:
        """Return an array that nothing else changes: the given one, or a copy.

        Parameters
        ----------
        held : list
            A list of the array, which is emptied.
        dtype : dtype
            The dtype of the result.
        """
        alone = getrefcount(held[0]) == _ALONE
        array = held.pop()
        if alone and type(array) is np.ndarray and array.flags.owndata and array.dtype == dtype:
            return array
        copy = self.take(array.shape, dtype)
        copy[...] = array
        return copy


def read_box(
    dataset: BackendDataset, box: tuple[slice, ...], memory: Memory | None = None
) -> Array:
    """Read a box of the array, in this thread, into memory if some is given."""
    one, meta = _object_at(box, dataset.grain), dataset.metadata
    if one is not None or memory is not None:
        extent = extent_of(box)
        result = (
            np.empty(extent, meta.dtype) if memory is None else memory.take(extent, meta.dtype)
        )
        tasks = [one] if one is not None else plan(select(box, meta.shape), dataset.grain)
        dataset.read_many(result, tasks)
        return result
    selection = select(box, meta.shape)
    result, canonical = selection.allocate(meta.dtype)
    dataset.read_many(canonical, plan(selection, dataset.grain))
    return result


class BoxReader:
    """A reader of boxes of a dataset.

    Parameters
    ----------
    dataset : BackendDataset
        The dataset.
    held : int
        The number of boxes that are held at a time, whose memory is used again; 0 to take fresh
        memory.
    """

    def __init__(self, dataset: BackendDataset, held: int) -> None:
        self._dataset = dataset
        self._memory = Memory(held) if held else None

    def __call__(self, task: ChunkTask) -> Array:
        return read_box(self._dataset, task.out, self._memory)


def by_chunk(
    extent: Shape,
    chunk_size: Shape,
    dtype: np.dtype[Any],
    make: Callable[[tuple[slice, ...]], Array],
    memory: Memory | None = None,
) -> Array:
    """Assemble the results of `make` for the place of each chunk in a stored object.

    With `memory`, nothing else changes the result. Otherwise it may be in memory that `make` uses
    again.
    """
    if all(n <= c for n, c in zip(extent, chunk_size, strict=True)):
        place = tuple(map(slice, extent))
        return make(place) if memory is None else memory.own([make(place)], dtype)
    whole = np.empty(extent, dtype) if memory is None else memory.take(extent, dtype)
    for part in every_chunk(extent, chunk_size):
        whole[part.out] = make(part.out)
    return whole


def extent_of(box: Sequence[slice]) -> Shape:
    """Return the shape of a box."""
    return tuple([s.stop - s.start for s in box])


def bytes_of(extent: Sequence[int], itemsize: int, halo: Shape | None = None) -> int:
    """Return the bytes of a box of elements, with a halo on both sides of each axis."""
    for n, h in zip(extent, halo or (0,) * len(extent), strict=True):
        itemsize *= n + 2 * h
    return itemsize


def count_of(shape: Sequence[int], block: Sequence[int]) -> int:
    """Return the number of blocks that an array is cut into."""
    return prod([-(-n // b) for n, b in zip(shape, block, strict=True)])


def objects_of(box: Sequence[slice], grain: Shape) -> list[ChunkTask]:
    """Plan the stored objects in a box that begins with one; `out` is their place in the box."""
    one = _object_at(box, grain)
    if one is not None:
        return [one]
    first = [s.start // g for s, g in zip(box, grain, strict=True)]
    return [
        task._replace(idx=tuple(f + i for f, i in zip(first, task.idx, strict=True)))
        for task in every_chunk(extent_of(box), grain)
    ]


def _object_at(box: Sequence[slice], grain: Shape) -> ChunkTask | None:
    """Plan a box that begins with a stored object and does not go beyond; None for others."""
    idx = []
    inside = []
    for s, g in zip(box, grain, strict=True):
        i, rest = divmod(s.start, g)
        size = s.stop - s.start
        if rest or size > g:
            return None
        idx.append(i)
        inside.append(slice(0, size))
    place = tuple(inside)
    # The ellipsis keeps an array of no axes an array.
    return ChunkTask(tuple(idx), place, place or (...,), True)


class Placed:
    """Work whose tasks are best done on the hosts that keep a dataset's stored objects."""

    near: ClassVar[str] = "dataset"
    """The attribute that holds the dataset."""

    def locations(self, task: ChunkTask) -> tuple[str, ...]:
        """Return the hosts of the first stored object in a task's box, the best first."""
        dataset: BackendDataset = getattr(self, self.near)
        first = zip(task.out, dataset.grain, strict=True)
        return dataset.locations(tuple([s.start // g for s, g in first]))


def box_of(idx: Sequence[int], shape: Shape, block: Shape) -> ChunkTask:
    """Plan one block of an array, as `every_chunk` plans each block."""
    box = tuple(
        slice(i * b, min(n, (i + 1) * b)) for i, n, b in zip(idx, shape, block, strict=True)
    )
    return ChunkTask(tuple(idx), tuple(slice(0, s.stop - s.start) for s in box), box, True)


class Window(NamedTuple):
    """The extent of boxes to work on, and whether others may be read or written meanwhile."""

    extent: Shape
    overlaps: bool


def window(
    shape: Shape, block: Shape, block_bytes: int, limit: int | None, workers: int
) -> Window:
    """Choose how many elements of each axis to work on together where requests take long.

    One request after the other would leave a remote store idle: a box of many stored objects is
    read by one batch of requests, and written by another. While one box is worked on, others are
    read ahead and written behind, if two smallest boxes are within the limit.

    Parameters
    ----------
    shape : tuple of int
        The extent of the array.
    block : tuple of int
        The extent of the smallest box, in whole stored objects.
    block_bytes : int
        The bytes that the work holds for the smallest box.
    limit : int, optional
        The most bytes to hold for a box.
    workers : int
        The number of workers, all of which should find work.

    Returns
    -------
    Window
        The extent of a box, of whole smallest ones.
    """
    grid = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    room, block_bytes = _ROOM if limit is None else limit, max(1, block_bytes)
    # One worker needs some boxes too, so that reading and writing overlap, but no small ones.
    count = prod(grid)
    boxes = 4 * workers if workers > 1 else max(1, min(4, count // _FEW_OBJECTS))
    most = min(min(room, WINDOW_BYTES) // block_bytes, WINDOW_OBJECTS, count // boxes)
    extent = list(block)
    # From the last axis on, because neighbours there are neighbours in memory.
    for axis in reversed(range(len(grid))):
        if most < 2 or not grid[axis]:
            break
        parts = -(-grid[axis] // most)
        together = -(-grid[axis] // parts)
        extent[axis] *= together
        if parts > 1:
            break
        most //= together
    return Window(tuple(extent), room // block_bytes > 1)


def plain(data: Any) -> Array:
    """Return data in memory as an array; raise TypeError for a mask, which would be lost."""
    if is_masked(data):
        raise TypeError(
            "cannot use a masked array: a dataset has no mask. Use its method filled(value)"
        )
    return np.asarray(data)


def is_remote(source: Any) -> bool:
    """Return True for a dataset whose requests take long, which any thread may read."""
    return isinstance(source, BackendDataset) and source.remote


def read_source(source: Any, box: tuple[slice, ...]) -> Array:
    """Read a box of a source, and raise an error if the result has another shape than promised.

    Raises
    ------
    ValueError
        The source returned a block of another shape.
    TypeError
        It returned one with a mask.
    """
    if isinstance(source, BackendDataset):
        return read_box(source, box)
    block = plain(source[box])
    dtype = np.dtype(source.dtype)
    if not box and block.dtype.kind == dtype.kind:
        block = block.astype(dtype)  # A scalar has lost its byte order, and text its length.
    extent = extent_of(box)
    if block.shape != extent:
        raise ValueError(
            f"cannot read {box} of {type(source).__name__} of shape {tuple(source.shape)}: it "
            f"returned a block of shape {block.shape}, not {extent}"
        )
    return block


def chunks_of(
    task: ChunkTask, extent: Shape, chunk_size: Shape
) -> Iterable[tuple[Shape, tuple[Any, ...]]]:
    """Yield the chunks of a stored object: the index in the array, the place in the object."""
    first = [s.start // c for s, c in zip(task.out, chunk_size, strict=True)]
    if all(n <= c for n, c in zip(extent, chunk_size, strict=True)):
        yield tuple(first), (...,)
        return
    for part in every_chunk(extent, chunk_size):
        yield tuple(f + i for f, i in zip(first, part.idx, strict=True)), part.out


def workers_within(limit: int | str | None, task_bytes: int, what: str) -> int | None:
    """Return how many tasks at the same time stay within a memory limit; None without a limit.

    Parameters
    ----------
    limit : int or str, optional
        The most bytes, as a number or a text such as '512M'.
    task_bytes : int
        The bytes that one task holds.
    what : str
        The name of the work, for the error.

    Raises
    ------
    MemoryLimitError
        The limit is below what one task needs.
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
