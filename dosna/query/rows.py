"""Rows of a dataset: a range of them, or some of them, in few calls and without further copies."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, plan
from dosna.core.selection import select
from dosna.core.types import Array
from dosna.engines.work.boxes import read_box
from dosna.errors import FormatError
from dosna.query.remote import remote_of

__all__ = ["check_rows", "read_rows", "take_rows"]


def read_rows(dataset: BackendDataset, start: int, stop: int) -> Array:
    """Read the rows from `start` to `stop`.

    Raises
    ------
    FormatError
        The dataset has fewer rows.
    """
    check_rows(dataset, stop)
    inner = dataset.metadata.shape[1:]
    return read_box(dataset, (slice(start, stop), *(slice(0, n) for n in inner)))


def take_rows(dataset: BackendDataset, rows: Array) -> Array:
    """Read some rows, whose numbers increase. Stored objects without such a row are not read.

    Raises
    ------
    FormatError
        The dataset has fewer rows.
    """
    meta, grain = dataset.metadata, dataset.grain
    inner = meta.shape[1:]
    if not len(rows):
        return np.empty((0, *inner), meta.dtype)
    check_rows(dataset, int(rows[-1]) + 1)
    remote = remote_of(dataset)
    if remote is not None:
        return remote.take(rows)
    if any(n > g for n, g in zip(inner, grain[1:], strict=True)):
        selection = select((rows, *(slice(None) for _ in inner)), meta.shape)
        result, canonical = selection.allocate(meta.dtype)
        dataset.read_many(canonical, plan(selection, grain))
        return selection.finish(result)  # type: ignore[no-any-return]
    out = np.empty((len(rows), *inner), meta.dtype)
    dataset.read_many(out, _tasks(rows, grain[0], tuple(slice(0, n) for n in inner)))
    return out


def _tasks(rows: Array, grain: int, inner: tuple[slice, ...]) -> list[ChunkTask]:
    """Plan one task for each stored object that has some of the rows."""
    first, last = int(rows[0]) // grain, int(rows[-1]) // grain
    edges = [0, len(rows)]
    if first != last:
        borders = np.arange(first + 1, last + 1) * grain
        edges[1:1] = np.searchsorted(rows, borders).tolist()
    zeros: Any = (0,) * len(inner)
    return [
        ChunkTask(
            (first + number, *zeros),
            (rows[a:b] - (first + number) * grain, *inner),
            (slice(a, b), *inner),
            False,
        )
        for number, (a, b) in enumerate(pairwise(edges))
        if a < b
    ]


def check_rows(dataset: BackendDataset, stop: int) -> None:
    """Raise FormatError if a dataset ends before a row."""
    rows = dataset.metadata.shape[0]
    if rows < stop:
        raise FormatError(
            f"dataset {dataset.name!r} ends at row {rows}, and its tree has rows up to {stop}: "
            "it is damaged, or was replaced"
        )
