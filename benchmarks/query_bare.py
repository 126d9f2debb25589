"""Do the work of two rows of ``query.py`` by plain loops: the bounds of what a query can reach.

They read the same bytes from files and do the least NumPy work on them, know the answer's form
beforehand, check nothing, and use their memory again for each block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

BLOCK = 1 << 16
"""Lists at a time, for which everything stays in the cache: the best of 2**14 to 2**19."""


def lists(folder: Path, array: ak.Array, limit: float) -> Callable[[], ak.Array]:
    """Return the work of two threads that select the lists with any element above a limit."""
    layout = ak.to_packed(array).layout
    np.asarray(layout.offsets.data, np.int64).tofile(folder / "offsets.bin")
    np.asarray(layout.content.data, np.float32).tofile(folder / "content.bin")
    files = [os.open(folder / name, os.O_RDONLY) for name in ("offsets.bin", "content.bin")]
    most = int(ak.max(ak.num(array))) * BLOCK
    mine = threading.local()
    threads = ThreadPoolExecutor(2)

    def one(start: int) -> tuple[Any, Any]:
        if not hasattr(mine, "offsets"):
            mine.offsets, mine.content = np.empty(BLOCK + 1, np.int64), np.empty(most, np.float32)
            mine.truth, mine.sums = np.empty(most, bool), np.empty(most + 1, np.int32)
        offsets = mine.offsets[: min(BLOCK, len(array) - start) + 1]
        os.preadv(files[0], [offsets], 8 * start)
        first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
        offsets -= first
        content, sums = mine.content[:count], mine.sums[: count + 1]
        os.preadv(files[1], [content], 4 * first)
        truth = np.greater(content, limit, out=mine.truth[:count])
        sums[0] = 0
        np.cumsum(truth.view(np.uint8), dtype=np.int32, out=sums[1:])
        before = sums[offsets]
        rows = np.flatnonzero(before[1:] != before[:-1])
        begins = offsets[rows]
        lengths = offsets[rows + 1] - begins
        ends = np.cumsum(lengths)
        places = np.repeat(begins - ends + lengths, lengths)
        places += np.arange(len(places))
        return ends, content.take(places, mode="clip")

    def work() -> ak.Array:
        parts = list(threads.map(one, range(0, len(array), BLOCK)))
        ends, total = [np.zeros(1, np.int64)], 0
        for part, content in parts:
            ends.append(part + total)
            total += len(content)
        content = ak.contents.NumpyArray(np.concatenate([content for _, content in parts]))
        index = ak.index.Index64(np.concatenate(ends))
        return ak.Array(ak.contents.ListOffsetArray(index, content))

    return work


def zones(tree: Path, chunk: int, chunks: int, low: int, high: int) -> Callable[[], pa.Table]:
    """Return the work of selecting ``low < run <= high`` from one chunk of a sorted column.

    It looks whether the files of all chunks are unchanged, as it must to skip them.
    """
    number, names = (low + 1) // chunk, ("x1", "x2", "x3")
    assert high // chunk == number
    looked_at = [str(tree / "run" / "c" / str(n)) for n in range(chunks)]
    files = {name: str(tree / name / "c" / str(number)) for name in ("run", *names)}

    def read(name: str, first: int, count: int, dtype: str) -> Any:
        found = np.empty(count, dtype)
        file = os.open(files[name], os.O_RDONLY)
        os.preadv(file, [found], first * found.itemsize)
        os.close(file)
        return found

    def work() -> pa.Table:
        for path in looked_at:
            os.stat(path)
        run = read("run", 0, chunk, "i4")
        rows = np.flatnonzero((run > low) & (run <= high))
        first, count = int(rows[0]), int(rows[-1] - rows[0]) + 1
        return pa.table({name: read(name, first, count, "f4")[rows - first] for name in names})

    return work
