"""Zones of a range of entries, and what they imply for a condition."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from typing import Literal as OneOf

import numpy as np

from dosna.query.expressions.binding import Bound
from dosna.query.expressions.evaluation import compute
from dosna.query.expressions.functions import FUNCTIONS
from dosna.query.expressions.intervals import (
    chosen,
    compute_span,
    fill,
    is_missing,
    item,
    mask,
    reduced,
)
from dosna.query.expressions.nodes import (
    Binary,
    Call,
    Column,
    Compare,
    Expr,
    In,
    Item,
    Literal,
    Logical,
    Mask,
    Unary,
)
from dosna.query.expressions.spans import (
    ANY_LENGTH,
    ANYTHING,
    Span,
    both,
    compare,
    either,
    literal_span,
    negated,
    truth,
)
from dosna.query.expressions.values import is_scalar

__all__ = ["Zone", "bounds"]


@dataclass(frozen=True)
class Zone:
    """The extremes of a column in a range of entries, and its missing values.

    Parameters
    ----------
    count : int
        The number of values (of entries, or of elements in all lists), including NaN and missing
        ones.
    min, max : bool, int, float, str or None
        The smallest and the largest value that is neither NaN nor missing; None if there is none.
    nans : int
        The number of NaN.
    nulls : int
        The number of missing values.
    min_length, max_length : int or None
        The minimum and maximum length of a list; None if there are no lists.
    empty_lists : int
        The number of empty lists.
    """

    count: int
    min: bool | int | float | str | None
    max: bool | int | float | str | None
    nans: int = 0
    nulls: int = 0
    min_length: int | None = None
    max_length: int | None = None
    empty_lists: int = 0


def bounds(bound: Bound, zones: Mapping[str, Zone]) -> OneOf["all", "some", "none"]:
    """Return whether a condition is true for all entries of a range, for none, or for some.

    Parameters
    ----------
    bound : Bound
        The condition.
    zones : mapping of str to Zone
        The zones of columns in the range. Other columns may have any value.

    Returns
    -------
    {'all', 'some', 'none'}
        The result that could be proved; ``'some'`` may still mean all or none.
    """
    with np.errstate(all="ignore"):
        span = _Reader(bound, zones).span(bound.expr)
    if not span.may_hold:
        return "none"
    return "all" if span.must_hold else "some"


class _Reader:
    """A reader of the zones of a condition's columns, as spans."""

    def __init__(self, bound: Bound, zones: Mapping[str, Zone]) -> None:
        self._zones = zones
        self._types = {column.name: column for column in bound.types}

    def span(self, expr: Expr) -> Span:
        """Return the span of an expression."""
        if isinstance(expr, Literal):
            return literal_span(expr.value)
        if not expr.columns:
            value = compute(expr, {})
            return literal_span(value) if is_scalar(value) else ANYTHING
        if isinstance(expr, Column):
            return self._column(expr.name)
        # Of lists of lists, only the lengths of the outer ones are known.
        if not isinstance(expr, (Logical, Unary)) and self._is_deep(expr):
            return ANYTHING
        operands = (expr.operand,) if isinstance(expr, In) else expr.children
        spans = [self.span(child) for child in operands]
        return self._combine(expr, spans)

    def _is_deep(self, expr: Expr) -> bool:
        types = [self._types.get(name) for name in expr.columns]
        return any(found is None or found.depth > 1 for found in types)

    def _combine(self, expr: Expr, spans: list[Span]) -> Span:
        match expr:
            case Logical(op):
                return functools.reduce(both if op == "&&" else either, spans)
            case Compare(_, ops):
                pairs = zip(ops, spans, spans[1:], strict=False)
                return functools.reduce(both, [compare(op, a, b) for op, a, b in pairs])
            case In():
                return _among(expr, spans[0])
            case Unary(op):
                return negated(*spans) if op == "!" else compute_span(_UNARY[op], *spans)
            case Binary(op):
                return compute_span(op, *spans)
            case Item(_, index):
                return item(spans[0], index)
            case Mask():
                return mask(*spans)
            case Call(name):
                return self._call(name, spans)
        return ANYTHING

    def _call(self, name: str, spans: list[Span]) -> Span:
        if FUNCTIONS[name].reduces and len(spans) == 1:
            return reduced(name, spans[0])
        match name:
            case "where":
                return chosen(*spans)
            case "fill":
                return fill(*spans)
            case "ismissing":
                return is_missing(*spans)
        return compute_span(name, *spans)

    def _column(self, name: str) -> Span:
        zone, column = self._zones.get(name), self._types.get(name)
        if zone is None or column is None or column.depth > 1:
            return ANYTHING
        lengths = None
        if column.depth:
            lengths = ANY_LENGTH
            if zone.min_length is not None and zone.max_length is not None:
                lengths = (zone.min_length, zone.max_length)
        null = zone.nulls > 0
        outer = null and column.depth > 0
        nothing = Span(None, None, zone.nans > 0, null, lengths=lengths, outer_null=outer)
        if zone.count <= zone.nans + zone.nulls:
            return nothing
        lo, hi = _typed(zone.min, column.dtype), _typed(zone.max, column.dtype)
        if lo is None or hi is None:
            return replace(nothing, nan=True, known=False)
        return replace(nothing, lo=lo, hi=hi)


def _among(expr: In, span: Span) -> Span:
    """Return the span of ``x in (…)``."""
    number = isinstance(span.lo, np.generic)
    many = expr.sought(span.lo.dtype) if span.known and number else None
    if many is None:
        each = [compare("==", span, literal_span(one.value)) for one in expr.values]
        return functools.reduce(either, each)
    first, last = np.searchsorted(many, span.lo, "left"), np.searchsorted(many, span.hi, "right")
    may = bool(first < last)
    return truth(may, not may or span.lo != span.hi or span.nan, False, (span,))


def _typed(end: Any, dtype: np.dtype[Any] | None) -> Any:
    """Return an end as a scalar of the column's dtype; None if that is not possible."""
    if dtype is None:
        return end if isinstance(end, str) else None
    if end is None or isinstance(end, (str, bytes)) or dtype.kind not in "biuf":
        return None
    # An integer that has become a float was rounded.
    if dtype.kind in "iu" and not isinstance(end, (int, np.integer)):
        return None
    try:
        return np.asarray(end).astype(dtype)[()] if dtype.kind == "f" else dtype.type(end)
    except (OverflowError, TypeError, ValueError):
        return None


_UNARY = {"-": "negative", "~": "~"}
