"""Data types and fill values of Zarr v3: conversion from NumPy to JSON and back.

Data types that are not in https://zarr-specs.readthedocs.io/en/latest/v3/data-types/index.html are
written as zarr-python 3 writes them.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from dosna.codecs.kinds import named
from dosna.core.text import TEXT, is_text
from dosna.errors import FormatError

__all__ = ["data_type_of", "decode_fill", "dtype_of", "encode_fill"]

_CORE = {
    "bool": "?",
    **{f"int{8 * n}": f"i{n}" for n in (1, 2, 4, 8)},
    **{f"uint{8 * n}": f"u{n}" for n in (1, 2, 4, 8)},
    **{f"float{8 * n}": f"f{n}" for n in (2, 4, 8)},
    **{f"complex{8 * n}": f"c{n}" for n in (8, 16)},
}
_NAMES = {np.dtype(code): name for name, code in _CORE.items()}
_TIMES = {"numpy.datetime64": "M8", "numpy.timedelta64": "m8"}
_TEXT = "string"
_TEXTS = {"fixed_length_utf32": "U", "null_terminated_bytes": "S", "raw_bytes": "V"}
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")


def data_type_of(dtype: np.dtype[Any], within: str = "") -> Any:
    """Return the JSON value of a dtype.

    Raises
    ------
    TypeError
        Zarr has no data type for it. The message begins with `within`, which names the field.
    """
    if is_text(dtype):
        return _TEXT
    name = _NAMES.get(dtype.newbyteorder("="))
    if dtype.names is not None:
        return {"name": "structured", "configuration": {"fields": _fields(dtype)}}
    if dtype.subdtype is not None:
        raise TypeError(
            f"{within}Zarr has no elements that are arrays, as those of {dtype}: add an axis"
        )
    if within and dtype.newbyteorder("=") != dtype:
        raise TypeError(
            f"{within}fields of Zarr arrays are little-endian, and {dtype.str} is not: convert it"
        )
    if name is not None:
        return name
    if dtype.kind in "mM":
        unit, count = np.datetime_data(dtype)
        kind = "numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64"
        return {"name": kind, "configuration": {"unit": unit, "scale_factor": count}}
    for kind, code in _TEXTS.items():
        if dtype.kind == code:
            return {"name": kind, "configuration": {"length_bytes": dtype.itemsize}}
    raise TypeError(
        f"{within}Zarr has no data type for {dtype}: convert it, for instance to float64"
    )


def _fields(dtype: np.dtype[Any]) -> list[Any]:
    assert dtype.names is not None
    assert dtype.fields is not None
    listed, place = [], 0
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        if offset != place:
            break
        place += kind.itemsize
        listed.append([name, data_type_of(kind, f"field {name!r}: ")])
    if place != dtype.itemsize or len(listed) != len(dtype.names):
        raise TypeError(
            f"dtype {dtype} has gaps or fields out of order, which Zarr cannot store: convert it "
            "with numpy.lib.recfunctions.repack_fields"
        )
    return listed


def dtype_of(spec: Any, order: Literal["<", ">"], where: str) -> np.dtype[Any]:
    """Return the dtype for a JSON value that `data_type_of` or another writer made.

    Raises
    ------
    FormatError
        The data type is unknown or broken.
    """
    if isinstance(spec, str):
        if spec == _TEXT:
            return TEXT
        if spec in _CORE:
            return np.dtype(_CORE[spec]).newbyteorder(order)
        if re.fullmatch(r"r[1-9]\d*", spec) and int(spec[1:]) % 8 == 0:
            return np.dtype(f"V{int(spec[1:]) // 8}")
    known = (*_CORE, _TEXT, "r<bits>", *_TIMES, *_TEXTS, "structured", "struct")
    name, configuration = named(spec, "data type", where, known)
    if name in (_TEXT, *_CORE) and not configuration:
        return dtype_of(name, order, where)
    problem = FormatError(f"{where}: the data type {spec!r} is broken")
    if name in _TIMES and configuration.keys() == {"unit", "scale_factor"}:
        unit, count = configuration["unit"], configuration["scale_factor"]
        if unit not in _UNITS or type(count) is not int or not 0 < count < 1 << 31:
            raise problem
        suffix = "" if unit == "generic" else f"[{count}{unit}]"
        return np.dtype(f"{order}{_TIMES[name]}{suffix}")
    if name in _TEXTS and configuration.keys() == {"length_bytes"}:
        length, width = configuration["length_bytes"], 4 if name == "fixed_length_utf32" else 1
        if type(length) is not int or length < 1 or length % width:
            raise problem
        return np.dtype(f"{order if width == 4 else '|'}{_TEXTS[name]}{length // width}")
    if name in ("structured", "struct") and configuration.keys() == {"fields"}:
        # zarr-python writes pairs before version 3.2, and objects from then on.
        fields = [_field(field, order, where) for field in configuration["fields"]]
        if not fields:
            raise problem
        try:
            return np.dtype(fields)
        except (ValueError, TypeError):
            raise problem from None
    raise problem


def _field(spec: Any, order: Literal["<", ">"], where: str) -> tuple[str, np.dtype[Any]]:
    if isinstance(spec, dict) and spec.keys() == {"name", "data_type"}:
        spec = spec["name"], spec["data_type"]
    if not isinstance(spec, (list, tuple)) or len(spec) != 2 or not isinstance(spec[0], str):
        raise FormatError(f"{where}: {spec!r} is not a field of a data type")
    return spec[0], dtype_of(spec[1], order, where)


def encode_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the JSON value of a fill value."""
    if is_text(dtype):
        return str(value)
    scalar = np.asarray(value, dtype.newbyteorder("=") if dtype.names is None else dtype)
    kind = dtype.kind
    if kind == "f":
        return _encode_float(scalar)
    if kind == "c":
        return [_encode_float(scalar.real), _encode_float(scalar.imag)]
    if kind in "mM":
        return int(scalar.view("i8"))
    if kind in "SV":
        return base64.b64encode(scalar.tobytes()).decode()
    return scalar.item()


def _encode_float(value: np.ndarray[Any, Any]) -> Any:
    number = float(value)
    if math.isnan(number):
        bits = int(value.copy().view(f"u{value.itemsize}"))
        usual = int(np.array(np.nan, value.dtype).view(f"u{value.itemsize}"))
        return "NaN" if bits == usual else f"0x{bits:0{2 * value.itemsize}x}"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def decode_fill(value: Any, dtype: np.dtype[Any], where: str) -> Any:
    """Return the fill value for a JSON value that `encode_fill` or another writer made.

    Returns
    -------
    scalar
        The fill value, of type `dtype`.

    Raises
    ------
    FormatError
        The JSON value is not one of that type.
    """

    def problem() -> FormatError:  # names of dtypes take long to make
        return FormatError(f"{where}: fill_value {value!r} is not a value of {dtype}")

    if is_text(dtype):
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise problem()
        return value
    kind = dtype.kind
    filled = np.zeros((), dtype)
    if kind == "b" and isinstance(value, bool):
        filled[...] = value
    elif kind in "iu" and type(value) in (int, float) and int(value) == value:
        try:
            filled[...] = int(value)
        except OverflowError:
            raise problem() from None
    elif kind == "f":
        filled[...] = _decode_float(value, dtype, problem)
    elif kind == "c" and isinstance(value, list) and len(value) == 2:
        for part, number in zip((filled.real, filled.imag), value, strict=True):
            part[...] = _decode_float(number, part.dtype, problem)
    elif kind in "mM" and value == "NaT":
        filled[...] = "NaT"
    elif kind in "mM" and type(value) is int and -(2**63) <= value < 2**63:
        filled[...] = np.int64(value).view(dtype.newbyteorder("="))
    elif kind == "U" and isinstance(value, str) and len(value) <= dtype.itemsize // 4:
        filled[...] = value
    elif dtype.names is not None and isinstance(value, dict):
        # The form of zarr-python 3.2 and later; versions before wrote the bytes.
        if value.keys() != set(dtype.names):
            raise problem()
        for field in dtype.names:
            filled[field] = decode_fill(value[field], dtype[field], where)
    elif kind in "SV" and isinstance(value, (str, list)):
        raw = bytes(value) if isinstance(value, list) else base64.b64decode(value, validate=True)
        if len(raw) > dtype.itemsize or (kind == "V" and len(raw) != dtype.itemsize):
            raise problem()
        # With fields, the bytes are little-endian, whatever the byte order of the chunks is.
        stored = dtype if dtype.names is None else dtype.newbyteorder("<")
        filled[...] = np.frombuffer(raw.ljust(dtype.itemsize, b"\0"), stored).reshape(())
    else:
        raise problem()
    return filled[()]


def _decode_float(value: Any, dtype: np.dtype[Any], problem: Callable[[], FormatError]) -> Any:
    if isinstance(value, str) and value.startswith("0x"):
        if len(value) != 2 + 2 * dtype.itemsize:
            raise problem()
        bits = np.array(int(value, 16), f"u{dtype.itemsize}")
        return bits.view(f"f{dtype.itemsize}")
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    if type(value) not in (int, float):
        raise problem()
    with np.errstate(over="ignore"):
        return np.float64(value).astype(dtype)
