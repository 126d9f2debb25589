"""What an expression can be, from what its columns can be: intervals, NaN and missing values.

Ends of intervals are computed by NumPy in the dtypes of the data, for rounding is monotone and
the ends are rounded as the elements are. Where that does not hold, everything is possible.
"""

from __future__ import annotations

import functools
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
    "chosen",
    "compare",
    "compute_span",
    "either",
    "fill",
    "is_missing",
    "item",
    "literal_span",
    "mask",
    "negated",
    "reduced",
]

ANY_LENGTH = (0, 2**62)


@dataclass(frozen=True)
class Span:
    """What the values in a range of entries can be.

    Parameters
    ----------
    lo, hi : numpy scalar, bool, int, float, str or None
        The ends, which belong to it; None if there are no values besides NaN and missing ones.
    nan, null : bool
        Whether a value can be NaN, or missing.
    known : bool
        Whether the ends are; else the values can be anything.
    lengths : pair of int or None
        The least and the greatest length of a list; None at the level of entries.
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
        """Whether no value is a number."""
        return self.known and self.lo is None

    @property
    def may_hold(self) -> bool:
        """Whether a value can be true: any number but 0, and NaN."""
        if not self.known or self.nan:
            return True
        return self.lo is not None and bool(self.lo != 0 or self.hi != 0)

    @property
    def may_fail(self) -> bool:
        """Whether a value can be false, which is 0."""
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
    """Return the span of a truth value, in lists if those that it comes from are."""
    if not may_hold and not may_fail:
        return _placed(Span(None, None, null=null), like)
    return _placed(Span(np.bool_(not may_fail), np.bool_(may_hold), null=null), like)


def _placed(span: Span, like: tuple[Span, ...]) -> Span:
    """Return a span as that of elements of the lists of others."""
    lengths = [one.lengths for one in like if one.lengths is not None]
    if not lengths:
        return replace(span, null=span.null or any(one.null for one in like))
    both = max(low for low, _ in lengths), min(high for _, high in lengths)
    return replace(
        span,
        null=span.null or any(one.null for one in like),
        lengths=both,
        outer_null=any(one.outer_null or (not one.lengths and one.null) for one in like),
    )


def _unknown(*like: Span) -> Span:
    return _placed(replace(ANYTHING, null=False, outer_null=False), like)


def _ends(span: Span) -> tuple[Any, Any]:
    """Return the ends as arrays of their dtypes; those of literals as they are."""
    return tuple(  # type: ignore[return-value]
        np.array([end]) if isinstance(end, np.generic) else end for end in (span.lo, span.hi)
    )


def _scalar(end: Any) -> Any:
    return end[0] if isinstance(end, np.ndarray) else end


def _span(lo: Any, hi: Any, nan: bool, like: tuple[Span, ...]) -> Span:
    """Return a span of ends that were computed; anything if they are no numbers."""
    lo, hi = _scalar(lo), _scalar(hi)
    if lo != lo or hi != hi:
        return _unknown(*like)
    return _placed(Span(lo, hi, nan=nan), like)


# Comparisons and conditions.


def compare(op: str, a: Span, b: Span) -> Span:
    """Return what a comparison can be. NaN is equal to nothing, and not even comparable."""
    if not a.known or not b.known:
        return truth(True, True, a.null or b.null, (a, b))
    nan = a.nan or b.nan
    if a.is_nothing or b.is_nothing:
        return truth(nan and op == "!=", nan and op != "!=", False, (a, b))
    (a_lo, a_hi), (b_lo, b_hi) = _ends(a), _ends(b)
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
    return bool(np.all(value))


def both(a: Span, b: Span) -> Span:
    """Return what ``a && b`` can be. It is missing if one is, as in Awkward."""
    if _never(a) or _never(b):
        return truth(False, False, True, (a, b))
    return truth(a.may_hold and b.may_hold, a.may_fail or b.may_fail, False, (a, b))


def either(a: Span, b: Span) -> Span:
    """Return what ``a || b`` can be."""
    if _never(a) or _never(b):
        return truth(False, False, True, (a, b))
    return truth(a.may_hold or b.may_hold, a.may_fail and b.may_fail, False, (a, b))


def negated(a: Span) -> Span:
    """Return what ``!a`` can be."""
    return truth(a.may_fail, a.may_hold, False, (a,))


def _never(a: Span) -> bool:
    return a.is_nothing and not a.nan


# Arithmetic.


def arithmetic(op: str, *spans: Span) -> Span:
    """Return what ``a op b``, ``-a`` or ``~a`` can be."""
    if not all(span.known for span in spans):
        return _unknown(*spans)
    if any(span.is_nothing for span in spans):
        # Of NaN and a number comes NaN for floats, and nothing is known else.
        return _unknown(*spans)
    found = _ARITHMETIC.get(op)
    return _unknown(*spans) if found is None else found(*spans)


def _corners(op: str, a: Span, b: Span) -> tuple[Any, Any]:
    """Return the least and the greatest of the ends joined; raise if integers would overflow."""
    function, exact = _FUNCTIONS[op]
    (a_lo, a_hi), (b_lo, b_hi) = _ends(a), _ends(b)
    pairs = [(a_lo, b_lo), (a_lo, b_hi), (a_hi, b_lo), (a_hi, b_hi)]
    found = [_scalar(function(x, y)) for x, y in pairs]
    dtype = np.asarray(found[0]).dtype
    if dtype.kind in "iu":
        true = [exact(int(_scalar(x)), int(_scalar(y))) for x, y in pairs]
        if true != [int(x) for x in found]:
            raise OverflowError
    if any(x != x for x in found):
        raise OverflowError
    return min(found), max(found)


def _added(op: str, a: Span, b: Span) -> Span:
    try:
        lo, hi = _corners(op, a, b)
    except (OverflowError, TypeError):
        return _unknown(a, b)
    return _span(lo, hi, a.nan or b.nan, (a, b))


def _multiplied(a: Span, b: Span) -> Span:
    for one, other in ((a, b), (b, a)):
        if one.lo <= 0 <= one.hi and (np.isinf(other.lo) or np.isinf(other.hi)):
            return _unknown(a, b)
    return _added("*", a, b)


def _divided(op: str, a: Span, b: Span) -> Span:
    if b.lo <= 0 <= b.hi:
        return _unknown(a, b)
    if op == "//" and not all(np.asarray(x).dtype.kind in "iu" for x in (a.lo, b.lo)):
        return _unknown(a, b)
    return _added(op, a, b)


def _negative(a: Span) -> Span:
    lo, hi = _ends(a)
    dtype = np.asarray(lo).dtype
    if dtype.kind == "u" or (dtype.kind == "i" and a.lo == np.iinfo(dtype).min):
        return _unknown(a)
    return _span(np.negative(hi), np.negative(lo), a.nan, (a,))


def _inverted(a: Span) -> Span:
    lo, hi = _ends(a)
    return _span(np.invert(hi), np.invert(lo), False, (a,))


def _is_bool(*spans: Span) -> bool:
    return all(isinstance(span.lo, (bool, np.bool_)) for span in spans)


def _bit_and(a: Span, b: Span) -> Span:
    if _is_bool(a, b):
        return both(a, b)
    if a.lo < 0 or b.lo < 0:
        return _unknown(a, b)
    zero = np.bitwise_and(np.bitwise_and(_ends(a)[0], _ends(b)[0]), 0)
    return _span(zero, _to(min(a.hi, b.hi), np.asarray(zero).dtype), False, (a, b))


def _bit_or(a: Span, b: Span) -> Span:
    return either(a, b) if _is_bool(a, b) else _unknown(a, b)


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
        return _unknown(a)
    if a.lo >= 0:
        return a
    if a.hi <= 0:
        return low
    return replace(a, lo=np.absolute(a.lo) * 0, hi=max(low.hi, high.hi))


def _monotone(function: Callable[..., Any]) -> Callable[[Span], Span]:
    def computed(a: Span) -> Span:
        lo, hi = _ends(a)
        return _span(function(lo), function(hi), a.nan, (a,))

    return computed


def _sqrt(a: Span) -> Span:
    if a.lo < 0:
        return _unknown(a)
    return _monotone(np.sqrt)(a)


def _is_nan(a: Span) -> Span:
    return truth(a.nan, a.lo is not None, False, (a,))


def _is_finite(a: Span) -> Span:
    if a.lo is None:
        return truth(False, a.nan, False, (a,))
    infinite = bool(np.isinf(a.lo) or np.isinf(a.hi))
    return truth(True, a.nan or infinite, False, (a,))


def _least(a: Span, b: Span) -> Span:
    (a_lo, a_hi), (b_lo, b_hi) = _ends(a), _ends(b)
    return _span(np.minimum(a_lo, b_lo), np.minimum(a_hi, b_hi), a.nan or b.nan, (a, b))


def _greatest(a: Span, b: Span) -> Span:
    (a_lo, a_hi), (b_lo, b_hi) = _ends(a), _ends(b)
    return _span(np.maximum(a_lo, b_lo), np.maximum(a_hi, b_hi), a.nan or b.nan, (a, b))


def _cast(name: str) -> Callable[[Span], Span]:
    dtype = np.dtype(name)

    def computed(a: Span) -> Span:
        lo, hi = a.lo, a.hi
        # What floats and greater integers become is of the machine.
        if dtype.kind == "i" and np.asarray(lo).dtype.kind not in "bi":
            return _unknown(a)
        return _span(_to(lo, dtype), _to(hi, dtype), a.nan, (a,))

    return computed


def _to(end: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(end).astype(dtype).reshape(1)


def fill(a: Span, filler: Span) -> Span:
    """Return what ``fill(a, value)`` can be."""
    if not a.null:
        return a
    return chosen(truth(True, True, False), replace(a, null=False), filler)


def chosen(condition: Span, a: Span, b: Span) -> Span:
    """Return what ``where(condition, a, b)`` can be."""
    like = (condition, a, b)
    if not a.known or not b.known or isinstance(a.lo, str) or isinstance(b.lo, str):
        return _unknown(*like)
    if a.is_nothing or b.is_nothing:
        return _unknown(*like)
    try:
        dtype = np.result_type(a.lo, b.lo)
        ends = [_to(end, dtype)[0] for end in (a.lo, b.lo, a.hi, b.hi)]
    except OverflowError:
        return _unknown(*like)
    return _span(min(ends[:2]), max(ends[2:]), a.nan or b.nan, like)


def is_missing(a: Span) -> Span:
    """Return what ``ismissing(a)`` can be."""
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
    """Return what a reduction of lists can be. Missing elements are passed over, as in Awkward."""
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
        return replace(_unknown(), null=null)
    return _extreme(name, a, low, high, null)


def _extreme(name: str, a: Span, low: int, high: int, null: bool) -> Span:
    absent = null or low == 0 or a.null
    if not a.known:
        return replace(_unknown(), null=absent)
    if high == 0 or _never(a):
        return Span(None, None, null=True)
    lo, hi = a.lo, a.hi
    if a.nan:  # a list of nothing but NaN
        infinity = -np.inf if name == "max" else np.inf
        if lo is None:
            return Span(infinity, infinity, null=absent)
        end = np.asarray(lo).dtype.type(infinity)
        lo, hi = (end, hi) if name == "max" else (lo, end)
    return Span(lo, hi, null=absent)


def item(a: Span, index: int) -> Span:
    """Return what ``a[index]`` can be."""
    low, high = a.lengths or ANY_LENGTH
    needed = index + 1 if index >= 0 else -index
    if high < needed:
        return Span(None, None, null=True)
    return replace(a, null=a.null or a.outer_null or low < needed, lengths=None, outer_null=False)


def mask(a: Span, condition: Span) -> Span:
    """Return what the elements of ``a[condition]`` can be."""
    low, high = a.lengths or ANY_LENGTH
    null, outer = a.null or condition.null, a.outer_null or condition.outer_null
    if not condition.may_hold and not condition.null:
        return Span(None, None, lengths=(0, 0), outer_null=outer)
    kept = low if condition.must_hold else 0
    return replace(a, null=null, lengths=(kept, high), outer_null=outer)


def compute_span(kind: str, *spans: Span) -> Span:
    """Return what an operation or a function, by its name, can be."""
    with np.errstate(all="ignore"):
        if kind == "isnan" or kind == "isfinite":
            if not spans[0].known:
                return truth(True, True, False, spans)
            return _is_nan(spans[0]) if kind == "isnan" else _is_finite(spans[0])
        found = _CALLS.get(kind)
        if found is None:
            return arithmetic(kind, *spans)
        if not all(span.known and not span.is_nothing for span in spans):
            return _unknown(*spans)
        return found(*spans)
