"""The work of loading a dataset from a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, ClassVar

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.backends.zones import note_marks
from dosna.core.casting import check_values
from dosna.core.plan import ChunkTask
from dosna.core.text import element_bytes, elements
from dosna.core.types import Array, Shape
from dosna.core.values import same_fill
from dosna.core.zones import Zone, ZoneMaker
from dosna.engines.work.boxes import (
    Memory,
    Placed,
    bytes_of,
    count_of,
    extent_of,
    is_remote,
    objects_of,
    read_box,
    read_source,
)
from dosna.engines.work.flow import HELD, WRITE_BEHIND, Flow, Overlapping

__all__ = ["Load", "is_fill", "load_block"]


@dataclass
class Load(Overlapping, Placed):
    """The work of writing boxes of stored objects from a source with shape, dtype and slicing.

    Where only part of the source is stored (`sparse`), objects of fill values are left out. The
    result is what `zones` has found, if that is asked for.
    """

    near: ClassVar[str] = "target"

    target: BackendDataset
    source: Any
    checked: bool = False
    """True if values that do not fit the target's dtype are an error."""
    sparse: bool = False
    zones: ZoneMaker | None = None
    """A maker of zones, to which nothing was added."""

    def __call__(self, tasks: Iterable[ChunkTask]) -> dict[int, Zone]:
        behind = self.overlaps
        maker = None if self.zones is None else replace(self.zones, found={})
        with Flow(ahead=self.overlaps and is_remote(self.source), behind=behind) as flow:
            read = _Reader(self.source, behind)
            for task, block in flow.read(read, tasks):
                values, objects = self._prepared(task, block)
                if maker is not None:
                    maker.add(task.out[0].start, values)
                flow.write(self.target.write_many, values, objects)
                del block, values  # or their memory could not be used for the next box
        if maker is None:
            return {}
        note_marks(self.target, maker)
        return maker.found

    def _prepared(self, task: ChunkTask, block: Array) -> tuple[Array, list[ChunkTask]]:
        """Return the values to write for a box, and the objects to write them to."""
        target = self.target
        dtype = target.metadata.dtype
        if self.checked:
            block = check_values(block, dtype, "data to load")
        block = elements(block, dtype)
        objects = objects_of(task.out, target.grain)
        if self.sparse:
            fill = target.metadata.fill
            objects = [part for part in objects if not is_fill(block[part.out], fill)]
        return block, objects


class _Reader:
    """A reader of boxes of a source.

    Parameters
    ----------
    source : object
        The source.
    behind : bool
        Whether boxes are written while the next is read.
    """

    def __init__(self, source: Any, behind: bool) -> None:
        self._source = source
        # A source may use its memory again before it is written.
        self._copies = behind and not isinstance(source, np.ndarray)
        self._memory = Memory(HELD + WRITE_BEHIND if behind else 1)

    def __call__(self, task: ChunkTask) -> Array:
        source, box = self._source, task.out
        if isinstance(source, BackendDataset):
            return read_box(source, box, self._memory)
        if not hasattr(source, "read_into"):
            block = read_source(source, box)
            return block.copy() if self._copies else block
        block = self._memory.take(extent_of(box), source.dtype)
        source.read_into(box, block)
        return block


def is_fill(values: Array, fill: Array) -> bool:
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
    bytes of the target's elements and leaves `at_least` blocks to share out. Where it cannot, each
    block has a contiguous part of a chunk, as far as possible.
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
        # However a chunk is cut into so many blocks, it is read as often; but not as much of it
        # if it is not compressed, and cut along its first axes.
        cut = [axis for axis in axes if excess(axis) >= 2]
        axis = max(cut) if cut else max(axes, key=excess)
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
