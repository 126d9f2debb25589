"""Reading of chunk files as dosna writes them, without libhdf5."""

from __future__ import annotations

import os

import numpy as np

from dosna.backends.hdf5.chunkfile import unfiltered
from dosna.backends.hdf5.folder import H5Folder
from dosna.codecs.fletcher32 import fletcher32
from dosna.core.types import Array, Slices
from dosna.io.files import size_of
from dosna.io.ranges import PIECE, SMALL, byte_ranges, read_fully
from dosna.io.scratch import scratch

__all__ = ["WRONG", "read_known"]

WRONG = "its checksum is wrong"
_MOST_STORED = (1 << 32) - 1


def read_known(folder: H5Folder, file: int, key: Slices | None) -> Array | None:
    """Read a chunk file to the thread's scratch memory, or to new memory if it is compressed.

    Return None if it is not a file as dosna writes it. A `key` of None stands for the whole
    chunk; otherwise only that part of the returned array is read.

    Raises
    ------
    ValueError
        It is such a file, and the data are damaged.
    """
    if folder.header:
        return _read_elements(folder, file, key)
    return None if folder.frame is None else _read_compressed(folder, file)


def _read_elements(folder: H5Folder, file: int, key: Slices | None) -> Array | None:
    start = folder.header
    chunk, raw = scratch.chunk(folder.metadata)
    data = memoryview(raw)  # type: ignore[arg-type]
    head, tail, beyond = bytearray(len(start)), bytearray(folder.tail), bytearray(1)
    ranges = [(0, len(data))]  # a signal or a limit may cut a read short
    if key is not None and not tail and len(data) > SMALL:
        ranges = byte_ranges(folder.metadata, key, PIECE)
    if len(ranges) == 1 and 2 * (ranges[0][1] - ranges[0][0]) > len(data):
        ranges = [(0, len(data))]
        count = os.preadv(file, (head, data, tail, beyond), 0)
        if count == folder.length and head == start:
            return _checked(chunk, data, tail)
    if size_of(file) != folder.length:
        return None
    parts = [memoryview(head)]
    if ranges and ranges[0][0] == 0:
        parts.append(data[: ranges.pop(0)[1]])
    complete = read_fully(file, parts, 0)
    for first, last in ranges:
        complete = complete and read_fully(file, [data[first:last]], len(start) + first)
    if tail:
        complete = complete and read_fully(file, [memoryview(tail)], len(start) + len(data))
    return _checked(chunk, data, tail) if complete and head == start else None


def _checked(chunk: Array, data: memoryview, tail: bytearray) -> Array:
    if tail and tail != fletcher32(data):
        raise ValueError(WRONG)
    return chunk


def _read_compressed(folder: H5Folder, file: int) -> Array | None:
    frame, metadata = folder.frame, folder.metadata
    assert frame is not None
    size = size_of(file) - frame.length
    if not 0 < size <= _MOST_STORED:
        return None
    head, stored = bytearray(frame.length), scratch.raw(size)
    parts = [memoryview(head), memoryview(stored)]  # type: ignore[arg-type]
    if not read_fully(file, parts, 0) or head != frame.head(size):
        return None
    found = unfiltered(stored, metadata)
    return np.frombuffer(found, np.uint8).view(metadata.dtype).reshape(metadata.chunk_size)
