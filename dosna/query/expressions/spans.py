"""The possible values of an expression, from those of its columns: intervals, NaN and missing.

The ends of intervals are computed by NumPy in the dtypes of the data, because rounding is monotone
and the ends are rounded like the elements. Where this does not hold, every value is possible.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = [
    "ANYTHING",
    "ANY_LENGTH",
    "Span",
    "both",
    "compare",
    "either",
    "ends_of",
    "literal_span",
    "negated",
    "never",
    "scalar_of",
    "span_of",
    "truth",
    "unknown",
]

ANY_LENGTH = (0, 2**62)


@dataclass(frozen=True)
class Span:
    """The possible values in a range of entries.

    Parameters
    ----------
    lo, hi : numpy scalar, bool, int, float, str or None
        The ends, inclusive; None if there are no values other than NaN and missing ones.
    nan, null : bool
        Whether a value can be NaN, or missing.
    known : bool
        Whether the ends are known; otherwise any value is possible.
    lengths : pair of int or None
        The minimum and maximum length of a list; None at the level of entries.
    outer_null : bool
        Whether a list can be missing.
    """

    lo: Any
    hi: Any
    nan: bool = False
    null: bool = False
    known: bool = True
    lengths: tuple[int, int] | None = None
    outer_null: bool = False

    @property
    def is_nothing(self) -> bool:
        """True if there is no number among the values."""
        return self.known and self.lo is None

    @property
    def may_hold(self) -> bool:
        """True if a value can be true: any number except 0, and NaN."""
        if not self.known or self.nan:
            return True
        return self.lo is not None and bool(self.lo != 0 or self.hi != 0)

    @property
    def may_fail(self) -> bool:
        """True if a value can be false, which is 0."""
        return not self.known or (self.lo is not None and bool(self.lo <= 0 <= self.hi))

    @property
    def must_hold(self) -> bool:
        return not self.may_fail and not self.null and not self.is_nothing


ANYTHING = Span(None, None, nan=True, null=True, known=False, outer_null=True)


def literal_span(value: Any) -> Span:
    """Return the span of a literal."""
    if value != value:
        return Span(None, None, nan=True)
    return Span(value, value)


def truth(may_hold: bool, may_fail: bool, null: bool, like: tuple[Span, ...] = ()) -> Span:
    """Return the span of a Boolean, in lists if its operands are."""
    if not may_hold and not may_fail:
        return _placed(Span(None, None, null=null), like)
    return _placed(Span(np.bool_(not may_fail), np.bool_(may_hold), null=null), like)


def _placed(span: Span, like: tuple[Span, ...]) -> Span:
    """Return a span as one of elements in the same lists as others."""
    lengths = [one.lengths for one in like if one.lengths is not None]
    if not lengths:
        null = span.null or any(one.null for one in like)
        return span if null == span.null else replace(span, null=null)
    both = max(low for low, _ in lengths), min(high for _, high in lengths)
    return replace(
        span,
        null=span.null or any(one.null for one in like),
        lengths=both,
        outer_null=any(one.outer_null or (not one.lengths and one.null) for one in like),
    )


def unknown(*like: Span) -> Span:
    """Return the span of any value, which is missing only where one of the operands is."""
    return _placed(replace(ANYTHING, null=False, outer_null=False), like)


def ends_of(span: Span) -> tuple[Any, Any]:
    """Return the ends as arrays of their dtypes; those of literals unchanged."""
    return tuple(  # type: ignore[return-value]
        np.array([end]) if isinstance(end, np.generic) else end for end in (span.lo, span.hi)
    )


def scalar_of(end: Any) -> Any:
    """Return an end of `ends_of` as a scalar."""
    return end[0] if isinstance(end, np.ndarray) else end


def span_of(lo: Any, hi: Any, nan: bool, like: tuple[Span, ...]) -> Span:
    """Return a span with computed ends; any value is possible if they are not numbers."""
    lo, hi = scalar_of(lo), scalar_of(hi)
    if lo != lo or hi != hi:
        return unknown(*like)
    return _placed(Span(lo, hi, nan=nan), like)


# Comparisons and conditions.


def compare(op: str, a: Span, b: Span) -> Span:
    """Return the span of a comparison. NaN is neither equal to, less nor greater than anything."""
    if not a.known or not b.known:
        return truth(True, True, a.null or b.null, (a, b))
    nan = a.nan or b.nan
    if a.is_nothing or b.is_nothing:
        return truth(nan and op == "!=", nan and op != "!=", False, (a, b))
    (a_lo, a_hi), (b_lo, b_hi) = ends_of(a), ends_of(b)
    if op in (">", ">="):
        (a_lo, a_hi), (b_lo, b_hi) = (b_lo, b_hi), (a_lo, a_hi)
        op = {">": "<", ">=": "<="}[op]
    if op in ("<", "<="):
        test = _TESTS[op]
        may, must = _true(test(a_lo, b_hi)), _true(test(a_hi, b_lo))
        return truth(may, not must or nan, False, (a, b))
    at_most, equal = _TESTS["<="], _TESTS["=="]
    may = _true(at_most(a_lo, b_hi)) and _true(at_most(b_lo, a_hi))
    must = all(_true(equal(x, y)) for x, y in ((a_lo, b_lo), (a_hi, b_hi), (a_lo, b_hi)))
    if op == "==":
        return truth(may, not must or nan, False, (a, b))
    return truth(not must or nan, may, False, (a, b))


def _by_type(numbers: Callable[..., Any], texts: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: texts(a, b) if isinstance(a, str) else numbers(a, b)


_TESTS = {
    "<": _by_type(np.less, operator.lt),
    "<=": _by_type(np.less_equal, operator.le),
    "==": _by_type(np.equal, operator.eq),
}


def _true(value: Any) -> bool:
    return bool(value.all()) if isinstance(value, np.ndarray) else bool(np.all(value))


def both(a: Span, b: Span) -> Span:
    """Return the span of ``a && b``. It is missing if one operand is, as in Awkward."""
    if never(a) or never(b):
        return truth(False, False, True, (a, b))
    return truth(a.may_hold and b.may_hold, a.may_fail or b.may_fail, False, (a, b))


def either(a: Span, b: Span) -> Span:
    """Return the span of ``a || b``."""
    if never(a) or never(b):
        return truth(False, False, True, (a, b))
    return truth(a.may_hold or b.may_hold, a.may_fail and b.may_fail, False, (a, b))


def negated(a: Span) -> Span:
    """Return the span of ``!a``."""
    return truth(a.may_fail, a.may_hold, False, (a,))


def never(a: Span) -> bool:
    """Return whether there are no values: all are missing, or there are no entries."""
    return a.is_nothing and not a.nan
