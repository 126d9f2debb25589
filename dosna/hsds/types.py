"""Conversion between the JSON of HSDS's types, shapes and attributes, and NumPy's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from h5json.array_util import arrayToBytes, bytesArrayToList, bytesToArray, jsonToArray
from h5json.hdf5dtype import createDataType, getTypeItem

from dosna.core.types import Array, Json, Shape

__all__ = [
    "attribute",
    "bytes_of",
    "dtype_of",
    "elements",
    "packed",
    "shape_of",
    "type_of",
    "value_of",
]


# h5py's name for opaque types that are NumPy's dates.
_DATES = "NUMPY:"


def type_of(dtype: np.dtype[Any]) -> Json:
    """Return the JSON of a dtype, packed. Complex numbers are compounds of r and i, as in h5py.

    Raises
    ------
    TypeError
        If HSDS has no such type.
    """
    if dtype.names is not None:
        assert dtype.fields is not None
        fields = [{"name": n, "type": type_of(dtype.fields[n][0])} for n in dtype.names]
        return {"class": "H5T_COMPOUND", "fields": fields}
    if dtype.subdtype is not None:
        base, dims = dtype.subdtype
        return {"class": "H5T_ARRAY", "base": type_of(base), "dims": list(dims)}
    if dtype.kind == "c":
        part = type_of(np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}"))
        fields = [{"name": name, "type": part} for name in ("r", "i")]
        return {"class": "H5T_COMPOUND", "fields": fields}
    if dtype.kind in "mM":
        return {"class": "H5T_OPAQUE", "size": dtype.itemsize, "tag": _DATES + dtype.str}
    found: Json = getTypeItem(dtype)
    return found


def dtype_of(type_json: Any) -> np.dtype[Any]:
    """Return the dtype of HSDS's elements, with the metadata that h5py adds to it.

    Raises
    ------
    TypeError
        If there is no such dtype.
    """
    kind = type_json["class"] if isinstance(type_json, dict) else ""
    if kind == "H5T_COMPOUND":
        fields = [(f["name"], dtype_of(f["type"])) for f in type_json["fields"]]
        if [name for name, _ in fields] == ["r", "i"] and fields[0][1] == fields[1][1]:
            part = fields[0][1]
            if part.kind == "f" and part.itemsize > 2:
                whole: np.dtype[Any] = np.dtype(f"{part.byteorder}c{2 * part.itemsize}")
                return whole
        fields_of: np.dtype[Any] = np.dtype(fields)
        return fields_of
    if kind == "H5T_ARRAY":
        inner: np.dtype[Any] = np.dtype((dtype_of(type_json["base"]), tuple(type_json["dims"])))
        return inner
    if kind == "H5T_OPAQUE" and str(type_json.get("tag", "")).startswith(_DATES):
        date: np.dtype[Any] = np.dtype(type_json["tag"][len(_DATES) :])
        return date
    try:
        found: np.dtype[Any] = createDataType(type_json)
    except (KeyError, ValueError) as error:
        raise TypeError(f"it is unknown here: {error}") from None
    return found


def packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype without gaps between its fields: HSDS has no gaps."""
    if dtype.names is not None:
        assert dtype.fields is not None
        return np.dtype([(name, packed(dtype.fields[name][0])) for name in dtype.names])
    if dtype.subdtype is not None:
        return np.dtype((packed(dtype.base), dtype.shape))
    return dtype


def shape_of(shape_json: Any) -> Shape | None:
    """Return the shape that JSON describes; None for a null dataspace."""
    if isinstance(shape_json, list):
        return tuple(map(int, shape_json))
    if isinstance(shape_json, str):
        shape_json = {"class": shape_json}
    if shape_json["class"] == "H5S_NULL":
        return None
    return tuple(map(int, shape_json.get("dims", ())))


def elements(data: bytes, dtype: np.dtype[Any], shape: Shape) -> Array:
    """Convert the bytes that HSDS sends into an array, which may be a view of them."""
    if not dtype.hasobject:
        return np.frombuffer(data, packed(dtype)).reshape(shape + packed(dtype).shape)
    found: Array = bytesToArray(data, dtype, shape)
    return found


def bytes_of(array: Array) -> bytes:
    """Convert an array into the bytes that HSDS takes."""
    if array.dtype.hasobject:
        found: bytes = arrayToBytes(array)
        return found
    return np.asarray(array, packed(array.dtype)).tobytes()


def attribute(value: Any, dtype: np.dtype[Any] | None = None) -> Json:
    """Return the JSON of an attribute.

    Parameters
    ----------
    value : None, str, scalar, or array
        The value; None is a null dataspace.
    dtype : numpy.dtype, optional
        The dtype with h5py's metadata, where the value's own dtype is not enough.

    Raises
    ------
    TypeError, ValueError
        If HSDS cannot keep the attribute.
    """
    if value is None:
        return {"type": type_of(dtype or np.dtype("f8")), "shape": "H5S_NULL"}
    if isinstance(value, str):
        dtype, array = _text(), np.asarray(value, object)
    else:
        array = np.asarray(value)
        if array.dtype.kind in "UT":
            dtype, array = _text(), array.astype(object)
    dtype = dtype or array.dtype
    made: Json = {"type": type_of(dtype), "value": _listed(array)}
    made["shape"] = list(array.shape) if array.shape else "H5S_SCALAR"
    if array.size == 0:
        # Without a value, readers get zeros, and the server decides how many.
        made["value"] = []
    return made


def _text() -> np.dtype[Any]:
    return np.dtype("O", metadata={"vlen": str})


def _listed(array: Array) -> Any:
    if array.dtype.kind == "c":
        pairs = np.stack([array.real, array.imag], -1)
        return pairs.tolist()
    if array.dtype.kind in "mM":
        raise TypeError("HSDS has no attributes that are dates")
    if any(array.dtype[name].kind in "cmM" for name in array.dtype.names or ()):
        raise TypeError(f"an attribute of {array.dtype}")
    return bytesArrayToList(array)


def value_of(found: Mapping[str, Any]) -> Any:
    """Return the value of an attribute, as h5py does: None, a str, a scalar or an array."""
    shape = shape_of(found["shape"])
    if shape is None:
        return None
    dtype = dtype_of(found["type"])
    given = found.get("value")
    if dtype.kind == "c":
        parts = np.asarray(given, f"f{dtype.itemsize // 2}").reshape(*shape, 2)
        array: Array = (parts[..., 0] + 1j * parts[..., 1]).astype(dtype)
    elif given is None:
        array = np.zeros(shape, dtype)
    else:
        array = jsonToArray(shape, dtype, given)
    return array[()] if shape == () else array
