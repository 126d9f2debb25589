"""Checks and conversions of values that are assigned or loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dosna.core.metadata import check_extents
from dosna.core.text import as_text, converted
from dosna.core.types import Array, Shape
from dosna.engines.work.boxes import plain

__all__ = ["assignable", "is_source", "shape_of"]


def is_source(values: Any) -> bool:
    """Return True if values are read by slicing.

    They are if they have shape and dtype, and are not in memory.
    """
    return (
        hasattr(values, "shape")
        and hasattr(values, "dtype")
        and hasattr(values, "__getitem__")
        and not isinstance(values, (np.ndarray, np.generic))
        and _is_of_numpy(values.dtype)
    )


def _is_of_numpy(dtype: Any) -> bool:
    """Return True if NumPy has the type: pandas and others have their own, in memory."""
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True


def assignable(values: Any, dtype: np.dtype[Any]) -> Array:
    """Return values as an array whose cast to `dtype` cannot fail halfway through a chunk."""
    if dtype.kind == "T":
        return as_text(values)
    if not isinstance(values, (np.ndarray, np.generic)) and not hasattr(values, "__array__"):
        # Numbers, lists and records are converted as NumPy does when they are assigned.
        return np.asarray(values, dtype)
    if isinstance(values, np.generic) and values.dtype != dtype:
        # NumPy converts a scalar as a number of Python, and raises what does not fit; of arrays,
        # integers wrap around.
        one = np.empty((), dtype)
        one[()] = values
        return one
    array = plain(values)
    if array.dtype.kind in "OSTUV" and array.dtype != dtype:
        return converted(array, dtype)
    return array


def shape_of(data: Any, shape: int | Sequence[int] | None) -> Shape:
    """Return the shape of data, or raise ValueError if another was asked for."""
    found: Shape = tuple(data.shape)
    if shape is not None and check_extents(shape, "shape") != found:
        raise ValueError(f"shape {shape} is not that of data, {found}: leave one of them out")
    return found
