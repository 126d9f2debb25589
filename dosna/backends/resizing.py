"""Changing the shape of a dataset, with any store.

A store of bytes cannot keep other writers out. There each change of the metadata is made on
condition that they are still those that this process has read or written; otherwise it begins
anew. So of several writers that change the shape at the same time, none undoes half of what
another one does. While objects outside of the shape are being removed, the metadata say so
(`trimmed` is False), and whoever extends the array then removes them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import chain, product
from math import prod
from typing import Any, Protocol

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape
from dosna.errors import DosnaError, StaleDatasetError, StorageError
from dosna.io.parallel import to_its_end

__all__ = ["extend", "fits", "resize", "take_back"]

_MOST_ATTEMPTS = 100
"""Number of attempts at a change of shape that others keep preventing."""

_MOST_TAKEN_BACK = 10_000
"""The most stored objects that are deleted by name, written or not."""

_State = tuple[Shape, bool, int]


class _ChangedError(Exception):
    """The error that another writer has changed the metadata: read them again."""


class Resizable(Protocol):
    """The members of a dataset that are used here; see `dosna.backends.base.BackendDataset`."""

    name: str
    metadata: DatasetMetadata

    @property
    def grain(self) -> Shape: ...

    @property
    def few_objects(self) -> int: ...

    def exclusive(self) -> AbstractContextManager[bool]: ...

    def refresh(self) -> None: ...

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None: ...

    def revision_of(self, metadata: DatasetMetadata) -> int: ...

    def object_indices(self) -> Iterator[Shape]: ...

    def has_object(self, idx: Shape) -> bool: ...

    def trim_object(self, idx: Shape) -> None: ...

    def del_objects(self, indices: Iterable[Shape]) -> None: ...


def resize(dataset: Resizable, shape: Shape) -> None:
    """Change the extents of a dataset; see `BackendDataset.resize`."""
    with dataset.exclusive() as alone:
        for _ in _attempts(dataset):
            with suppress(_ChangedError):
                _resize(dataset, shape, alone)
                return


def fits(given: Shape, shape: Shape, axis: int) -> bool:
    """Return True if two shapes differ along one axis at most."""
    return len(given) == len(shape) and all(
        n == m for a, (n, m) in enumerate(zip(given, shape, strict=True)) if a != axis
    )


def extend(dataset: Resizable, axis: int, given: Shape) -> Shape:
    """Extend an axis of a dataset for values to append; see `BackendDataset.extend`."""
    before: Shape = ()
    after: Shape = ()
    stored = False

    def longer(metadata: DatasetMetadata) -> DatasetMetadata:
        nonlocal before, after
        if not metadata.trimmed:
            raise _ChangedError
        if not fits(given, metadata.shape, axis):
            raise StaleDatasetError(
                f"cannot append data of shape {given} to dataset {dataset.name!r} along axis "
                f"{axis}: another writer has resized it to {metadata.shape}"
            )
        before = metadata.shape
        after = tuple(n + given[axis] * (a == axis) for a, n in enumerate(before))
        return metadata.replace(shape=after)

    def store() -> None:
        nonlocal stored
        dataset.update(longer)
        stored = True

    try:
        with dataset.exclusive() as alone:
            for _ in _attempts(dataset):
                with suppress(_ChangedError):
                    if not dataset.metadata.trimmed:
                        known = _state(dataset)
                        _trim(dataset, None, alone)
                        _update(dataset, known, trimmed=True)
                    try:
                        if alone:
                            store()
                        else:
                            to_its_end(store)  # it must be known whether this process did it
                    except BaseException:
                        # Ctrl-C, or an error of the disk, may come after the new shape was stored.
                        with suppress(DosnaError, _ChangedError):
                            if alone and before:
                                dataset.update(lambda m: m.replace(shape=before))
                            elif stored:
                                _resize(dataset, before, alone)
                        stored = False
                        raise
                    break
    except BaseException:
        # It may also come at the end of `exclusive`.
        if stored:
            with suppress(DosnaError, _ChangedError):
                take_back(dataset, before, after)
        raise
    return before


def take_back(dataset: Resizable, before: Shape, after: Shape) -> None:
    """Undo an extension, unless another writer has changed the shape since."""
    with dataset.exclusive() as alone:
        dataset.refresh()
        if dataset.metadata.shape != after:
            return
        # The new objects are deleted first: a full disk may have no room for another description.
        new = [
            range(-(-a // g)) if a == b else range(-(-b // g), a // g)
            for b, a, g in zip(before, after, dataset.grain, strict=True)
        ]
        if prod(map(len, new)) <= _MOST_TAKEN_BACK:
            dataset.del_objects(product(*new))
        for _ in _attempts(dataset):
            if dataset.metadata.shape != after:
                return
            with suppress(_ChangedError):
                _resize(dataset, before, alone)
                return


# -- one attempt ------------------------------------------------------------------------------


def _attempts(dataset: Resizable) -> Iterator[None]:
    """Read the metadata of a dataset before each attempt at a change of its shape."""
    for _ in range(_MOST_ATTEMPTS):
        dataset.refresh()
        yield
    raise StorageError(
        f"the metadata of dataset {dataset.name!r} changed {_MOST_ATTEMPTS} times while its shape "
        "was being changed: too many writers change them"
    )


def _state(dataset: Resizable, metadata: DatasetMetadata | None = None) -> _State:
    found = dataset.metadata if metadata is None else metadata
    return found.shape, found.trimmed, dataset.revision_of(found)


def _update(dataset: Resizable, known: _State, **changes: Any) -> _State:
    """Change metadata that are still the known ones, and return what they are then."""

    def change(metadata: DatasetMetadata) -> DatasetMetadata:
        if _state(dataset, metadata) != known:
            raise _ChangedError
        return metadata.replace(**changes)

    dataset.update(change)
    return _state(dataset)


def _resize(dataset: Resizable, shape: Shape, alone: bool) -> None:
    old, known = dataset.metadata, _state(dataset)
    grows = any(new > was for new, was in zip(shape, old.shape, strict=True))
    shrinks = any(new < was for new, was in zip(shape, old.shape, strict=True))
    before = old.shape if old.trimmed else None
    if grows and not old.trimmed:
        _trim(dataset, None, alone)
    # A growing axis must not bring back what a shrinking one is about to cut off.
    least = tuple(map(min, shape, old.shape))
    if shrinks:
        known = _update(dataset, known, shape=least, trimmed=False)
        _trim(dataset, before, alone)
    if grows or shrinks:
        _update(dataset, known, shape=shape, trimmed=True)


def _trim(dataset: Resizable, before: Shape | None, alone: bool) -> None:
    """Delete what lies outside of the shape: whole objects, and the outer parts of others.

    `before` is a shape outside of which nothing is stored, or None if none is known.
    """
    known = _state(dataset)
    shape, grain = dataset.metadata.shape, dataset.grain
    outside = []
    for idx in list(_objects_around(dataset, before)):
        inside = [n - i * g for i, g, n in zip(idx, grain, shape, strict=True)]
        if min(inside, default=1) <= 0:
            outside.append(idx)
        elif any(n < g for n, g in zip(inside, grain, strict=True)):
            dataset.trim_object(idx)
    if outside and not alone:
        # Another writer may have finished this, extended the array and written there.
        dataset.refresh()
        if _state(dataset) != known:
            raise _ChangedError
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
