"""Values of datasets: selections, their limits, and the formats of answers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from h5grove.encoders import encode, orjson_encode
from h5grove.utils import convert, get_array_stats, is_numeric_data, parse_slice

from dosna.core.selection import select
from dosna.core.text import element_bytes
from dosna.core.types import Array
from dosna.serve.h5grove.lines import Line, LinePoints, Shortened
from dosna.serve.h5grove.values import json_of, shown
from dosna.web import Limits, Refusal, sharing

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["Encoded", "encoded", "json_encoded", "statistics"]

_HINT = "select a part of it, or read it with dosna or as Zarr"

# The approximate maximum number of characters of an element as text.
_CHARACTERS = {"csv": 26, "json": 24}
_FORMATS = ("json", "bin", "npy", "csv", "tiff")


@dataclass(frozen=True)
class Encoded:
    """The body of an answer, and its headers."""

    content: bytes | memoryview
    headers: Mapping[str, str]


def json_encoded(value: Any) -> Encoded:
    """Return a JSON value as the body of an answer."""
    return Encoded(orjson_encode(value), {"Content-Type": "application/json"})


def encoded(
    found: EngineDataset | Shortened | LinePoints,
    selection: str | None,
    form: str,
    dtype: str,
    flatten: bool,
    limits: Limits,
) -> Encoded:
    """Read a part of a dataset, and return it in a format.

    Parameters
    ----------
    found : EngineDataset, Shortened or LinePoints
        The dataset, or the points that replace it.
    selection : str or None
        The part, as the text of an index: ``3,:,10:20``.
    form : {'json', 'bin', 'npy', 'csv', 'tiff'}
        The form.
    dtype : {'origin', 'safe'}
        The type of numbers: the dataset's own, or a little-endian one that JavaScript has.
    flatten : bool
        True for a flat list, whatever the shape.
    limits : Limits
        The limits of the answer.

    Raises
    ------
    Refusal
        The selection or the format does not fit the dataset, or the answer would be too large.
    """
    if form not in _FORMATS:
        raise Refusal(422, f"there is no format {form!r}", f"use one of {', '.join(_FORMATS)}")
    key = _key(selection, _ndim(found))
    with sharing(_checked_size(found, key, form, limits)):
        return _encoded(_read(found, key), form, dtype, flatten)


def _encoded(values: Array, form: str, dtype: str, flatten: bool) -> Encoded:
    try:
        if dtype != "origin":
            values = convert(values, dtype)
        if flatten and values.ndim:
            values = values.reshape(-1)
        if form == "json":
            return json_encoded(json_of(values))
        if form == "bin":
            return _binary(values)
        if form == "csv" and values.ndim > 2:
            raise ValueError("csv has one or two axes")
        if form == "csv" and _is_beyond_floats(values):
            text = io.BytesIO()
            np.savetxt(text, values, "%d", ",")
            # Its headers are those of other CSV, but for the length.
            length = {"Content-Length": str(text.tell())}
            return Encoded(text.getvalue(), {**encode(values[:0], form).headers, **length})
        if form == "tiff" and (values.ndim < 2 or not values.size):
            raise ValueError("tiff has two or more axes, and none without elements")
        response = encode(values, form)
    except ValueError as error:  # also of h5grove, about formats and types that do not fit
        raise Refusal(422, str(error)) from None
    return Encoded(response.content, response.headers)


def _is_beyond_floats(values: Array) -> bool:
    """Return True for integers that lose digits as float64, as which h5grove writes them."""
    if values.dtype.kind not in "iu" or not values.size:
        return False
    return max(-int(values.min()), int(values.max())) > 1 << 53


def statistics(
    found: EngineDataset | Shortened | LinePoints, selection: str | None, limits: Limits
) -> dict[str, Any]:
    """Return the minimum, maximum, mean and standard deviation of finite values."""
    key = _key(selection, _ndim(found))
    with sharing(_checked_size(found, key, "bin", limits)):
        return _statistics(_read(found, key))


def _statistics(values: Array) -> dict[str, Any]:
    if not is_numeric_data(values) or values.dtype.kind == "c":
        raise Refusal(422, "the dataset does not have real numbers")
    if values.dtype.kind == "f":
        # NumPy sums up squares in the dtype of the values, and the largest of float16 is 65504.
        exact = np.promote_types(values.dtype, np.float32)
        values = values[np.isfinite(values)].astype(exact, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        stats: dict[str, Any] = dict(get_array_stats(values))
    if values.dtype.kind in "iu" and values.size:
        # The mean of floats may be larger than the integers of JSON.
        stats["mean"] = min(max(stats["mean"], stats["min"]), stats["max"])
    return stats


def _ndim(found: EngineDataset | Shortened | LinePoints) -> int:
    if isinstance(found, LinePoints):
        return len(found.shape)
    return 1 if isinstance(found, Shortened) else found.ndim


def _key(selection: str | None, ndim: int) -> Any:
    """Parse the text of an index."""
    if not selection:
        return ()
    try:
        key = parse_slice(selection)
    except (TypeError, ValueError):
        raise Refusal(
            422, "the selection is not an index", "write it as '3,:,10:20' or leave it out"
        ) from None
    if len(key) > ndim:
        raise Refusal(422, f"the selection has {len(key)} parts for {ndim} axes")
    return key


def _checked_size(found: Any, key: Any, form: str, limits: Limits) -> int:
    """Return the memory that an answer takes with a chunk of it, unless it is too large."""
    if isinstance(found, LinePoints) and found.kind != "line":
        return 0
    if isinstance(found, (LinePoints, Shortened)):
        line: Line = found.line
        return line.held_bytes
    try:
        count = prod(select(key, found.shape).out_shape)
    except (IndexError, ValueError) as error:
        raise Refusal(422, str(error)) from None
    size = element_bytes(found.dtype)
    nbytes = count * max(size, _CHARACTERS.get(form, 0))
    limits.check_bytes(nbytes, _HINT)
    chunk: int = prod(map(min, found.chunk_size, found.shape))
    return nbytes + chunk * size


def _read(found: Any, key: Any) -> Array:
    """Return the values of a selection."""
    if isinstance(found, (LinePoints, Shortened)):
        line = found.values() if isinstance(found, LinePoints) else found.line.values()
        return np.asarray(np.asarray(line)[key])
    return shown(np.asarray(found[key], found.dtype))  # a single element has lost its byte order


def _binary(values: Array) -> Encoded:
    """Return the bytes of an array, without a copy if it is contiguous."""
    if values.dtype.kind in "TOUM":
        raise Refusal(422, "text has no binary format", "use the format json")
    flat = np.ascontiguousarray(values).reshape(-1)
    content = flat.view(np.uint8).data if flat.size else b""
    return Encoded(content, {"Content-Type": "application/octet-stream"})
