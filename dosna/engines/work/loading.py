"""The work of loading a dataset from a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.casting import check_values
from dosna.core.plan import ChunkTask
from dosna.core.text import element_bytes, elements
from dosna.core.types import Array, Shape
from dosna.core.values import same_fill
from dosna.engines.work.boxes import (
    bytes_of,
    count_of,
    extent_of,
    objects_of,
    read_source,
)

__all__ = ["Load", "load_block"]


@dataclass
class Load:
    """The work of writing boxes of stored objects from a source with shape, dtype and slicing.

    Where only part of the source is stored (`sparse`), objects of fill values are left out.
    """

    target: BackendDataset
    source: Any
    checked: bool = False
    """True if values that do not fit the target's dtype are an error."""
    sparse: bool = False

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        target = self.target
        dtype = target.metadata.dtype
        memory: Array | None = None
        for task in tasks:
            box = task.out
            if memory is None and hasattr(self.source, "read_into"):
                memory = np.empty(prod(extent_of(box)), self.source.dtype)
            block = self._read(box, memory)
            if self.checked:
                block = check_values(block, dtype, "data to load")
            block = elements(block, dtype)
            objects = objects_of(box, target.grain)
            if self.sparse:
                fill = np.asarray(target.metadata.fillvalue, dtype)
                objects = [part for part in objects if not _is_fill(block[part.out], fill)]
            target.write_many(block, objects)

    def _read(self, box: tuple[slice, ...], memory: Array | None) -> Array:
        # Memory that was used before costs less than fresh memory, by half.
        extent = extent_of(box)
        if memory is None or memory.size < prod(extent):
            return read_source(self.source, box)
        block = memory[: prod(extent)].reshape(extent)
        self.source.read_into(box, block)
        return block


def _is_fill(values: Array, fill: Array) -> bool:
    """Return True if all values are a fill value, bit by bit, once they have its dtype."""
    if not same_fill(values[(0,) * values.ndim], fill):
        return False
    if fill.dtype.kind == "T":
        return bool((values == fill).all())
    cast = np.ascontiguousarray(values, fill.dtype).reshape(-1).view(f"V{fill.dtype.itemsize}")
    return bool((cast == np.frombuffer(fill.tobytes(), cast.dtype)[0]).all())


def load_block(target: BackendDataset, chunks: Shape | None, limit: int, at_least: int) -> Shape:
    """Choose how many elements of each axis to load together, in whole stored objects.

    The block grows until each chunk of the source is read once, as far as it stays within `limit`
    bytes of the target's elements and leaves `at_least` blocks to share out.
    """
    meta, grain = target.metadata, target.grain
    if chunks is None:
        return grain
    block = list(grain)
    itemsize = element_bytes(meta.dtype)

    def excess(axis: int) -> float:
        """Return how many elements of the source are read for one that is written."""
        size, chunk = block[axis], min(chunks[axis], meta.shape[axis])
        return 1.0 if size >= meta.shape[axis] else (size + chunk - gcd(size, chunk)) / size

    axes = {axis for axis in range(meta.ndim) if excess(axis) > 1}
    while axes:
        axis = max(axes, key=excess)
        before = block[axis]
        most = -(-meta.shape[axis] // grain[axis]) * grain[axis]
        # By doubling, or by less where that would be too much.
        for grown in (2 * before, before + grain[axis]):
            block[axis] = min(grown, most)
            fits = bytes_of(block, itemsize) <= limit and count_of(meta.shape, block) >= at_least
            if fits:
                break
            block[axis] = before
        if block[axis] == before or excess(axis) == 1:
            axes.discard(axis)
    return tuple(block)
