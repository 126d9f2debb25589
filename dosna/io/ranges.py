"""Parts of stored chunks: their byte ranges, and reading them into memory."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Shape, Slices

__all__ = [
    "METADATA_LOCK",
    "PIECE",
    "SMALL",
    "as_arrays",
    "byte_range",
    "byte_ranges",
    "byte_runs",
    "is_spread",
    "lock_place",
    "read_fully",
    "within",
]

PIECE = 16 << 10
"""The bytes that can be read from a file in the time that one more read call takes."""


SMALL = 2 * PIECE
"""Chunks of up to this many bytes are read whole."""

METADATA_LOCK = 1 << 62
"""The position of the lock on a dataset's metadata. Stored objects have positions below it."""


def lock_place(idx: Shape) -> int:
    """Return the position of a stored object's lock. It is harmless if two objects share one."""
    place = 0
    for i in idx:
        place = place * 0x9E3779B97F4A7C15 + i + 1
    return place & (METADATA_LOCK - 1)


def as_arrays(tasks: Iterable[ChunkTask]) -> list[ChunkTask]:
    """Return the tasks of an array without axes, changed to take its element as an array."""
    return [task._replace(out=(...,)) for task in tasks]


def _hull(k: Any, length: int) -> tuple[int, int] | None:
    """Return the first and the last place that an index touches on an axis."""
    if isinstance(k, slice):
        start, stop, step = k.indices(length)
        if step == 1:
            return (start, stop - 1) if start < stop else None
        chosen = range(start, stop, step)
        return (chosen[0], chosen[-1]) if chosen else None
    if isinstance(k, int):
        return k, k
    return (int(k.min()), int(k.max())) if len(k) else None


def within(key: Slices, size: Shape, extent: Shape) -> bool:
    """Return True if an index of a chunk of `size` touches nothing beyond `extent`."""
    hulls = [_hull(k, c) for k, c in zip(key, size, strict=True)]
    return all(hull is None or hull[1] < e for hull, e in zip(hulls, extent, strict=True))


def byte_range(metadata: DatasetMetadata, key: Slices) -> tuple[int, int]:
    """Return the range of a chunk's bytes that holds the part `key`."""
    ranges = byte_ranges(metadata, key, 1 << 62)
    return ranges[0] if ranges else (0, 0)


def byte_ranges(metadata: DatasetMetadata, key: Slices, cost: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a chunk that hold the part `key`.

    `cost` is the number of bytes that an additional range has to save, so that the ranges are few
    rather than small.
    """
    bounds: list[tuple[int, int]] = []
    for k, c in zip(key, metadata.chunk_size, strict=True):
        hull = _hull(k, c)
        if hull is None:
            return []
        bounds.append(hull)
    first, stride = 0, metadata.dtype.itemsize
    last = step = stride
    for (begin, end), c in zip(reversed(bounds), reversed(metadata.chunk_size), strict=True):
        first += begin * stride
        last += end * stride
        step, stride = stride, stride * c
    if not bounds:
        return [(first, last)]
    begin, end = bounds[0]
    inner = last - (end - begin) * step - first
    if (end - begin + 1) * (cost + inner) < last - first:
        places = range(first, first + (end - begin + 1) * step, step)
        return [(place, place + inner) for place in places]
    return [(first, last)]


def byte_runs(metadata: DatasetMetadata, key: Slices, most: int) -> list[tuple[int, int]] | None:
    """Return the byte ranges of a chunk with exactly the part `key`, in the order of the part.

    None is returned if there are more than `most` ranges, or if the part does not consist of
    slices of step 1 and integers.
    """
    box = []
    for k in key:
        if isinstance(k, slice) and k.step in (None, 1):
            box.append((k.start or 0, k.stop))
        elif isinstance(k, int):
            box.append((k, k + 1))
        else:
            return None
    counts = [stop - start for start, stop in box]
    if min(counts, default=1) <= 0:
        return []
    strides = [metadata.dtype.itemsize]
    for c in metadata.chunk_size[::-1]:
        strides.append(strides[-1] * c)
    strides = strides[-2::-1]  # of each axis
    split = metadata.ndim  # the axes from here on belong to one run
    while split and counts[split:] == list(metadata.chunk_size[split:]):
        split -= 1
    if math.prod(counts[:split]) > most:
        return None
    length = counts[split] * strides[split] if counts else metadata.dtype.itemsize
    first = sum(start * s for (start, _), s in zip(box, strides, strict=True))
    steps = itertools.product(
        *(range(0, n * s, s) for n, s in zip(counts[:split], strides[:split], strict=True))
    )
    return [(first + sum(step), first + sum(step) + length) for step in steps]


def is_spread(key: Slices, size: Shape) -> bool:
    """Return True if elements of a chunk of one axis are surely at least half of it apart.

    Only the first and the last index are looked at. Reading all of the chunk takes less time than
    finding the range of bytes that has them.
    """
    if len(size) != 1 or not isinstance(key[0], np.ndarray) or len(key[0]) < 2:
        return False
    return 2 * abs(int(key[0][-1]) - int(key[0][0])) >= size[0]


def read_fully(file: int, parts: list[memoryview], offset: int) -> bool:
    """Fill all parts, none of them empty, from a file. Return False if the file ends before."""
    while parts:
        count = os.preadv(file, parts, offset)
        if not count:
            return False
        offset += count
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][count:]
    return True
