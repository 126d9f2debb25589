"""Datasets of HDF5 that are numbers in one piece of their file, described without h5py's objects.

A file may have tens of thousands of them, of a few bytes each: MATLAB, EEGLAB, SNIRF and CGNS
write such files. h5py's low-level functions describe one in a tenth of the time of
`dosna.sources.hdf5.reader`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5o, h5s, h5t

from dosna.core.types import Array, Box, Shape
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import ContiguousReader, rows
from dosna.sources.base import ArrayDescription
from dosna.sources.hdf5.conventions import convention_notes
from dosna.sources.hdf5.types import attributes

__all__ = ["PlainReader", "describe_plain"]

_NUMBERS = "iuf"

_OF_NETCDF = {"CLASS", "DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"}
"""Attributes of datasets whose axes may have names, see `dosna.sources.hdf5.scales`."""


class PlainReader:
    """A reader of a dataset whose elements are in one piece of the file.

    Parameters
    ----------
    file : ByteFile
        The file.
    offset : int
        The position of the first element in the file.
    shape : tuple of int
        The shape of the dataset.
    dtype : numpy.dtype
        The type of its elements.
    """

    __slots__ = ("_data",)

    def __init__(self, file: ByteFile, offset: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._data = ContiguousReader(file, offset, shape, dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._data.dtype

    def stored(self) -> Array | None:
        """Return None, because everything is stored."""
        return None

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box of the dataset into an array of its shape."""
        self._data.read_into(box, out)


def describe_plain(
    file: ByteFile,
    opened: Any,
    name: str,
    links: tuple[str, ...],
    known: Callable[[Any], str | None],
) -> tuple[ArrayDescription, PlainReader] | None:
    """Describe a dataset, as `DatasetReader` does. Return None if that is needed.

    Parameters
    ----------
    file : ByteFile
        The bytes of the file.
    opened : h5py.File
        The file, which is not open for writing.
    name : str
        The name of the dataset.
    links : tuple of str
        Its other names.
    known : callable
        See `dosna.sources.hdf5.types.attributes`.

    Returns
    -------
    tuple
        The description of the dataset, and a reader of its elements.
    """
    found = h5d.open(opened.id, name.encode("utf-8", "surrogateescape"))
    if h5o.get_info(found).fileno != h5o.get_info(opened.id).fileno:
        return None
    creation = found.get_create_plist()
    if creation.get_layout() != h5d.CONTIGUOUS or creation.get_external_count():
        return None
    offset = found.get_offset()
    space, dtype = found.get_space(), _dtype_of(found.get_type())
    if dtype is None or offset is None or not found.get_storage_size():
        return None
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        return None
    attrs: dict[str, Any] = {}
    if h5a.get_num_attrs(found):
        dataset = h5py.Dataset(found)
        if not _OF_NETCDF.isdisjoint(dataset.attrs):
            return None
        attrs = attributes(dataset, known)
    fillvalue = np.zeros((), dtype)
    if creation.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        creation.get_fill_value(fillvalue)
    shape: Shape = space.shape
    description = ArrayDescription(
        name,
        shape,
        dtype,
        attrs,
        pieces=rows(shape, dtype.itemsize),
        fillvalue=fillvalue[()],
        links=links,
        notes=convention_notes(name, attrs, dtype),
    )
    return description, PlainReader(file, offset, shape, dtype)


def _dtype_of(stored: Any) -> np.dtype[Any] | None:
    """Return the dtype with the same bytes as a type of numbers; None for other types."""
    if stored.get_class() not in (h5t.INTEGER, h5t.FLOAT):
        return None
    dtype: np.dtype[Any] = stored.dtype
    if dtype.kind not in _NUMBERS or dtype.itemsize > 8 or not stored.equal(_type_of(dtype.str)):
        return None
    return np.dtype(dtype.str)


@cache
def _type_of(kind: str) -> Any:
    return h5t.py_create(np.dtype(kind))
