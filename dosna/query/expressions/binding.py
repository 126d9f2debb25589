"""Expressions and the columns that they use: names, types and levels are checked."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.errors import QueryError, QueryTypeError, UnknownNameError
from dosna.query.expressions.evaluation import compute
from dosna.query.expressions.functions import nearest
from dosna.query.expressions.nodes import Column, Expr
from dosna.query.expressions.parsing import Output
from dosna.query.expressions.values import (
    Lists,
    Masked,
    Value,
    depth_of,
    dtype_of,
    is_text,
    look_up,
    to_value,
)

__all__ = ["Bound", "ColumnType", "bind", "bind_condition", "bind_projection", "empty"]


@dataclass(frozen=True)
class ColumnType:
    """The type of a column: the dtype of its numbers, if it has any, and the lists around them."""

    name: str
    dtype: np.dtype[Any] | None
    depth: int


@dataclass(frozen=True)
class Bound:
    """An expression whose columns are known.

    Parameters
    ----------
    expr : Expr
        The expression.
    columns : frozenset of str
        The names of the columns that it needs.
    dtype : numpy.dtype or None
        The dtype of the elements; None if they are not numbers.
    depth : int
        The number of lists around an element; 0 for one value for each entry.
    optional : bool
        Whether values may be missing.
    types : tuple of ColumnType
        The types of the columns.
    name : str
        The name in the result, if this is a column of a projection.
    """

    expr: Expr
    columns: frozenset[str]
    dtype: np.dtype[Any] | None
    depth: int
    optional: bool
    types: tuple[ColumnType, ...] = ()
    name: str = ""

    @property
    def is_condition(self) -> bool:
        """True if the expression is true or false for each entry."""
        return self.depth == 0 and self.dtype == np.dtype(bool)


def empty(form: Any) -> Value:
    """Return a value without entries, of a column's type.

    Parameters
    ----------
    form : dtype, str, mapping or awkward.forms.Form
        The form of the column: a NumPy dtype, awkward's JSON, or an awkward form.
    """
    if isinstance(form, np.dtype):
        return np.empty((0, *form.shape), form.base)
    plain = form if isinstance(form, (str, Mapping)) else form.to_dict(verbose=False)
    if isinstance(plain, str):
        return np.empty(0, plain)
    kind, text = plain["class"], (plain.get("parameters") or {}).get("__array__")
    if text is None:
        if kind == "NumpyArray":
            return np.empty((0, *plain.get("inner_shape", ())), plain["primitive"])
        if kind == "RegularArray":
            inner = empty(plain["content"])
            if isinstance(inner, np.ndarray):
                return inner.reshape((0, plain["size"], *inner.shape[1:]))
        inside = plain.get("content")
        if kind in ("ListOffsetArray", "ListArray") and isinstance(inside, str):
            return Lists(np.zeros(1, np.int64), np.empty(0, inside))
        if kind in _OPTIONS and isinstance(inside, str):
            return Masked(np.empty(0, inside), np.empty(0, bool))
    import awkward as ak

    return to_value(ak.Array(ak.forms.from_dict(plain).length_zero_array()))


_OPTIONS = ("IndexedOptionArray", "ByteMaskedArray", "BitMaskedArray", "UnmaskedArray")


class _Empties(Mapping[str, Any]):
    """Values without entries by the names of columns, created on demand."""

    def __init__(self, forms: Mapping[str, Any]) -> None:
        self._forms = forms
        self.made: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self.made:
            self.made[name] = empty(self._forms[name])
        return self.made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._forms

    def __iter__(self) -> Any:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)


def bind(expr: Expr, columns: Mapping[str, Any], name: str = "") -> Bound:
    """Check an expression against columns, and return it with its type.

    Parameters
    ----------
    expr : Expr
        The expression.
    columns : mapping of str to form
        The forms of the columns by name: dtypes, awkward forms or their JSON.
    name : str, optional
        The name in the result.

    Returns
    -------
    Bound

    Raises
    ------
    UnknownNameError
        If there is no such column. The message contains the most similar names.
    QueryTypeError
        If an operation is not defined for the types of its operands.

    Examples
    --------
    >>> from dosna.query.expressions import bind, parse
    >>> bound = bind(parse("x + 1 > 3"), {"x": "uint8"})
    >>> bound.dtype, bound.is_condition
    (dtype('bool'), True)
    """
    for used in sorted(expr.columns):
        look_up(columns, used)
    empties = _Empties(columns)
    value = compute(expr, empties)
    dtype = dtype_of(value)
    if isinstance(value, (bool, int, float)):
        dtype = np.asarray(value).dtype
    made = [
        ColumnType(column, dtype_of(one), depth_of(one)) for column, one in empties.made.items()
    ]
    return Bound(
        expr,
        frozenset(empties.made),
        dtype,
        depth_of(value),
        _is_optional(value),
        tuple(made),
        name,
    )


def _is_optional(value: Value) -> bool:
    if not hasattr(value, "layout"):
        return isinstance(value, Masked)
    layout = value.layout
    while not layout.is_option:
        if not (layout.is_list or layout.is_indexed) or (is_text(value) and layout.is_list):
            return False
        layout = layout.content
    return True


def bind_condition(expr: Expr, columns: Mapping[str, Any]) -> Bound:
    """Check a condition on entries against columns. The parameters are those of `bind`.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    QueryTypeError
        If it is not true or false for each entry. The message says what it is instead.
    """
    bound = bind(expr, columns)
    if bound.is_condition:
        return bound
    text = str(expr)[:200]
    if bound.depth:
        raise QueryTypeError(
            f"query: {text} is a list for each entry, but a condition must be true or false: "
            f"write any({text}), or all, sum, max or [0]"
        )
    number = bound.dtype is not None and bound.dtype.kind in "biufc"
    way = f"{text} != 0, or another comparison" if number else f'{text} == "…"'
    raise QueryTypeError(
        f"query: {text} is {bound.dtype or 'not a number'}, but a condition must be true or "
        f"false: write {way}"
    )


def bind_projection(outputs: Iterable[Output], columns: Mapping[str, Any]) -> list[Bound]:
    """Check the columns of a result, with patterns resolved. The parameters are those of `bind`.

    Raises
    ------
    UnknownNameError
        If there is no such column, or none that matches a pattern.
    QueryError
        If two columns of the result have the same name.
    """
    bound: dict[str, Bound] = {}
    for output in outputs:
        for one in _bind_output(output, columns):
            if bound.setdefault(one.name, one) != one:
                raise QueryError(
                    f"query: two columns of the result have the name {one.name!r}: "
                    "give one of them another, as in 'name = expression'"
                )
    return list(bound.values())


def _bind_output(output: Output, columns: Mapping[str, Any]) -> list[Bound]:
    if output.pattern:
        expr = output.expr
        if expr is None or not all(name in columns for name in expr.columns):
            names = [name for name in columns if fnmatch.fnmatchcase(name, output.pattern)]
            if names:
                return [bind(Column(name), columns, name) for name in names]
        if expr is None:
            raise UnknownNameError(
                f"query: no column matches {output.pattern[:80]!r}: "
                f"{nearest(output.pattern.strip('*?'), columns)}"
            )
    assert output.expr is not None
    return [bind(output.expr, columns, output.name)]
