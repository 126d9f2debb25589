"""Dtypes and values that datasets can have, and their form in JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.core.casting import lost
from dosna.core.text import TEXT, as_text, converted, decode, encode, is_text

__all__ = [
    "as_dtype",
    "check_dtype",
    "check_fillvalue",
    "decode_attrs",
    "decode_dtype",
    "decode_tagged",
    "decode_value",
    "encode_attrs",
    "encode_dtype",
    "encode_value",
    "is_masked",
    "map_parts",
    "plain_fields",
    "same_fill",
]


_TAGS = {"__numpy__", "__float__", "__map__"}

_TEXT = "string"  # NumPy does not know the name, so that a dosna without text refuses it


def as_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that `dtype` means: ``str`` and 'string' are text of variable length."""
    found = TEXT if isinstance(dtype, str) and dtype == "string" else np.dtype(dtype)
    # As zarr-python interprets it.
    return TEXT if found.kind == "U" and not found.itemsize else found


def check_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Check that the elements of a dtype are plain bytes or text.

    Returns
    -------
    dtype
        The dtype that is stored; for text, the one without options.

    Raises
    ------
    TypeError
        The dtype holds Python objects, is text with missing values, or has elements of no bytes.
    """
    if is_text(dtype):
        if hasattr(dtype, "na_object"):
            raise TypeError(
                f"dtype {dtype} has missing values, which strings of Zarr and HDF5 do not "
                "have: choose a text for them, and use dtype=str"
            )
        return TEXT
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} holds Python objects, which cannot be stored as bytes: use dtype=str "
            "for text"
        )
    if dtype.itemsize == 0:
        raise TypeError(f"dtype {dtype!r} has elements of no bytes: give it a length")
    if dtype.kind not in "biufcmMSUV" or dtype.num >= 256 or dtype.subdtype is not None:
        raise TypeError(f"dtype {dtype!r} cannot be stored: use one of NumPy's fixed-size types")
    return dtype


_MOST_FIELDS = 1000


def map_parts(dtype: np.dtype[Any], convert: Callable[[np.dtype[Any]], Any]) -> np.dtype[Any]:
    """Return a dtype of the same layout, with its parts that have no further parts converted.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype, with or without fields.
    convert : callable
        A function of a dtype without fields and extents, which returns one of the same size.
    """
    if dtype.subdtype is not None:
        return np.dtype((map_parts(dtype.base, convert), dtype.shape))
    if dtype.names is None:
        made: np.dtype[Any] = np.dtype(convert(dtype))
        return made
    assert dtype.fields is not None
    fields = [dtype.fields[name] for name in dtype.names]
    return np.dtype(
        {
            "names": list(dtype.names),
            "formats": [map_parts(field[0], convert) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
    )


def plain_fields(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Convert a structured dtype to one that Zarr can store: little-endian fields without gaps.

    A field that is an array becomes one field for each of its elements, ``a_0``, ``a_1`` and so
    on. A field that is an array of a single element keeps its name.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype to convert. A dtype without fields is returned unchanged.

    Returns
    -------
    packed, view : numpy.dtype
        The dtype to store, and one with the same fields at the offsets that they have in `dtype`.

    Raises
    ------
    TypeError
        The result would have more than 1,000 fields.
    """
    if dtype.names is None:
        return dtype, dtype
    names: list[str] = []
    packed: list[np.dtype[Any]] = []
    views: list[np.dtype[Any]] = []
    offsets: list[int] = []
    assert dtype.fields is not None
    for name in dtype.names:
        kind, start = dtype.fields[name][:2]
        single = kind.base
        one, as_is = plain_fields(single) if single.names is not None else (single, single)
        count = math.prod(kind.shape)
        if len(names) + count > _MOST_FIELDS:
            raise TypeError(
                f"it has more than {_MOST_FIELDS} fields, with each element of those that are "
                "arrays"
            )
        for number, idx in enumerate(np.ndindex(kind.shape)):
            own = name if count == 1 else "_".join([name, *map(str, idx)])
            while own in names or (own != name and own in dtype.names):
                own += "_"
            names.append(own)
            packed.append(one.newbyteorder("<"))
            views.append(as_is)
            offsets.append(start + number * single.itemsize)
    return (
        np.dtype(list(zip(names, packed, strict=True))),
        np.dtype(
            {"names": names, "formats": views, "offsets": offsets, "itemsize": dtype.itemsize}
        ),
    )


def check_fillvalue(fillvalue: Any, dtype: np.dtype[Any]) -> Any:
    """Convert a fill value to a scalar of `dtype`. None means the dtype's zero.

    Raises
    ------
    ValueError
        The value does not fit the dtype.
    """
    if fillvalue is None:
        return np.zeros((), dtype)[()]
    problem = f"fillvalue {fillvalue!r} does not fit dtype {dtype}"
    if is_text(dtype):
        if not isinstance(fillvalue, str):
            raise ValueError(f"{problem}: it is a {type(fillvalue).__name__}, not a str")
        return as_text(fillvalue)[()]
    try:
        with np.errstate(all="raise"):
            filled = np.array(fillvalue, dtype=dtype)
            if filled.shape != ():
                raise ValueError("it is not a scalar")
    except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
        raise ValueError(f"{problem}: {error}") from None
    if dtype.names is not None and isinstance(fillvalue, tuple):
        for value, name in zip(fillvalue, dtype.names, strict=True):
            if dtype[name].shape == ():
                check_fillvalue(value, dtype[name])
        return filled[()]
    given = np.asarray(fillvalue)
    if dtype.kind == "M" and given.dtype.kind not in "mM":
        # Numbers are in the dtype's own unit. Other values have their own, which may be finer.
        given = filled if given.dtype.kind in "biuf" else np.asarray(np.datetime64(fillvalue))
    lossy = dtype.kind in "biu" and given.dtype.kind not in "biuf"
    if lossy or lost(given, dtype).any():
        raise ValueError(f"{problem}: it would become {filled[()]!r}")
    return filled[()]


def is_masked(value: Any) -> bool:
    """Return True for an array of which an element, or a field of one, is masked."""
    # NumPy's own function fails for arrays of records.
    return isinstance(value, np.ma.MaskedArray) and b"\1" in np.ma.getmask(value).tobytes()


def same_fill(fill: Any, wanted: np.ndarray[Any, Any]) -> bool:
    """Return whether a fill value, cast to the dtype of `wanted`, has the same bits as it."""
    if is_text(wanted.dtype):
        # The bytes of its elements are addresses in memory. Without a dtype, NumPy reads a str as
        # text of fixed length, which loses NULs at its end.
        given = fill if isinstance(fill, np.ndarray) else np.asarray(fill, wanted.dtype)
        return bool(converted(given, wanted.dtype)[()] == wanted[()])
    try:
        given = np.asarray(fill)
        if given.dtype.kind == "c" and wanted.dtype.kind != "c":
            if given.imag != 0:
                return False
            given = given.real  # NumPy warns about imaginary parts even if they are zero
        with np.errstate(all="ignore"):
            cast = converted(given, wanted.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return cast.tobytes() == wanted.tobytes()


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    """Return a JSON value for a dtype: its ``str``, or the description of its fields."""
    if is_text(dtype):
        return _TEXT
    if dtype.names is None:
        return dtype.str if dtype.subdtype is None else [encode_dtype(dtype.base), dtype.shape]
    assert dtype.fields is not None
    fields = [[n, encode_dtype(dtype.fields[n][0]), dtype.fields[n][1]] for n in dtype.names]
    titles = [[*dtype.fields[n], None][2] for n in dtype.names]
    return {
        "fields": fields,
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        **({"titles": titles} if any(titles) else {}),
    }


def decode_dtype(value: Any) -> np.dtype[Any]:
    """Return the dtype for a JSON value of `encode_dtype`."""
    if isinstance(value, str):
        return TEXT if value == _TEXT else np.dtype(value)
    if isinstance(value, list):
        return np.dtype((decode_dtype(value[0]), tuple(value[1])))
    names, formats, offsets = zip(*value["fields"], strict=True)
    spec = {
        "names": list(names),
        "formats": [decode_dtype(f) for f in formats],
        "offsets": list(offsets),
        "itemsize": value["itemsize"],
        **({"titles": value["titles"]} if "titles" in value else {}),
    }
    return np.dtype(spec, align=value["aligned"])  # type: ignore[call-overload, no-any-return]


def encode_value(value: Any) -> Any:
    """Return the JSON form of JSON values, NumPy scalars and arrays, nested or not.

    Raises
    ------
    TypeError
        A value is none of these, or a key of a mapping is not a string.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and not isinstance(value, np.floating):
        return value if math.isfinite(value) else {"__float__": repr(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        if is_masked(value):
            raise TypeError(
                "a masked array cannot be kept in attributes, which have no mask: use its method "
                "filled(value)"
            )
        array = np.asarray(value)
        if is_text(array.dtype):
            array = as_text(array)
        elif array.dtype.hasobject:
            raise TypeError(
                f"an array of dtype {array.dtype} cannot be kept in attributes: use its tolist(), "
                "or convert it, for instance by astype(str)"
            )
        raw = encode(array) if is_text(array.dtype) else array.tobytes()
        return {
            "__numpy__": base64.b64encode(raw).decode(),
            "dtype": encode_dtype(array.dtype),
            "shape": list(array.shape),
            "scalar": isinstance(value, np.generic),
        }
    if isinstance(value, complex):
        return encode_value(np.complex128(value))
    if isinstance(value, (list, tuple)):
        return [encode_value(v) for v in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys of stored mappings are str, and {key!r} is not")
        encoded = {k: encode_value(v) for k, v in value.items()}
        # A mapping that looks like one of our tagged objects is wrapped, so that it is read back
        # unchanged.
        return {"__map__": encoded} if _TAGS & encoded.keys() else encoded
    raise TypeError(
        f"a {type(value).__name__} cannot be kept in attributes: "
        "use None, bool, int, float, complex, str, lists, mappings, NumPy scalars or arrays"
    )


def encode_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of attributes.

    Raises
    ------
    TypeError
        A name is not a str, or `encode_value` does not take a value.
    """
    for name in attrs:
        if not isinstance(name, str):
            raise TypeError(f"an attribute is named by a str, not {name!r}")
    return {name: encode_value(value) for name, value in attrs.items()}


def decode_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes from their JSON form."""
    return {name: decode_value(value) for name, value in attrs.items()}


def decode_value(value: Any) -> Any:
    """Return the value for a JSON form of `encode_value`. Tuples are read as lists, as in JSON."""
    if isinstance(value, list):
        return [decode_value(v) for v in value]
    if not isinstance(value, dict):
        return value
    found = decode_tagged(value)
    return {k: decode_value(v) for k, v in found.items()} if isinstance(found, dict) else found


def decode_tagged(value: dict[str, Any]) -> Any:
    """Read a tagged object of `encode_value`.

    Returns
    -------
    float, numpy scalar, ndarray or dict
        The value. If it is a dict, its values are still to be decoded. A mapping that is not
        exactly of the form of a tagged object, as another program may write, is returned as it is.
    """
    if _TAGS.isdisjoint(value):
        return value
    try:
        if value.keys() == {"__numpy__", "dtype", "shape", "scalar"}:
            raw = base64.b64decode(value["__numpy__"], validate=True)
            dtype, shape = decode_dtype(value["dtype"]), value["shape"]
            if is_text(dtype):
                return decode(raw, math.prod(shape)).reshape(shape)
            array = np.frombuffer(bytearray(raw), dtype).reshape(shape)
            return array[()] if value["scalar"] else array
        if value.keys() == {"__float__"}:
            number = float(value["__float__"])
            return value if math.isfinite(number) else number
    except (ValueError, TypeError, KeyError, IndexError):
        return value
    if value.keys() == {"__map__"}:
        inner = value["__map__"]
        if isinstance(inner, dict) and _TAGS & inner.keys():
            return inner
    return value
