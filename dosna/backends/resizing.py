"""Changing the shape of a dataset, with any store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import chain, product
from math import prod
from typing import Protocol

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape
from dosna.errors import DosnaError

__all__ = ["extend", "resize"]


class Resizable(Protocol):
    """The members of a dataset that are used here; see `dosna.backends.base.BackendDataset`."""

    metadata: DatasetMetadata

    @property
    def grain(self) -> Shape: ...

    @property
    def few_objects(self) -> int: ...

    def exclusive(self) -> AbstractContextManager[bool]: ...

    def refresh(self) -> None: ...

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None: ...

    def object_indices(self) -> Iterator[Shape]: ...

    def has_object(self, idx: Shape) -> bool: ...

    def trim_object(self, idx: Shape) -> None: ...

    def del_objects(self, indices: Iterable[Shape]) -> None: ...


def resize(dataset: Resizable, shape: Shape) -> None:
    """Change the extents of a dataset; see `BackendDataset.resize`."""
    with dataset.exclusive():
        dataset.refresh()
        old = dataset.metadata
        grows = any(new > was for new, was in zip(shape, old.shape, strict=True))
        shrinks = any(new < was for new, was in zip(shape, old.shape, strict=True))
        before = old.shape if old.trimmed else None
        if grows and not old.trimmed:
            _trim(dataset, None)
        # A growing axis must not bring back what a shrinking one is about to cut off.
        least = tuple(map(min, shape, old.shape))
        if shrinks:
            dataset.update(lambda m: m.replace(shape=least, trimmed=False))
            _trim(dataset, before)
        if grows or shrinks:
            dataset.update(lambda m: m.replace(shape=shape, trimmed=True))


def extend(dataset: Resizable, axis: int, count: int) -> Shape:
    """Extend an axis of a dataset by `count`; see `BackendDataset.extend`."""
    before: Shape = ()

    def longer(metadata: DatasetMetadata) -> DatasetMetadata:
        nonlocal before
        before = metadata.shape
        return metadata.replace(shape=tuple(n + count * (a == axis) for a, n in enumerate(before)))

    with dataset.exclusive() as alone:
        dataset.refresh()
        if not dataset.metadata.trimmed:
            _trim(dataset, None)
            dataset.update(lambda m: m.replace(trimmed=True))
        try:
            dataset.update(longer)
        except BaseException:
            # Ctrl-C, or an error of the disk, may come after the new shape was stored.
            if alone and before:
                with suppress(DosnaError):
                    dataset.update(lambda m: m.replace(shape=before))
            raise
    return before


def _trim(dataset: Resizable, before: Shape | None) -> None:
    """Delete what lies outside of the shape: whole objects, and the outer parts of others.

    `before` is a shape outside of which nothing is stored, or None if none is known.
    """
    shape, grain = dataset.metadata.shape, dataset.grain
    outside = []
    for idx in list(_objects_around(dataset, before)):
        inside = [n - i * g for i, g, n in zip(idx, grain, shape, strict=True)]
        if min(inside, default=1) <= 0:
            outside.append(idx)
        elif any(n < g for n, g in zip(inside, grain, strict=True)):
            dataset.trim_object(idx)
    dataset.del_objects(outside)


def _objects_around(dataset: Resizable, before: Shape | None) -> Iterator[Shape]:
    """Return indices of stored objects, among them all that are not wholly inside the shape.

    `before` is a shape outside of which nothing is stored, or None if none is known.
    """
    if before is None:
        return dataset.object_indices()
    whole, grid = [], []
    for now, was, g in zip(dataset.metadata.shape, before, dataset.grain, strict=True):
        grid.append(-(-was // g))
        whole.append(min(now // g, grid[-1]))
    if prod(grid) - prod(whole) > dataset.few_objects:
        return dataset.object_indices()
    outside = (
        product(*map(range, whole[:axis]), range(first, grid[axis]), *map(range, grid[axis + 1 :]))
        for axis, first in enumerate(whole)
        if first < grid[axis]  # `product` holds all of the other axes, however many there are
    )
    return filter(dataset.has_object, chain.from_iterable(outside))
