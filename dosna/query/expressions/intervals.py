"""Intervals of the possible results of arithmetic, functions and reductions of lists."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dosna.query.expressions.spans import (
    ANY_LENGTH,
    Span,
    both,
    either,
    ends_of,
    never,
    scalar_of,
    span_of,
    truth,
    unknown,
)

__all__ = ["chosen", "compute_span", "fill", "is_missing", "item", "mask", "reduced"]

# Arithmetic.


def arithmetic(op: str, *spans: Span) -> Span:
    """Return the span of ``a op b``, ``-a`` or ``~a``."""
    if not all(span.known for span in spans):
        return unknown(*spans)
    if any(span.is_nothing for span in spans):
        # For floats, NaN and a number give NaN; otherwise nothing is known.
        return unknown(*spans)
    found = _ARITHMETIC.get(op)
    return unknown(*spans) if found is None else found(*spans)


def _corners(op: str, a: Span, b: Span) -> tuple[Any, Any]:
    """Return the minimum and maximum over the combined ends; raise if integers would overflow."""
    function, exact = _FUNCTIONS[op]
    (a_lo, a_hi), (b_lo, b_hi) = ends_of(a), ends_of(b)
    pairs = [(a_lo, b_lo), (a_lo, b_hi), (a_hi, b_lo), (a_hi, b_hi)]
    found = [scalar_of(function(x, y)) for x, y in pairs]
    dtype = np.asarray(found[0]).dtype
    if dtype.kind in "iu":
        true = [exact(int(scalar_of(x)), int(scalar_of(y))) for x, y in pairs]
        if true != [int(x) for x in found]:
            raise OverflowError
    if any(x != x for x in found):
        raise OverflowError
    return min(found), max(found)


def _added(op: str, a: Span, b: Span) -> Span:
    try:
        lo, hi = _corners(op, a, b)
    except (OverflowError, TypeError):
        return unknown(a, b)
    return span_of(lo, hi, a.nan or b.nan, (a, b))


def _multiplied(a: Span, b: Span) -> Span:
    for one, other in ((a, b), (b, a)):
        if one.lo <= 0 <= one.hi and (np.isinf(other.lo) or np.isinf(other.hi)):
            return unknown(a, b)
    return _added("*", a, b)


def _divided(op: str, a: Span, b: Span) -> Span:
    if b.lo <= 0 <= b.hi:
        return unknown(a, b)
    if op == "//" and not all(np.asarray(x).dtype.kind in "iu" for x in (a.lo, b.lo)):
        return unknown(a, b)
    return _added(op, a, b)


def _negative(a: Span) -> Span:
    lo, hi = ends_of(a)
    dtype = np.asarray(lo).dtype
    if dtype.kind == "u" or (dtype.kind == "i" and a.lo == np.iinfo(dtype).min):
        return unknown(a)
    return span_of(np.negative(hi), np.negative(lo), a.nan, (a,))


def _inverted(a: Span) -> Span:
    lo, hi = ends_of(a)
    return span_of(np.invert(hi), np.invert(lo), False, (a,))


def _is_bool(*spans: Span) -> bool:
    return all(isinstance(span.lo, (bool, np.bool_)) for span in spans)


def _bit_and(a: Span, b: Span) -> Span:
    if _is_bool(a, b):
        return both(a, b)
    if a.lo < 0 or b.lo < 0:
        return unknown(a, b)
    zero = np.bitwise_and(np.bitwise_and(ends_of(a)[0], ends_of(b)[0]), 0)
    return span_of(zero, _to(min(a.hi, b.hi), np.asarray(zero).dtype), False, (a, b))


def _bit_or(a: Span, b: Span) -> Span:
    return either(a, b) if _is_bool(a, b) else unknown(a, b)


_FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[int, int], Any]]] = {
    "+": (np.add, operator.add),
    "-": (np.subtract, operator.sub),
    "*": (np.multiply, operator.mul),
    "/": (np.true_divide, operator.truediv),
    "//": (np.floor_divide, operator.floordiv),
}
_ARITHMETIC: dict[str, Callable[..., Span]] = {
    "+": functools.partial(_added, "+"),
    "-": functools.partial(_added, "-"),
    "*": _multiplied,
    "/": functools.partial(_divided, "/"),
    "//": functools.partial(_divided, "//"),
    "&": _bit_and,
    "|": _bit_or,
    "negative": _negative,
    "~": _inverted,
}


# Functions.


def _absolute(a: Span) -> Span:
    low, high = (a, a) if a.lo >= 0 else (_negative(a), a)
    if not low.known:
        return unknown(a)
    if a.lo >= 0:
        return a
    if a.hi <= 0:
        return low
    # Not the bound times zero, which would be NaN for an infinite bound.
    return replace(a, lo=type(np.absolute(a.lo))(0), hi=max(low.hi, high.hi))


def _monotone(function: Callable[..., Any]) -> Callable[[Span], Span]:
    def computed(a: Span) -> Span:
        lo, hi = ends_of(a)
        return span_of(function(lo), function(hi), a.nan, (a,))

    return computed


def _sqrt(a: Span) -> Span:
    if a.lo < 0:
        return unknown(a)
    return _monotone(np.sqrt)(a)


def _is_nan(a: Span) -> Span:
    return truth(a.nan, a.lo is not None, False, (a,))


def _is_finite(a: Span) -> Span:
    if a.lo is None:
        return truth(False, a.nan, False, (a,))
    infinite = bool(np.isinf(a.lo) or np.isinf(a.hi))
    return truth(True, a.nan or infinite, False, (a,))


def _least(a: Span, b: Span) -> Span:
    (a_lo, a_hi), (b_lo, b_hi) = ends_of(a), ends_of(b)
    return span_of(np.minimum(a_lo, b_lo), np.minimum(a_hi, b_hi), a.nan or b.nan, (a, b))


def _greatest(a: Span, b: Span) -> Span:
    (a_lo, a_hi), (b_lo, b_hi) = ends_of(a), ends_of(b)
    return span_of(np.maximum(a_lo, b_lo), np.maximum(a_hi, b_hi), a.nan or b.nan, (a, b))


def _cast(name: str) -> Callable[[Span], Span]:
    dtype = np.dtype(name)

    def computed(a: Span) -> Span:
        lo, hi = a.lo, a.hi
        # The result for floats and larger integers depends on the machine.
        if dtype.kind == "i" and np.asarray(lo).dtype.kind not in "bi":
            return unknown(a)
        return span_of(_to(lo, dtype), _to(hi, dtype), a.nan, (a,))

    return computed


def _to(end: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(end).astype(dtype).reshape(1)


def fill(a: Span, filler: Span) -> Span:
    """Return the span of ``fill(a, value)``."""
    if not a.null:
        return a if _keeps_dtype(a, filler) else unknown(a)
    return chosen(truth(True, True, False), replace(a, null=False), filler)


def _keeps_dtype(a: Span, filler: Span) -> bool:
    """Return whether values that are filled keep their dtype."""
    if not a.known or a.is_nothing or isinstance(a.lo, str):
        return True
    if not filler.known or filler.is_nothing:
        return isinstance(a.lo, np.floating)
    try:
        return bool(np.result_type(a.lo, filler.lo) == np.asarray(a.lo).dtype)
    except OverflowError:
        return False


def chosen(condition: Span, a: Span, b: Span) -> Span:
    """Return the span of ``where(condition, a, b)``."""
    like = (condition, a, b)
    if not a.known or not b.known or isinstance(a.lo, str) or isinstance(b.lo, str):
        return unknown(*like)
    if a.is_nothing or b.is_nothing:
        return unknown(*like)
    try:
        dtype = np.result_type(a.lo, b.lo)
        ends = [_to(end, dtype)[0] for end in (a.lo, b.lo, a.hi, b.hi)]
    except OverflowError:
        return unknown(*like)
    return span_of(min(ends[:2]), max(ends[2:]), a.nan or b.nan, like)


def is_missing(a: Span) -> Span:
    """Return the span of ``ismissing(a)``."""
    there = not a.known or a.nan or a.lo is not None
    return replace(truth(a.null, there, False), lengths=a.lengths, outer_null=a.outer_null)


_CALLS: dict[str, Callable[..., Span]] = {
    "abs": _absolute,
    "sqrt": _sqrt,
    "floor": _monotone(np.floor),
    "ceil": _monotone(np.ceil),
    "min": lambda *spans: functools.reduce(_least, spans),
    "max": lambda *spans: functools.reduce(_greatest, spans),
    "float32": _cast("float32"),
    "float64": _cast("float64"),
    "int64": _cast("int64"),
}


# Lists.


def reduced(name: str, a: Span) -> Span:
    """Return the span of a reduction of lists. Missing elements are ignored, as in Awkward."""
    low, high = a.lengths or ANY_LENGTH
    null = a.outer_null
    if name == "any":
        may = a.may_hold and high > 0
        return truth(may, not (a.must_hold and low > 0), null)
    if name == "all":
        may_fail = a.may_fail and high > 0
        may = low == 0 or a.null or a.is_nothing or a.may_hold
        return truth(may, may_fail, null)
    if name == "count":
        least = 0 if a.null else low
        return Span(np.int64(least), np.int64(high), null=null)
    if name == "sum":
        return replace(unknown(), null=null)
    return _extreme(name, a, low, high, null)


def _extreme(name: str, a: Span, low: int, high: int, null: bool) -> Span:
    absent = null or low == 0 or a.null
    if not a.known:
        return replace(unknown(), null=absent)
    if high == 0 or never(a):
        return Span(None, None, null=True)
    lo, hi = a.lo, a.hi
    if a.nan:  # a list that contains only NaN
        infinity = -np.inf if name == "max" else np.inf
        if lo is None:
            return Span(infinity, infinity, null=absent)
        end = np.asarray(lo).dtype.type(infinity)
        lo, hi = (end, hi) if name == "max" else (lo, end)
    return Span(lo, hi, null=absent)


def item(a: Span, index: int) -> Span:
    """Return the span of ``a[index]``."""
    low, high = a.lengths or ANY_LENGTH
    needed = index + 1 if index >= 0 else -index
    if high < needed:
        return Span(None, None, null=True)
    return replace(a, null=a.null or a.outer_null or low < needed, lengths=None, outer_null=False)


def mask(a: Span, condition: Span) -> Span:
    """Return the span of the elements of ``a[condition]``."""
    low, high = a.lengths or ANY_LENGTH
    null, outer = a.null or condition.null, a.outer_null or condition.outer_null
    if not condition.may_hold and not condition.null:
        return Span(None, None, lengths=(0, 0), outer_null=outer)
    kept = low if condition.must_hold else 0
    return replace(a, null=null, lengths=(kept, high), outer_null=outer)


def compute_span(kind: str, *spans: Span) -> Span:
    """Return the span of an operation or a function, given by its name."""
    if kind == "isnan" or kind == "isfinite":
        if not spans[0].known:
            return truth(True, True, False, spans)
        return _is_nan(spans[0]) if kind == "isnan" else _is_finite(spans[0])
    found = _CALLS.get(kind)
    if found is None:
        return arithmetic(kind, *spans)
    if not all(span.known and not span.is_nothing for span in spans):
        return unknown(*spans)
    return found(*spans)
