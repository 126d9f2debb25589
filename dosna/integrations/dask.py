"""Dask arrays of datasets, and datasets of Dask arrays, block by block as chunks are stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.core.text import element_bytes
from dosna.errors import MissingDependencyError

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["store_dask", "to_dask"]


def to_dask(dataset: EngineDataset, chunks: Any = "auto") -> Any:
    """Carry out `EngineDataset.to_dask`."""
    da = _dask_array()
    grain = dataset.instance.grain
    if isinstance(chunks, str) and chunks == "auto":
        # Whole stored objects, as many as make a block of the size that Dask is configured for.
        # Dask takes text of variable length for objects, of which it knows no size.
        element = np.dtype((np.void, element_bytes(dataset.dtype)))
        chunks = da.core.normalize_chunks(
            "auto", shape=dataset.shape, dtype=element, previous_chunks=grain
        )
    elif chunks is None:
        chunks = grain
    return da.from_array(dataset, chunks=chunks, lock=False, asarray=True, inline_array=True)


def store_dask(
    dataset: EngineDataset, array: Any, region: Sequence[slice] | None, compute: bool
) -> Any:
    """Carry out `EngineDataset.store_dask`."""
    da = _dask_array()
    dataset.check_writable()
    array = da.asanyarray(array)
    boxes = [slice(0, n) for n in dataset.shape] if region is None else _box(dataset, region)
    extent = tuple(s.stop - s.start for s in boxes)
    if array.shape != extent:
        raise ValueError(
            f"cannot store an array of shape {array.shape} into {dataset.name!r}: the part that "
            f"is written has shape {extent}. Give region= for a part of the dataset"
        )
    if array.ndim:
        blocks = zip(array.chunks, boxes, dataset.instance.grain, strict=True)
        array = array.rechunk(tuple(_aligned(sizes, s.start, g) for sizes, s, g in blocks))
    # Every stored object is in one block now: no two workers change parts of the same one.
    return da.store(
        array, dataset, regions=tuple(boxes), lock=False, compute=compute, return_stored=False
    )


def _box(dataset: EngineDataset, region: Sequence[slice]) -> list[slice]:
    if len(region) != dataset.ndim:
        raise ValueError(
            f"region has {len(region)} slices, and {dataset.name!r} has {dataset.ndim} axes: give "
            "a slice for each axis"
        )
    boxes = []
    for part, n in zip(region, dataset.shape, strict=True):
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise ValueError(f"region must be made of slices without a step, not {part!r}")
        start, stop, _ = part.indices(n)
        boxes.append(slice(start, max(start, stop)))
    return boxes


def _aligned(sizes: Sequence[int], start: int, grain: int) -> tuple[int, ...]:
    """Return block sizes near to `sizes` whose limits in the dataset are those of objects."""
    place, limits = start, [start]
    end = start + sum(sizes)
    for size in sizes:
        place += size
        down = place - place % grain
        if limits[-1] < down < end:
            limits.append(down)
    limits.append(end)
    return tuple(b - a for a, b in pairwise(limits)) or (0,)


def _dask_array() -> Any:
    try:
        import dask.array
    except ImportError as error:
        raise MissingDependencyError(
            f"Dask arrays need a package that is not installed ({error}): "
            "pip install 'dask[array]'"
        ) from error
    return dask.array
