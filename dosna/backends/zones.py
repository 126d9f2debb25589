"""The zones of a dataset, and the versions of the stored objects that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dosna.backends.dataset import BackendDataset
from dosna.core.types import Array, Shape
from dosna.core.zones import ZoneMaker, Zones, can_have_zones, object_mark

__all__ = ["has_room", "known_zones", "marks_of", "note_marks", "recorded", "unchanged"]


def has_room(dataset: BackendDataset) -> bool:
    """Return True if a dataset can have zones."""
    meta = dataset.metadata
    return meta.link is None and can_have_zones(meta.shape, meta.chunk_size, meta.dtype)


def marks_of(dataset: BackendDataset, numbers: Iterable[int], lasting: bool = False) -> Array:
    """Return the `object_mark` of stored objects, by their numbers along the first axis."""
    _, inner = _objects_of(dataset)
    versions = dataset.versions([(number, *inner) for number in numbers], lasting)
    return np.fromiter(map(object_mark, versions), np.uint64, len(versions))


def recorded(dataset: BackendDataset, maker: ZoneMaker, marks: Array | None = None) -> Any:
    """Return the value for `DatasetMetadata.zones`; None if nothing is known.

    Parameters
    ----------
    dataset : BackendDataset
        The dataset, which was not written to since `maker` saw it.
    maker : ZoneMaker
        The new zones. Those that it does not know stay from before, if they still hold.
    marks : ndarray, optional
        The marks that all stored objects had before `maker` saw them; by default those that they
        were written with, as far as the store has told them, or else those of now.
    """
    meta = dataset.metadata
    if not has_room(dataset) or not meta.shape[0]:
        return None
    if marks is None:
        marks = _marks_since(dataset, maker)
    made = maker.zones(meta.shape[0], meta.dtype, marks)
    before = Zones.from_json(meta.zones)
    if before is not None and (before.steps is None) == (made.steps is None):
        _keep(dataset, made, before)
    return made.to_json() if made.known.any() and marks.any() else None


def note_marks(dataset: BackendDataset, maker: ZoneMaker) -> None:
    """Note with zones in which state their stored objects were written, where that is known."""
    ratio, inner = _objects_of(dataset)
    noted = dataset.noted or {}
    for number, zone in maker.found.items():
        version = noted.get((number // ratio, *inner))
        if version is not None:
            zone.mark = object_mark(version)


def _marks_since(dataset: BackendDataset, maker: ZoneMaker) -> Array:
    """Return the marks of all stored objects since they were written."""
    meta, (ratio, _) = dataset.metadata, _objects_of(dataset)
    count = -(-meta.shape[0] // dataset.grain[0])
    note_marks(dataset, maker)
    known = {number // ratio: zone.mark for number, zone in maker.found.items()}
    if not any(known.values()):
        return marks_of(dataset, range(count), lasting=True)
    return np.array([known.get(number, 0) for number in range(count)], np.uint64)


def _objects_of(dataset: BackendDataset) -> tuple[int, Shape]:
    """Return the chunks of a stored object along the first axis, and its index along others."""
    meta = dataset.metadata
    return dataset.grain[0] // meta.chunk_size[0], (0,) * (meta.ndim - 1)


def _keep(dataset: BackendDataset, made: Zones, before: Zones) -> None:
    """Add what was known before of chunks that are as they were."""
    meta = dataset.metadata
    good = before.fits(meta.shape, meta.chunk_size, meta.dtype) & ~made.known
    number = np.arange(len(good)) // _objects_of(dataset)[0]
    good &= number < len(before.objects)
    at = np.flatnonzero(good)
    at = at[before.objects[number[at]] == made.objects[number[at]]]
    for name in ("least", "most", "nans", "steps"):
        into = getattr(made, name)
        if into is not None:
            into[at] = getattr(before, name)[at]


def known_zones(dataset: BackendDataset) -> tuple[Zones, Array] | None:
    """Return the zones of a dataset, and which of its chunks they are of, before `unchanged`."""
    meta = dataset.metadata
    zones = Zones.from_json(meta.zones) if has_room(dataset) else None
    return None if zones is None else (zones, zones.fits(meta.shape, meta.chunk_size, meta.dtype))


def unchanged(dataset: BackendDataset, zones: Zones, chunks: Array) -> Array:
    """Return for some chunks, by their numbers, whether they are unchanged since."""
    ratio, _ = _objects_of(dataset)
    objects, place = (chunks, ...) if ratio == 1 else np.unique(chunks // ratio, False, True)
    known = objects < len(zones.objects)
    wanted = np.zeros(len(objects), np.uint64)
    wanted[known] = zones.objects[objects[known]]
    same = (marks_of(dataset, objects.tolist()) == wanted) & (wanted != 0)
    found: Array = same[place]
    return found
