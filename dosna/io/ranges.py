"""Parts of stored chunks: which bytes they are, and memory to read them into."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from typing import Any

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
    "lock_place",
    "read_fully",
    "within",
]

PIECE = 16 << 10
"""Bytes that a file gives in the time that one more read of it takes."""


SMALL = 2 * PIECE
"""Chunks of up to so many bytes are read whole."""

METADATA_LOCK = 1 << 62
"""Position of the lock on a dataset's metadata; stored objects have the places below."""


def lock_place(idx: Shape) -> int:
    """Return the position of a stored object's lock; that two share one does no harm."""
    place = 0
    for i in idx:
        place = place * 0x9E3779B97F4A7C15 + i + 1
    return place & (METADATA_LOCK - 1)


def as_arrays(tasks: Iterable[ChunkTask]) -> list[ChunkTask]:
    """Return the tasks of an array without axes so that its element is taken as an array."""
    return [task._replace(out=(...,)) for task in tasks]


def _hull(k: Any, length: int) -> tuple[int, int] | None:
    """Return the first and the last place that an index touches on an axis."""
    if isinstance(k, slice):
        chosen = range(length)[k]
        return (chosen[0], chosen[-1]) if chosen else None
    if isinstance(k, int):
        return k, k
    return (int(k.min()), int(k.max())) if len(k) else None


def within(key: Slices, size: Shape, extent: Shape) -> bool:
    """Whether an index of a chunk of `size` touches nothing beyond `extent`."""
    hulls = [_hull(k, c) for k, c in zip(key, size, strict=True)]
    return all(hull is None or hull[1] < e for hull, e in zip(hulls, extent, strict=True))


def byte_range(metadata: DatasetMetadata, key: Slices) -> tuple[int, int]:
    """Return the range of a chunk's bytes that holds the part `key`."""
    ranges = byte_ranges(metadata, key, 1 << 62)
    return ranges[0] if ranges else (0, 0)


def byte_ranges(metadata: DatasetMetadata, key: Slices, cost: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a chunk that hold the part `key`.

    Few rather than small: `cost` is how many bytes one more range has to save.
    """
    bounds: list[tuple[int, int]] = []
    for k, c in zip(key, metadata.chunk_size, strict=True):
        hull = _hull(k, c)
        if hull is None:
            return []
        bounds.append(hull)
    strides = [metadata.dtype.itemsize] * metadata.ndim
    for axis in range(metadata.ndim - 1, 0, -1):
        strides[axis - 1] = strides[axis] * metadata.chunk_size[axis]
    first = sum(b[0] * s for b, s in zip(bounds, strides, strict=True))
    last = sum(b[1] * s for b, s in zip(bounds, strides, strict=True)) + metadata.dtype.itemsize
    if not bounds:
        return [(first, last)]
    begin, end = bounds[0]
    step = strides[0]
    inner = last - (end - begin) * step - first
    if (end - begin + 1) * (cost + inner) < last - first:
        places = range(first, first + (end - begin + 1) * step, step)
        return [(place, place + inner) for place in places]
    return [(first, last)]


def byte_runs(metadata: DatasetMetadata, key: Slices, most: int) -> list[tuple[int, int]] | None:
    """Return the byte ranges of a chunk that are the part `key` and nothing else, in its order.

    None if they are more than `most`, or if the part is not made of slices of step 1 and integers.
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
    split = metadata.ndim  # axes from here on are of one run
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


def read_fully(file: int, parts: list[memoryview], offset: int) -> bool:
    """Fill all parts, none of them empty, from a file; False if it ends before."""
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
