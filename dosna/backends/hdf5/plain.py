"""Reading of chunk files without filters as bytes: a header, then the raw elements."""

from __future__ import annotations

import os

from dosna.backends.hdf5.folder import H5Folder
from dosna.core.types import Array, Slices
from dosna.io.ranges import PIECE, SMALL, byte_ranges, read_fully
from dosna.io.scratch import scratch

__all__ = ["read_plain"]


def read_plain(folder: H5Folder, file: int, key: Slices | None) -> Array | None:
    """Read a chunk file without filters to the thread's scratch memory.

    Return None if it is not a file as dosna writes it. A `key` of None stands for the whole
    chunk; otherwise only that part of the returned array is read.
    """
    start = folder.header
    chunk, raw = scratch.chunk(folder.metadata)
    data = memoryview(raw)  # type: ignore[arg-type]
    head, beyond = bytearray(len(start)), bytearray(1)
    if key is None or len(data) <= SMALL:
        count = os.preadv(file, (head, data, beyond), 0)
        if count == folder.length and head == start:
            return chunk
        ranges = [(0, len(data))]  # a signal or a limit may have cut the read short
    else:
        ranges = byte_ranges(folder.metadata, key, PIECE)
    if os.fstat(file).st_size != folder.length:
        return None
    near = [r for r in ranges if r[0] == 0]
    complete = read_fully(file, [memoryview(head), *(data[:last] for _, last in near)], 0)
    for first, last in ranges[len(near) :]:
        complete = complete and read_fully(file, [data[first:last]], len(start) + first)
    return chunk if complete and head == start else None
