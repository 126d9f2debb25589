"""Columns as Arrow arrays, and the schema of a result."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from dosna.core.casting import times_for_arrow
from dosna.core.types import Array
from dosna.errors import QueryTypeError
from dosna.registry import needing

__all__ = ["Batches", "arrow", "converting", "schema_of"]

# The types that Arrow stores as the same bytes, which excludes other byte orders.
_PLAIN = frozenset(map(np.dtype, ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")))


@functools.cache
def _type_of(dtype: np.dtype[Any]) -> Any:
    return arrow().from_numpy_dtype(dtype)


def arrow() -> Any:
    """Import pyarrow.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    with needing("Arrow tables need", "query"):
        import pyarrow
    return pyarrow


def _array(values: Any) -> Any:
    """Return a column as an Arrow array, without a copy if possible."""
    pa = arrow()
    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype in _PLAIN:
            buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
            return pa.Array.from_buffers(_type_of(values.dtype), len(values), buffers)
        if values.dtype.kind in "mM":
            values = times_for_arrow(values)
        if values.dtype.kind in "SU" and values.ndim == 1 and _has_nul_inside(values):
            # pyarrow would end each text there.
            return pa.array(values.tolist())
        if values.ndim == 1 and values.dtype.kind != "c":
            return pa.array(values)
        if values.dtype.kind in "biufmM" and values.ndim > 1 and 0 not in values.shape[1:]:
            inner = _array(values.reshape(-1, *values.shape[2:]))
            return pa.FixedSizeListArray.from_arrays(inner, values.shape[1])
    import awkward as ak

    from dosna.columns.arrow import for_arrow

    return ak.to_arrow(for_arrow(ak.Array(values)), extensionarray=False)


def _has_nul_inside(texts: Array) -> bool:
    """Return True if a text of fixed length has a NUL before another character."""
    unit = np.dtype("u1" if texts.dtype.kind == "S" else "u4")
    shape = len(texts), texts.dtype.itemsize // unit.itemsize
    cells = np.ascontiguousarray(texts).view(unit).reshape(shape) != 0
    return bool((~cells[:, :-1] & cells[:, 1:]).any())


def schema_of(nothing: Mapping[str, Any]) -> Any:
    """Return the Arrow schema of a result, from its columns without entries."""
    pa = arrow()
    fields = []
    for name, values in nothing.items():
        with converting(name, values, "Arrow"):
            fields.append((name, _array(values).type))
    return pa.schema(fields)


@contextmanager
def converting(name: str, values: Any, to: str) -> Iterator[None]:
    """Raise QueryTypeError for a column that another library does not take."""
    use = "to_numpy()" if isinstance(values, np.ndarray) else "to_awkward()"
    try:
        yield
    except UnicodeError as error:
        raise QueryTypeError(
            f"column {name!r} of the query has text with surrogates, which {to} does not take: "
            f"use {use}, or choose other columns"
        ) from error
    except (NotImplementedError, TypeError) as error:  # pyarrow's own is one
        kind = getattr(values, "dtype", None) or values.type.content
        raise QueryTypeError(
            f"column {name!r} of the query is {kind}, for which {to} has no type: use {use}, or "
            "choose other columns"
        ) from error


class Batches:
    """The conversion of the columns of a range to a RecordBatch.

    Parameters
    ----------
    schema : pyarrow.Schema
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def __call__(self, columns: Mapping[str, Any], length: int) -> Any:
        pa = arrow()
        arrays = []
        for wanted, values in zip(self.schema, columns.values(), strict=True):
            with converting(wanted.name, values, "Arrow"):
                array = _array(values)
            # The type of optional values and of unions depends on the values.
            arrays.append(array if array.type == wanted.type else array.cast(wanted.type))
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.nulls(length, pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)
