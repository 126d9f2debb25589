"""Attributes in documents of Zarr: JSON that every program reads, and the exact values beside it.

dosna keeps attributes in the form of `dosna.core.values.encode_value`, in which NumPy's values and
NaN are tagged objects. In a ``zarr.json`` they are the plain numbers, texts and lists that other
programs expect. If a plain value is not exact, the exact value is kept beside it, and is valid as
long as the plain value is unchanged. ``_FillValue`` of arrays is written as xarray writes it
in Zarr v3, so that xarray masks it.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dosna.codecs.zarr.parsing import OWN
from dosna.core.types import Json
from dosna.core.values import decode_tagged, decode_value, encode_value
from dosna.errors import FormatError

__all__ = [
    "EXACT",
    "FILL_VALUE",
    "attributes_in",
    "decode_fill_value",
    "from_document",
    "to_document",
    "to_group",
]

FILL_VALUE = "_FillValue"
"""The attribute with the value that marks missing elements (of netCDF and xarray)."""

EXACT = "exact"
"""The field of dosna's own object in an array's document that has the exact values."""

_EXACT = "_dosna_exact"
"""The attribute of a group with the exact values. zarr-python refuses other fields in groups."""


def to_document(attrs: Mapping[str, Any], dtype: np.dtype[Any] | None = None) -> tuple[Json, Json]:
    """Return the attributes for other programs, and the exact values of some of them.

    Parameters
    ----------
    attrs : mapping
        The attributes, in the form of `dosna.core.values.encode_attrs`.
    dtype : numpy.dtype, optional
        The dtype of the array; None for a group.

    Returns
    -------
    plain, exact : dict
        The plain values of all attributes, and the exact values of those that cannot be read back
        from their plain values.
    """
    plain = {name: _spelt(name, value, dtype) for name, value in attrs.items()}
    # Even an attribute that is written unchanged can be read as something else, such as a
    # _FillValue that is text.
    read = from_document(plain, dtype=dtype)
    exact = {name: attrs[name] for name, value in read.items() if _differ(value, attrs[name])}
    return plain, exact


def from_document(
    attributes: Mapping[str, Any], exact: Any = None, dtype: np.dtype[Any] | None = None
) -> Json:
    """Return the attributes of a document in the form that `dosna.core.values.decode_value` reads.

    Parameters
    ----------
    attributes : mapping
        The attributes in the document, which any program may have written.
    exact : mapping, optional
        The exact values that `to_document` returned.
    dtype : numpy.dtype, optional
        The dtype of the array; None for a group.
    """
    found: Json = {}
    known = exact if isinstance(exact, Mapping) else {}
    for name, value in attributes.items():
        if name in known and _spelt(name, known[name], dtype) == value:
            found[name] = known[name]
        elif name == FILL_VALUE and dtype is not None:
            found[name] = encode_value(decode_fill_value(value, dtype))
        else:
            found[name] = value
    return found


def attributes_in(
    document: Mapping[str, Any], where: str, dtype: np.dtype[Any] | None = None
) -> dict[str, Any]:
    """Return the attributes in a document, as `dosna.core.values.decode_value` reads them.

    Parameters
    ----------
    document : mapping
        The document of an array or a group.
    where : str
        The name of the document in errors.
    dtype : numpy.dtype, optional
        The dtype of the array; None for a group.
    """
    found = document.get("attributes", {})
    if not isinstance(found, dict):
        raise FormatError(f"{where}: its attributes are not an object")
    if dtype is None:
        return _from_group(found)
    own = document.get(OWN, {})
    return from_document(found, own.get(EXACT) if isinstance(own, Mapping) else None, dtype)


def to_group(attrs: Mapping[str, Any]) -> Json:
    """Return the attributes to write to a group's document."""
    plain, exact = to_document(attrs)
    if _EXACT in attrs:
        exact[_EXACT] = attrs[_EXACT]
    # JSON text, because xarray passes the attributes of groups on to formats without objects.
    return {**plain, _EXACT: json.dumps(exact)} if exact else plain


def _from_group(attributes: Mapping[str, Any]) -> Json:
    """Return the attributes of a group's document in the form that `decode_value` reads."""
    text = attributes.get(_EXACT)
    try:
        exact = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        exact = None
    if not isinstance(exact, dict):
        return from_document(attributes)
    found = from_document({k: v for k, v in attributes.items() if k != _EXACT}, exact)
    if _EXACT in exact:
        found[_EXACT] = exact[_EXACT]
    return found


def decode_fill_value(value: Any, dtype: np.dtype[Any]) -> Any:
    """Read a ``_FillValue`` as xarray writes it to Zarr v3.

    A floating-point number is the base64 of a little-endian double, a complex number is a pair of
    these, and bytes are written in base64. Any other value is returned unchanged.
    """
    try:
        if dtype.kind == "f" and isinstance(value, str):
            with np.errstate(over="ignore"):
                return dtype.type(_double(value))
        if dtype.kind == "c" and isinstance(value, (list, tuple)) and len(value) == 2:
            real, imaginary = map(_double, value)
            return dtype.type(complex(real, imaginary))
        if dtype.kind == "S" and isinstance(value, str):
            return np.bytes_(base64.b64decode(value, validate=True))
    except (ValueError, TypeError, struct.error):
        pass
    return value


def _double(text: Any) -> float:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a str")
    (number,) = struct.unpack("<d", base64.b64decode(text, validate=True))
    return float(number)


def _differ(plain: Any, stored: Any) -> bool:
    # Compared as JSON text, in which 1, 1.0 and True are different.
    return plain is not stored and json.dumps(plain) != json.dumps(stored)


def _spelt(name: str, value: Any, dtype: np.dtype[Any] | None) -> Any:
    """Return the value that other programs read for a stored one."""
    if name == FILL_VALUE and dtype is not None:
        found = _fill_value(decode_value(value), dtype)
        if found is not None:
            return found
    return _plain(value)


def _fill_value(value: Any, dtype: np.dtype[Any]) -> Any:
    """Write a ``_FillValue`` as xarray does. Return None if xarray has no form for it."""
    if value is None or isinstance(value, (str, dict)):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.size != 1 or array.dtype.kind not in "biufcSU":
        return None
    item, kind = array.reshape(-1)[0].item(), dtype.kind
    number = array.dtype.kind in "iuf"
    if kind == "f" and number:
        return _encoded(struct.pack("<d", item))
    if kind == "c" and array.dtype.kind in "iufc":
        item = complex(item)
        return [_encoded(struct.pack("<d", part)) for part in (item.real, item.imag)]
    if kind in "iu" and number and math.isfinite(item) and int(item) == item:
        return int(item)
    if kind == "b" and array.dtype.kind in "bi":
        return bool(item)
    if kind == "S" and isinstance(item, bytes):
        return _encoded(item)
    return None


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    found = decode_tagged(value)
    if isinstance(found, dict):
        return {k: _plain(v) for k, v in found.items()}
    if isinstance(found, float) and not isinstance(found, np.generic):
        return _number(found)
    array = np.asarray(found)
    # netCDF has no scalars: its attributes of one element are arrays, but are meant as scalars.
    return _elements(array.reshape(()) if array.shape == (1,) else array)


def _number(value: float) -> Any:
    """Return a finite number unchanged, and the name in Zarr's specification of any other."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _elements(array: np.ndarray[Any, Any]) -> Any:
    kind = array.dtype.kind
    if kind in "biuUT":
        return array.tolist()
    if kind == "f":
        with np.errstate(over="ignore"):
            return _nested(array.astype(np.float64).tolist(), _number)
    if kind == "c":
        return _elements(np.stack([array.real, array.imag], axis=-1))
    if kind == "S":
        return _nested(array.tolist(), _text)
    if kind == "M" and np.datetime_data(array.dtype)[0] == "generic":  # which has no text
        return array.astype(np.int64).tolist()
    if kind in "mM":
        return _nested(array.astype(str).tolist(), str)
    if array.ndim:
        return [_elements(part) for part in array]
    names = array.dtype.names
    if names is None:
        return _encoded(array.tobytes())
    return [_elements(np.asarray(array[name])) for name in names]


def _nested(value: Any, one: Callable[[Any], Any]) -> Any:
    return [_nested(v, one) for v in value] if isinstance(value, list) else one(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _encoded(value)
