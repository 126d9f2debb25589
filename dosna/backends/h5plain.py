"""Reading chunk files without filters, as bytes: a header, then the raw elements."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from dosna.backends.base import Array, Slices
from dosna.backends.h5folder import Folder
from dosna.metadata import DatasetMetadata, Shape

__all__ = ["SMALL", "bytes_like", "read_plain", "scratch", "within"]

_PIECE = 16 << 10  # bytes that are read in the time that one more read takes

SMALL = 2 * _PIECE
"""Chunks of up to so many bytes are read whole."""


class _Scratch(threading.local):
    """A chunk's worth of memory per thread: fresh memory costs more than reading into it."""

    raw: Array = np.empty(0, np.uint8)

    def chunk(self, metadata: DatasetMetadata) -> tuple[Array, Array]:
        """Give an array of a chunk and its bytes, valid until the thread's next call."""
        size = metadata.chunk_nbytes
        if len(self.raw) < size:
            self.raw = np.empty(size, np.uint8)
        raw = self.raw[:size]
        return raw.view(metadata.dtype).reshape(metadata.chunk_size), raw


scratch = _Scratch()


def bytes_like(array: Array) -> Array:
    """Give a view that the system reads and writes: M, m and V have no buffers."""
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.kind in "MmV" else array


def _hull(k: Any, length: int) -> tuple[int, int] | None:
    """Give the first and the last place that an index touches on an axis."""
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


def read_plain(folder: Folder, file: int, key: Slices | None) -> Array | None:
    """Read a chunk file without filters to the thread's scratch; None if it is none of ours."""
    start = folder.header
    chunk, raw = scratch.chunk(folder.metadata)
    data = memoryview(raw)  # type: ignore[arg-type]
    head, beyond = bytearray(len(start)), bytearray(1)
    if key is None or len(data) <= SMALL:
        count = os.preadv(file, (head, data, beyond), 0)
        if count == folder.length and head == start:
            return chunk
        ranges = [(0, len(data))]  # a signal or a limit may have cut it short
    else:
        ranges = _ranges(folder.metadata, key)
    if os.fstat(file).st_size != folder.length:
        return None
    near = [r for r in ranges if r[0] == 0]
    complete = _read_fully(file, [memoryview(head), *(data[:last] for _, last in near)], 0)
    for first, last in ranges[len(near) :]:
        complete = complete and _read_fully(file, [data[first:last]], len(start) + first)
    return chunk if complete and head == start else None


def _read_fully(file: int, parts: list[memoryview], offset: int) -> bool:
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


def _ranges(metadata: DatasetMetadata, key: Slices) -> list[tuple[int, int]]:
    """Give the byte ranges of a chunk that hold the part `key`, few rather than small."""
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
    begin, end = bounds[0]
    step = strides[0]
    inner = last - (end - begin) * step - first
    if (end - begin + 1) * (_PIECE + inner) < last - first:
        places = range(first, first + (end - begin + 1) * step, step)
        return [(place, place + inner) for place in places]
    return [(first, last)]
