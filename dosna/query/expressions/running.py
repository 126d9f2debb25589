"""Evaluation of expressions on arrays, one block of entries at a time.

Intermediate results therefore stay in the caches of the processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dosna.core.types import Array
from dosna.errors import QueryTypeError
from dosna.query.expressions.evaluation import compute
from dosna.query.expressions.nodes import Column, Expr, Literal
from dosna.query.expressions.values import (
    Lists,
    Masked,
    Value,
    depth_of,
    dtype_of,
    is_scalar,
    look_up,
    to_array,
    to_value,
)

__all__ = ["evaluate", "evaluate_mask"]

BLOCK = 65_536
"""Entries of a block: 32-bit numbers of one column take 256 KiB."""


def evaluate(expr: Expr, columns: Mapping[str, Any], length: int) -> Any:
    """Return an expression's value for each entry.

    Parameters
    ----------
    expr : Expr
        The expression.
    columns : mapping of str to array
        Arrays by the names of columns: ndarrays, `Lists`, `Masked` or awkward arrays.
    length : int
        The number of entries.

    Returns
    -------
    ndarray or awkward.Array
        An ndarray if the elements are numbers that are neither optional nor in lists.

    Raises
    ------
    QueryError
        If lists of an entry that are combined have different lengths.
    UnknownNameError
        If there is no such column.

    Examples
    --------
    >>> import numpy as np
    >>> from dosna.query.expressions import evaluate, parse
    >>> evaluate(parse("20 < x <= 50"), {"x": np.array([20, 21, 51])}, 3)
    array([False,  True, False])
    """
    return to_array(_compute(expr, columns, length), length)


def evaluate_mask(expr: Expr, columns: Mapping[str, Any], length: int) -> Array:
    """Return for each entry whether a condition is true. A missing value counts as false.

    The parameters are those of `evaluate`.

    Raises
    ------
    QueryTypeError
        If the expression is not one Boolean for each entry.
    """
    value = _compute(expr, columns, length)
    if depth_of(value) or (dtype_of(value) != np.dtype(bool) and not isinstance(value, bool)):
        raise QueryTypeError(f"query: {str(expr)[:200]} is not true or false for each entry")
    if is_scalar(value):
        return np.full(length, bool(value))
    if isinstance(value, Masked):
        return value.data & value.valid
    if isinstance(value, np.ndarray):
        return value
    import awkward as ak

    return np.asarray(ak.fill_none(value, False))


def _compute(expr: Expr, columns: Mapping[str, Any], length: int) -> Value:
    plain = _plain(expr, columns) if length >= 2 * BLOCK else None
    if plain is None:
        return compute(expr, columns)
    first = compute(expr, _cut(plain, 0, BLOCK))
    if isinstance(first, Masked):
        data, valid = np.empty(length, first.data.dtype), np.empty(length, bool)
    elif isinstance(first, np.ndarray) and first.ndim == 1:
        data, valid = np.empty(length, first.dtype), None
    else:
        return compute(expr, plain)  # lists, whose lengths are not known before
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        part = compute(expr, _cut(plain, start, stop)) if start else first
        if valid is None:
            data[start:stop] = part
        else:
            data[start:stop], valid[start:stop] = part.data, part.valid
    return data if valid is None else Masked(data, valid)


def _plain(expr: Expr, columns: Mapping[str, Any]) -> dict[str, Value] | None:
    """Return the columns if they can be divided into blocks, and if this saves time."""
    operations = sum(not isinstance(node, (Column, Literal)) for node in expr.walk())
    found: dict[str, Value] = {}
    value: Value
    for name in expr.columns:
        column, fields = look_up(columns, name)
        value = None if fields else to_value(columns[column])
        if not isinstance(value, (np.ndarray, Lists, Masked)):
            return None
        found[name] = value
    lists = any(isinstance(value, Lists) for value in found.values())
    return found if found and operations >= (1 if lists else 3) else None


def _cut(columns: Mapping[str, Value], start: int, stop: int) -> dict[str, Value]:
    offsets: dict[int, Array] = {}  # arrays that columns share remain one array
    found: dict[str, Value] = {}
    for name, value in columns.items():
        if isinstance(value, np.ndarray):
            found[name] = value[start:stop]
        elif isinstance(value, Masked):
            found[name] = Masked(value.data[start:stop], value.valid[start:stop])
        else:
            some = value.offsets[start : stop + 1]
            if id(value.offsets) not in offsets:
                offsets[id(value.offsets)] = some - some[0]
            content = value.content[some[0] : some[-1]]
            found[name] = Lists(offsets[id(value.offsets)], content)
    return found
