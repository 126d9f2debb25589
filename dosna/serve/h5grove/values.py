"""Dtypes as HDF5 types, and arrays as JSON, as h5grove represents them."""

from __future__ import annotations

from math import prod
from typing import Any

import h5py
import numpy as np
from h5grove.utils import get_type_metadata, stringify_dtype

from dosna.core.types import Array, Shape

__all__ = ["json_of", "shown", "shown_dtype", "type_of"]

_COMPOUND, _ARRAY = 6, 10  # H5T_COMPOUND, H5T_ARRAY


def shown_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which values are sent; that of time spans is an integer."""
    return np.dtype("<i8") if dtype.kind == "m" else dtype


def shown(values: Array) -> Array:
    """Return values in the dtype in which they are sent."""
    return values.astype(shown_dtype(values.dtype), copy=False)


def type_of(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the description of a type. Text and dates are strings of variable length.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of a dataset or an attribute.

    Returns
    -------
    dict
        The HDF5 class of the type, its size in bytes, and further properties of its class.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {
            "class": _ARRAY,
            "dtype": dtype.str,
            "size": dtype.itemsize,
            "dims": shape,
            "base": type_of(base),
        }
    if dtype.names is not None and dtype.fields is not None:
        return {
            "class": _COMPOUND,
            "dtype": stringify_dtype(dtype),
            "size": dtype.itemsize,
            "members": [{"name": name, **type_of(dtype.fields[name][0])} for name in dtype.names],
        }
    kind = h5py.string_dtype() if dtype.kind in "TUM" else shown_dtype(dtype)
    found: dict[str, Any] = dict(get_type_metadata(h5py.h5t.py_create(kind, logical=True)))
    return found


def json_of(values: Any) -> Any:
    r"""Return a value that orjson encodes as h5grove does: an array of numbers, or lists.

    Dates are texts in ISO 8601, complex numbers are pairs, and records are lists of their fields;
    bytes are text, with ``\xNN`` for those that are not UTF-8, and ``\uNNNN`` for surrogates.
    """
    array = np.asarray(values)
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        if not array.ndim:
            return array[()]
        return array if array.dtype.isnative else array.tolist()
    if array.dtype.kind == "c":
        pairs = np.ascontiguousarray(array, np.complex128).view(np.float64)
        return pairs.reshape(*array.shape, 2)
    return _nested(_elements(array), array.shape)


def _elements(array: Array) -> list[Any]:
    """Return the elements of an array as a flat list of JSON values."""
    dtype = array.dtype
    if dtype.names is not None:
        columns = [_column(array[name], array.ndim) for name in dtype.names]
        return [list(record) for record in zip(*columns, strict=True)]
    flat = array.reshape(-1)
    if dtype.kind == "M":
        # NumPy's function takes no account of the byte order.
        return list(np.datetime_as_string(flat.astype(dtype.newbyteorder("="))).tolist())
    if dtype.kind == "m":
        return list(shown(flat).tolist())
    if dtype.kind == "S":
        return [item.decode("utf-8", "backslashreplace") for item in flat.tolist()]
    if dtype.kind == "U":
        return [item.encode("utf-8", "backslashreplace").decode() for item in flat.tolist()]
    if dtype.kind == "V":
        return [item.hex() for item in flat.tolist()]
    if dtype.kind == "c":
        return [[item.real, item.imag] for item in flat.astype(np.complex128).tolist()]
    if dtype.kind == "f" and dtype.itemsize > 8:
        return list(flat.astype(float).tolist())
    return list(flat.tolist())


def _column(array: Array, ndim: int) -> list[Any]:
    """Return the values of a field, one for each record, which may themselves be arrays."""
    flat, inner = _elements(array), array.shape[ndim:]
    if not inner:
        return flat
    count = prod(inner)
    return [_nested(flat[k : k + count], inner) for k in range(0, len(flat), count)]


def _nested(flat: list[Any], shape: Shape) -> Any:
    """Return a flat list as nested lists; its only element if there are no axes."""
    if not shape:
        return flat[0]
    for extent in reversed(shape[1:]):
        if not extent:
            return _empty(shape)
        flat = [flat[k : k + extent] for k in range(0, len(flat), extent)]
    return flat


def _empty(shape: Shape) -> list[Any]:
    return [_empty(shape[1:]) for _ in range(shape[0])] if shape[1:] else []
