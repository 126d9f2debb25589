"""Dimension scales: the names of the axes of HDF5 datasets, and their lengths in netCDF.

https://support.hdfgroup.org/documentation/hdf5/latest/_h5_d_s__u_g.html describes how datasets and
scales refer to each other, and
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html describes how
netCDF-4 uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from h5py import h5ds

from dosna.core.types import Shape
from dosna.sources.errors import OF_READING
from dosna.sources.hdf5.tree import place_of
from dosna.sources.hdf5.types import decoded, name_of, read_attribute

__all__ = ["Scales", "is_hidden"]

Dims = tuple[str | None, ...]

_LABELS = "DIMENSION_LABELS"

_NOT_A_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


class _unreadable(suppress):
    """Suppress errors of libhdf5 for references to objects that are deleted, or are no scales.

    Those of reading the file are raised.
    """

    def __init__(self) -> None:
        super().__init__(OSError, RuntimeError, LookupError, ValueError, TypeError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return not isinstance(error, OF_READING) and bool(super().__exit__(kind, error, trace))


class Scales:
    """The dimension scales of a file.

    Parameters
    ----------
    named : callable, optional
        A function that returns the name of an open object, or None. Without it, libhdf5 searches
        the file for each name.
    """

    def __init__(self, named: Callable[[Any], str | None] | None = None) -> None:
        self._named = named
        self._lengths: dict[Any, int] = {}

    def names(self, dataset: Any) -> Dims | None:
        """Return the labels of the axes, or the names of their dimension scales.

        Only a scale of the axis's length names it: a dataset that was copied from another file
        keeps references that may lead to unrelated objects of this file.
        """
        if not dataset.shape:
            return None
        scales = self._of(dataset)
        names: list[str | None] = []
        for name, found in zip(_labels(dataset), scales, strict=True):
            if name is None and found is not None:
                name = _last(self._name(found))
            names.append(name)
        if names == [None] and _is_scale(dataset):
            names = [_last(self._name(dataset))]
        return tuple(names) if any(names) else None

    def shape(self, dataset: Any) -> Shape:
        """Return the shape that netCDF shows, with its lengths of unlimited dimensions.

        An unlimited dimension is as long as the longest variable along it.

        For files that are not netCDF, it is the dataset's own shape.
        """
        own: Shape = tuple(map(int, dataset.shape))
        if None not in dataset.maxshape or not _is_of_netcdf(dataset):
            return own
        shape = list(own)
        scales = self._of(dataset)
        if scales == [None] and _is_scale(dataset):
            scales = [dataset]
        for axis, scale in enumerate(scales):
            if scale is not None and dataset.maxshape[axis] is None:
                shape[axis] = max(own[axis], self._length(scale))
        return tuple(shape)

    def _length(self, scale: Any) -> int:
        """Return the length of a dimension in netCDF: that of the longest variable along it."""
        place = place_of(scale)
        if place not in self._lengths:
            longest = int(scale.shape[0])
            with _unreadable():
                for row in scale.attrs.get("REFERENCE_LIST", ()):
                    with _unreadable():
                        user, axis = scale.file[row[0]], int(row[1])
                        if place in {place_of(s) for s in self._of(user)[axis : axis + 1] if s}:
                            longest = max(longest, int(user.shape[axis]))
            self._lengths[place] = longest
        return self._lengths[place]

    def _of(self, dataset: Any) -> list[Any]:
        """Return the first scale of each axis; None for an axis without a scale."""
        found: list[Any] = [None] * len(dataset.shape)
        with _unreadable():
            for axis, row in enumerate(dataset.attrs.get("DIMENSION_LIST", ())[: len(found)]):
                found[axis] = next(_fitting(dataset, axis, row), None)
        return found

    def _name(self, scale: Any) -> str | None:
        name = None if self._named is None else self._named(scale)
        if name is None:
            with _unreadable():
                name = name_of(scale)
        return name


def is_hidden(dataset: Any) -> bool:
    """Return True if a dataset stands for a dimension of netCDF that has no variable."""
    with _unreadable():
        if _is_scale(dataset):
            text = dataset.attrs.get("NAME", b"")
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
            return text.startswith(_NOT_A_VARIABLE)
    return False


def _fitting(dataset: Any, axis: int, references: Any) -> Iterator[Any]:
    for reference in references:
        with _unreadable():
            scale = dataset.file[reference] if reference else None
            if scale is not None and _is_scale(scale) and _fits(dataset, axis, scale):
                yield scale


def _fits(dataset: Any, axis: int, scale: Any) -> bool:
    # A variable of netCDF may be shorter than its dimension, if that is unlimited.
    both_grow = dataset.maxshape[axis] is None and scale.maxshape[:1] == (None,)
    return scale.shape[:1] == (dataset.shape[axis],) or (both_grow and scale.id != dataset.id)


def _is_scale(dataset: Any) -> bool:
    with _unreadable():
        if isinstance(dataset, h5py.Dataset) and dataset.shape:
            return bool(h5ds.is_scale(dataset.id))
    return False


def _is_of_netcdf(dataset: Any) -> bool:
    with _unreadable():
        return "_NCProperties" in dataset.file.attrs or any(
            name in dataset.attrs for name in ("_Netcdf4Dimid", "_Netcdf4Coordinates")
        )
    return False


def _labels(dataset: Any) -> list[str | None]:
    """Return the labels of the axes; None for an axis without a label.

    They are read as any other attribute, because programs other than libhdf5 write them too, in
    other forms.
    """
    found: list[str | None] = [None] * len(dataset.shape)
    with _unreadable():
        if _LABELS in dataset.attrs:
            given = read_attribute(dataset, _LABELS)
            if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "SO":
                for axis, text in enumerate(given.tolist()[: len(found)]):
                    if isinstance(text, (str, bytes)):
                        found[axis] = decoded(text) or None
    return found


def _last(name: str | None) -> str | None:
    return (name or "").rpartition("/")[2] or None
