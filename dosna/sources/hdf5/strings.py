"""Strings of variable length: as text, or as fixed-length bytes if they are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from dosna.core.text import TEXT, as_text
from dosna.core.types import Array, Box, Shape

__all__ = ["as_dtype", "blocks", "measure"]

_BLOCK = 1 << 16
_MOST_PADDED = 1 << 30


def blocks(shape: Shape) -> Iterator[Box]:
    """Yield boxes that cover an array, each of a bounded number of elements."""
    if not shape:
        yield ()
        return
    step = max(1, _BLOCK // max(1, prod(shape[1:])))
    inner = tuple(slice(0, n) for n in shape[1:])
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])), *inner)


def measure(shape: Shape, parts: Iterator[Array]) -> tuple[np.dtype[Any], str]:
    """Return the dtype that takes all strings of an array.

    Parameters
    ----------
    shape : tuple of int
        The shape of the array.
    parts : iterator of arrays of str or bytes objects
        The strings.

    Returns
    -------
    dtype : numpy.dtype
        The dtype of text, or S if some strings are bytes that are not UTF-8.
    refused : str
        The reason why the strings are refused: they are not text, and one of them is much longer
        than the rest. Otherwise empty.
    """
    raw, total, text = 1, 0, True
    for part in parts:
        for value in part.ravel().tolist():
            encoded = value.encode() if isinstance(value, str) else value
            total += len(encoded)
            raw = max(raw, len(encoded))
            if text:
                try:
                    encoded.decode()
                except UnicodeDecodeError:
                    text = False
    if text:
        return TEXT, ""
    dtype = np.dtype(f"S{raw}")
    size = prod(shape) * dtype.itemsize
    if size > _MOST_PADDED and size > 16 * total:
        return dtype, (
            f"its strings of variable length are {total} bytes, and would take {size} if each "
            "were as long as the longest"
        )
    return dtype, ""


def as_dtype(strings: Any, dtype: np.dtype[Any]) -> Array:
    """Convert an array of str or bytes objects to a dtype that `measure` returned."""
    array = np.asarray(strings, object)
    if dtype == TEXT:
        return as_text(array)
    values = [v.encode() if isinstance(v, str) else v for v in array.ravel().tolist()]
    return np.array(values, dtype).reshape(array.shape)
