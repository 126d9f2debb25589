"""Attributes of datasets and groups, as they would be in an export to HDF5."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dosna.core.types import Array
from dosna.core.values import encode_value
from dosna.export.job import array_of_list
from dosna.serve.h5grove.values import json_of, type_of

__all__ = ["described", "values_of"]


def described(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the name, shape and type of each attribute, sorted by name."""
    found = []
    for name in sorted(attrs):
        array = _array_of(attrs[name])
        # An attribute with the value None is empty: it has a type and no shape.
        shape = None if array is None else array.shape
        kind = np.dtype("f8") if array is None else array.dtype
        found.append({"name": name, "shape": shape, "type": type_of(kind)})
    return found


def values_of(attrs: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the values of all attributes, or of some, for JSON."""
    found = {}
    for name in attrs if names is None else names:
        array = _array_of(attrs[name])
        found[name] = None if array is None else json_of(array)
    return found


def _array_of(value: Any) -> Array | None:
    """Return an attribute as an array, or as JSON text if HDF5 has no type for it."""
    if value is None:
        return None
    try:
        if isinstance(value, list):
            value = array_of_list(value)
        array = np.asarray(value)
        if array.dtype.hasobject and array.dtype.kind != "T":
            raise TypeError("HDF5 has no type for Python objects")
    except (TypeError, ValueError, OverflowError):
        return np.asarray(json.dumps(encode_value(value)))
    return array
