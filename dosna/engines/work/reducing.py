"""The work of reducing a dataset to a value or along axes, and of clearing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk
from dosna.core.types import Array, Shape
from dosna.engines.work.boxes import BoxReader, Placed, box_of, chunks_of, extent_of
from dosna.engines.work.flow import HELD, Flow, Overlapping

__all__ = ["Clear", "Reduce", "ReduceAlong", "run_of"]

_PARTS = 64
"""The most parts into which the work is cut along the reduced axes, for the workers to share."""

_PARTS_BYTES = 256 << 20
"""Most bytes of the results of these parts."""

_LEAST_OBJECTS = 8
"""The fewest stored objects of such a part, which are read together; two parts are read ahead."""


@dataclass
class Reduce(Overlapping, Placed):
    """The work of reducing each chunk to one value; it returns ``(chunk index, value)`` pairs."""

    dataset: BackendDataset
    ufunc: np.ufunc
    dtype: np.dtype[Any] | None

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, Any]]:
        reduce, chunk_size = self.ufunc.reduce, self.dataset.metadata.chunk_size
        found = []
        with Flow(ahead=self.overlaps) as flow:
            for task, block in flow.read(BoxReader(self.dataset, HELD * self.overlaps), tasks):
                for idx, place in chunks_of(task, block.shape, chunk_size):
                    found.append((idx, reduce(block[place], axis=None, dtype=self.dtype)))
        return found


@dataclass
class ReduceAlong(Overlapping, Placed):
    """The work of reducing along axes; it returns ``(region index, array)`` pairs.

    Its tasks are regions of the dataset. A region is read in boxes, whose chunks are added up in
    C order: neither the size of the boxes nor the number of workers changes the sums.

    Parameters
    ----------
    dataset : BackendDataset
        The dataset.
    ufunc : numpy.ufunc
        The function that adds up.
    dtype : dtype, optional
        The dtype in which it adds; by default its own for the dataset's dtype.
    total_dtype : dtype
        The dtype of the results.
    axes : tuple of int
        The axes to reduce.
    region : tuple of int
        The extent of a region.
    box : tuple of int
        The extent of a box, in whole stored objects.
    """

    dataset: BackendDataset
    ufunc: np.ufunc
    dtype: np.dtype[Any] | None
    total_dtype: np.dtype[Any]
    axes: Shape
    region: Shape
    box: Shape

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, Array]]:
        found: list[tuple[Shape, Array]] = []
        reader = BoxReader(self.dataset, HELD * self.overlaps)
        with Flow(ahead=self.overlaps) as flow:
            for box, block in flow.read(reader, self._boxes(tasks)):
                if not found or found[-1][0] != box.idx:
                    found.append((box.idx, self._empty(box.idx)))
                self._add(found[-1][1], box, block)
        return found

    def _boxes(self, tasks: Iterable[ChunkTask]) -> Iterator[ChunkTask]:
        """Yield the boxes of each region, with its index; `chunk` is their place in the region."""
        for task in tasks:
            for part in every_chunk(extent_of(task.out), self.box):
                pairs = zip(part.out, task.out, strict=True)
                place = tuple([slice(s.start + t.start, s.stop + t.start) for s, t in pairs])
                yield ChunkTask(task.idx, part.out, place, True)

    def _empty(self, idx: Shape) -> Array:
        extent = extent_of(box_of(idx, self.dataset.metadata.shape, self.region).out)
        kept = [n for axis, n in enumerate(extent) if axis not in self.axes]
        return np.empty(kept, self.total_dtype)

    def _add(self, total: Array, box: ChunkTask, block: Array) -> None:
        for part in every_chunk(block.shape, self.dataset.metadata.chunk_size):
            pairs = zip(part.out, box.chunk, strict=True)
            place = [slice(s.start + t.start, s.stop + t.start) for s, t in pairs]
            first = all(place[axis].start == 0 for axis in self.axes)
            into = total[tuple([s for axis, s in enumerate(place) if axis not in self.axes])]
            reduced = self.ufunc.reduce(block[part.out], axis=self.axes, dtype=self.dtype)
            if first:
                into[...] = reduced
            else:
                self.ufunc(into, reduced, out=into)


def run_of(shape: Shape, grain: Shape, axes: Shape, itemsize: int) -> Shape:
    """Return the extent of regions along the reduced axes, and that of a stored object on others.

    It depends on the dataset alone and not on the workers, because sums of floats depend on it.

    Parameters
    ----------
    shape, grain : tuple of int
        The extents of the array and of a stored object.
    axes : tuple of int
        The axes to reduce.
    itemsize : int
        The bytes of an element of the sums.
    """
    found = tuple([n if axis in axes else grain[axis] for axis, n in enumerate(shape)])
    if not axes:
        return found
    first = axes[0]
    objects = [-(-n // g) for n, g in zip(shape, grain, strict=True)]
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    regions, results = prod(objects[axis] for axis in kept), prod(shape[axis] for axis in kept)
    most = min(
        _PARTS // regions,
        _PARTS_BYTES // (results * itemsize),
        prod(objects[axis] for axis in axes) // _LEAST_OBJECTS,
    )
    # The first axis only, so that the chunks of a region follow one another in C order.
    run = -(-objects[first] // max(1, most)) * grain[first]
    return (*found[:first], run, *found[first + 1 :])


@dataclass
class Clear:
    """The work of deleting stored objects; its tasks are their indices."""

    dataset: BackendDataset

    def __call__(self, tasks: Iterable[Shape]) -> None:
        self.dataset.del_objects(tasks)
