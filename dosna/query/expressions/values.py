"""The values of expressions: NumPy arrays, lists of numbers, optional numbers, awkward arrays.

A value at the level of entries is an ndarray with one axis, or `Masked` if values may be missing.
Lists of a fixed size are further axes of an ndarray, and lists of numbers are `Lists`. Anything
else is an `awkward.Array`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dosna.core.types import Array
from dosna.errors import QueryError, QueryTypeError, UnknownNameError
from dosna.query.expressions.functions import nearest

__all__ = [
    "Lists",
    "Masked",
    "Value",
    "apply",
    "depth_of",
    "dtype_of",
    "is_scalar",
    "is_text",
    "look_up",
    "to_array",
    "to_awkward",
    "to_value",
]

Value = Any
"""A scalar, an ndarray, `Lists`, `Masked` or an `awkward.Array`."""


class Lists:
    """Lists of numbers: list ``i`` is ``content[offsets[i] : offsets[i + 1]]``.

    Parameters
    ----------
    offsets : ndarray of int64
        The offsets, one more than there are lists, beginning with 0.
    content : ndarray
        The elements of all lists.
    """

    __slots__ = ("content", "offsets")

    def __init__(self, offsets: Array, content: Array) -> None:
        self.offsets, self.content = offsets, content

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Array:
        return np.diff(self.offsets)


class Masked:
    """Numbers, some of which are missing: those where `valid` is false.

    Parameters
    ----------
    data : ndarray
        The numbers, with arbitrary values where they are missing.
    valid : ndarray of bool
    """

    __slots__ = ("data", "valid")

    def __init__(self, data: Array, valid: Array) -> None:
        self.data, self.valid = data, valid

    def __len__(self) -> int:
        return len(self.data)


def is_scalar(value: Value) -> bool:
    """Return whether a value is the same for all entries: a literal, or computed from literals."""
    return isinstance(value, (bool, int, float, str, np.generic))


def is_text(value: Value) -> bool:
    """Return whether the elements of a value are strings or bytes."""
    if isinstance(value, (Lists, Masked, np.ndarray, np.generic)):
        return False
    if is_scalar(value):
        return isinstance(value, str)
    return innermost(value.layout).parameter("__array__") in ("string", "bytestring")


def innermost(layout: Any) -> Any:
    """Return the layout of the elements within lists and options: numbers, text or records."""
    while (layout.is_list or layout.is_option or layout.is_indexed) and (
        layout.parameter("__array__") not in ("string", "bytestring")
    ):
        layout = layout.content
    return layout


def dtype_of(value: Value) -> np.dtype[Any] | None:
    """Return the dtype of the elements; None if they are not numbers, and for plain literals."""
    if isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic):
        return None
    if hasattr(value, "layout"):
        inner = innermost(value.layout)
        if inner.is_unknown:  # all lists are empty
            return np.dtype(np.float64)
        return np.dtype(inner.dtype) if inner.is_numpy else None
    plain = value.content if isinstance(value, Lists) else _data(value)
    return np.dtype(plain.dtype)


def depth_of(value: Value) -> int:
    """Return the number of lists around an element: 0 at the level of entries."""
    if is_scalar(value) or isinstance(value, Masked):
        return 0
    if isinstance(value, Lists):
        return 1
    if isinstance(value, np.ndarray):
        return value.ndim - 1
    depth, layout = -1, value.layout
    while True:
        if layout.is_option or layout.is_indexed:
            layout = layout.content
        elif layout.is_list and layout.parameter("__array__") not in ("string", "bytestring"):
            layout, depth = layout.content, depth + 1
        else:
            return depth + (layout.inner_shape.__len__() if layout.is_numpy else 0) + 1


def to_value(array: Any) -> Value:
    """Return the simplest form of the array of a column."""
    if not hasattr(array, "layout"):
        return array if isinstance(array, (Lists, Masked)) else np.asarray(array)
    import awkward as ak

    layout = array.layout
    if layout.is_indexed and not layout.is_option:
        layout = layout.project()
    if layout.is_numpy:
        return np.asarray(layout.data)
    if layout.is_unknown:
        return np.empty(0)
    if layout.is_option and layout.content.is_numpy and len(layout.content.shape) == 1:
        valid = layout.mask_as_bool(valid_when=True)
        index = layout.to_IndexedOptionArray64().index.data
        data = np.asarray(layout.content.data)
        picked = data[np.where(valid, index, 0)] if len(data) else np.zeros(len(index), data.dtype)
        return Masked(picked, np.asarray(valid))
    if layout.is_list and layout.content.is_unknown and not layout.is_regular:
        return Lists(np.asarray(layout.to_ListOffsetArray64(True).offsets.data), np.empty(0))
    if layout.is_list and layout.content.is_numpy and not is_text(array):
        if layout.is_regular:
            data = np.asarray(layout.content.data)[: len(layout) * layout.size]
            return data.reshape(len(layout), layout.size, *data.shape[1:])
        plain = layout.to_ListOffsetArray64(True)
        content = np.asarray(plain.content.data)
        if content.ndim == 1:
            offsets = np.asarray(plain.offsets.data)
            return Lists(offsets, content[: offsets[-1]])
    return ak.Array(layout)


def to_awkward(value: Value) -> Any:
    """Return a value that is not a scalar as an awkward array."""
    import awkward as ak

    if isinstance(value, Lists):
        content = ak.contents.NumpyArray(value.content)
        return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(value.offsets), content))
    if isinstance(value, Masked):
        content = ak.contents.NumpyArray(value.data)
        mask = ak.index.Index8(value.valid.view(np.int8))
        return ak.Array(ak.contents.ByteMaskedArray(mask, content, valid_when=True))
    if isinstance(value, np.ndarray):
        return ak.from_numpy(value, regulararray=True)
    return value


def to_array(value: Value, length: int) -> Any:
    """Return a value as an ndarray, if it is one or a scalar, or as an awkward array."""
    if isinstance(value, (np.ndarray, np.generic)) or not is_scalar(value):
        if isinstance(value, np.generic):
            return np.full(length, value)
        return value if isinstance(value, np.ndarray) else to_awkward(value)
    if isinstance(value, str):
        import awkward as ak

        return ak.Array([value])[np.zeros(length, np.int64)]
    return np.full(length, value)


def look_up(columns: Mapping[str, Any], name: str) -> tuple[str, tuple[str, ...]]:
    """Return the column to which a name refers, and the fields in it: ``a.b`` may be a field.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    """
    if name in columns:
        return name, ()
    if "." in name:
        outer = max((one for one in columns if name.startswith(f"{one}.")), key=len, default=None)
        if outer is not None:
            return outer, tuple(name[len(outer) + 1 :].split("."))
    raise UnknownNameError(f"query: unknown column {name[:80]!r}: {nearest(name, columns)}")


def apply(func: Callable[..., Any], *values: Value) -> Value:
    """Compute a function element by element, like a ufunc of NumPy.

    A value of an entry is combined with each element of its list.

    Raises
    ------
    QueryError
        If lists of one entry have different lengths.
    """
    arrays = [value for value in values if not is_scalar(value)]
    depths = {depth_of(value) for value in arrays}
    if all(isinstance(value, np.ndarray) for value in arrays):
        most = max(depths, default=0)
        if len(depths) > 1:
            values = tuple(_deepen(value, most) for value in values)
        try:
            return func(*values)
        except ValueError as error:
            raise _unequal(error) from error
    if max(depths) == 1 and not any(_is_awkward(v) or isinstance(v, Masked) for v in arrays):
        lists = [_as_lists(value) for value in values]
        first = next(value for value in lists if isinstance(value, Lists))
        for other in lists:
            if isinstance(other, Lists) and other.offsets is not first.offsets:
                _check_offsets(first.offsets, other.offsets)
        contents = [_content(value, first) for value in lists]
        return Lists(first.offsets, func(*contents))
    if max(depths) == 0 and not any(_is_awkward(value) for value in arrays):
        there = [value.valid for value in arrays if isinstance(value, Masked)]
        return Masked(func(*map(_data, values)), functools.reduce(np.bitwise_and, there))
    return _apply_awkward(func, values, len(depths) > 1)


def _is_awkward(value: Value) -> bool:
    return hasattr(value, "layout")


def _data(value: Value) -> Value:
    return value.data if isinstance(value, Masked) else value


def _deepen(value: Value, depth: int) -> Value:
    if is_scalar(value):
        return value
    return value.reshape(value.shape + (1,) * (depth + 1 - value.ndim))


def _as_lists(value: Value) -> Value:
    if isinstance(value, np.ndarray) and value.ndim == 2:
        rows, size = value.shape
        return Lists(np.arange(rows + 1, dtype=np.int64) * size, value.reshape(-1))
    return value


def _content(value: Value, like: Lists) -> Value:
    if isinstance(value, Lists):
        return value.content
    return value if is_scalar(value) else np.repeat(value, like.counts)


def _check_offsets(first: Array, other: Array) -> None:
    if len(first) != len(other):
        raise QueryError(
            f"columns of {len(first) - 1} and {len(other) - 1} entries cannot be combined"
        )
    if not np.array_equal(first, other):
        entry = int(np.flatnonzero(np.diff(first) != np.diff(other))[0])
        raise QueryError(
            f"lists of {first[entry + 1] - first[entry]} and "
            f"{other[entry + 1] - other[entry]} elements of one entry cannot be combined"
        )


def _unequal(error: Exception) -> QueryError:
    what = str(error).strip().splitlines()[0]
    return QueryError(f"values cannot be combined: {what}" if "broadcast" in what else what)


def _apply_awkward(func: Callable[..., Any], values: tuple[Value, ...], mixed: bool) -> Value:
    import awkward as ak

    arrays = [value if is_scalar(value) else to_awkward(value) for value in values]
    if mixed:  # so that NumPy does not align the last axes
        arrays = [a if is_scalar(a) else ak.from_regular(a, axis=None) for a in arrays]
    try:
        if func is np.where:
            # Awkward takes literals as int64 and float64, NumPy as the dtype of the other operand.
            known = [v if is_scalar(v) else dtype_of(v) for v in values[1:]]
            dtype = np.result_type(*known)
            typed = [dtype.type(v) if is_scalar(v) else v for v in arrays[1:]]
            return to_value(ak.where(arrays[0], *typed))
        if sum(map(is_scalar, arrays)) == len(arrays) - 1:
            return _apply_to_numbers(func, arrays)
        return to_value(func(*arrays))
    except TypeError as error:
        raise QueryTypeError(str(error)) from error
    except ValueError as error:
        raise _unequal(error) from error


def _apply_to_numbers(func: Callable[..., Any], values: list[Value]) -> Value:
    """Apply a function to one array and literals.

    Awkward refuses literals that the dtype of the array does not have, which NumPy compares.
    """
    import awkward as ak

    def compute(layout: Any, **_: Any) -> Any:
        if layout.is_unknown:
            layout = layout.to_NumpyArray(np.float64)
        if not layout.is_numpy:
            return None
        return ak.contents.NumpyArray(
            func(*[value if is_scalar(value) else layout.data for value in values])
        )

    array = next(value for value in values if not is_scalar(value))
    return to_value(ak.transform(compute, array))
