"""Comparison of a dataset with another array."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna.array.chunked import Chunked, windows
from dosna.array.loading import opened
from dosna.array.values import is_source
from dosna.core.compare import Comparison, unequal
from dosna.core.plan import every_chunk
from dosna.core.progress import Progress
from dosna.core.sizes import Limit, parse_size
from dosna.core.text import element_bytes
from dosna.engines.work.boxes import BLOCK_BYTES, bytes_of, is_remote, plain
from dosna.engines.work.checking import Compare
from dosna.engines.work.loading import load_block

__all__ = ["compare"]


def compare(
    dataset: Chunked, other: Any, exact: bool, progress: Progress, memory_limit: Limit
) -> Comparison:
    """Carry out `EngineDataset.compare`."""
    dataset.connection.check_connected()
    other = _comparable(dataset, other, exact)
    dataset.note_reading()
    source, chunks, picklable = opened(other)
    workers = dataset.runner.workers
    most = BLOCK_BYTES
    if memory_limit is not None:
        most = parse_size(memory_limit) // (4 * dataset.runner.sharers)
    block = load_block(dataset.instance, chunks, most, 4 * workers)
    itemsize = max(element_bytes(dataset.dtype), element_bytes(other.dtype))
    overlaps = False
    if dataset.instance.remote or is_remote(source):
        held = 4 * bytes_of(block, itemsize)
        block, overlaps = windows(dataset, block, held, memory_limit)
    parts = dataset.spread(
        "compare",
        Compare(dataset.instance, source, exact, overlaps=overlaps),
        4 * bytes_of(block, itemsize),
        progress,
        memory_limit,
        tasks=every_chunk(dataset.shape, block),
        picklable=picklable,
    )
    found = sorted(entry for part in parts for entry in part)
    return Comparison(
        dataset.total_chunks,
        tuple(idx for idx, _, _ in found),
        sum(count for _, count, _ in found),
        min((first for _, _, first in found), default=None),
    )


def _comparable(dataset: Chunked, other: Any, exact: bool) -> Any:
    """Return what a dataset is compared with as an array, or raise ValueError or TypeError."""
    if not is_source(other):
        other = plain(other)
    if hasattr(other, "as_stored"):
        other = other.as_stored(dataset.dtype)
    if tuple(other.shape) != dataset.shape:
        raise ValueError(
            f"dataset {dataset.name!r} of shape {dataset.shape} cannot be compared with shape "
            f"{tuple(other.shape)}"
        )
    if exact and other.dtype != dataset.dtype:
        raise TypeError(
            f"dataset {dataset.name!r} of dtype {dataset.dtype} cannot be compared exactly with "
            f"dtype {other.dtype}: leave out exact=True to compare only the values"
        )
    try:
        unequal(np.empty(0, dataset.dtype), np.empty(0, other.dtype))
    except TypeError as error:
        raise TypeError(
            f"dataset {dataset.name!r} of dtype {dataset.dtype} cannot be compared with dtype "
            f"{other.dtype}"
        ) from error
    return other
