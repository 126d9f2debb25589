"""Conditions of other languages, translated as far as they mean the same here.

Arrow, Polars and DuckDB have three-valued logic, where ``null or true`` is true. dosna follows
Awkward, where it is missing. Each part is therefore translated twice, as "it is true" and as "it
is false". Parts with another meaning here are not translated, and the caller is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.errors import QueryError
from dosna.query.expressions.binding import Bound, bind, bind_condition
from dosna.query.expressions.nodes import (
    TURNED,
    Call,
    Column,
    Compare,
    Expr,
    In,
    Literal,
    Logical,
    Unary,
)

__all__ = ["Foreign", "Translated", "translate"]

_DEEPEST = 60
_MOST_PARTS = 10_000
TRUE, FALSE = Literal(True), Literal(False)


@dataclass(frozen=True)
class Translated:
    """A condition of another language.

    Parameters
    ----------
    expr : Expr or None
        A condition that is true wherever the original is; None if nothing was translated.
    exact : bool
        Whether it is true nowhere else. If not, the original condition must still be applied to
        the entries that are found.
    columns : frozenset of str
        The columns that the original condition needs.
    """

    expr: Expr | None
    exact: bool
    columns: frozenset[str]


@dataclass(frozen=True)
class Foreign:
    """A part of a condition of another language.

    Parameters
    ----------
    kind : str
        ``and``, ``or``, ``not``, ``if``, ``compare``, ``in``, ``null``, ``nan``, ``finite``,
        ``column``, ``cast``, ``literal``, or ``unknown`` for what has no translation.
    parts : tuple of Foreign
        The operands.
    value : object
        The operator, the name, the values, or the literal; None for null.
    type : str
        The dtype of a literal or a cast; empty if it has none.
    """

    kind: str
    parts: tuple[Foreign, ...] = ()
    value: Any = None
    type: str = ""

    def names(self) -> Iterator[str]:
        """Yield the names of the columns."""
        left, seen = [self], set[int]()
        while left:
            part = left.pop()
            if id(part) in seen:  # parts of two others
                continue
            seen.add(id(part))
            if part.kind == "column":
                yield part.value
            left.extend(part.parts)

    @property
    def size(self) -> int:
        """Number of parts of a translation; a lower limit if it is above `_MOST_PARTS`."""
        total, left = 0, [(self, 1)]
        while left and total <= _MOST_PARTS:
            part, times = left.pop()
            total += times
            # The condition of an `if` is translated twice, and so are the conditions nested in it.
            left += [
                (inner, times * 2 if part.kind == "if" and not place else times)
                for place, inner in enumerate(part.parts)
            ]
        return total


class _Unlike(Exception):
    """A part means something else here, or nothing."""


def translate(
    condition: Foreign, columns: Mapping[str, Any], nan_is_greatest: bool = False
) -> Translated:
    """Translate a condition of another language.

    Parameters
    ----------
    condition : Foreign
        The condition.
    columns : mapping of str to form
        The forms of the columns, as for `bind`.
    nan_is_greatest : bool
        Whether NaN is greater than all numbers, as in Polars.

    Returns
    -------
    Translated
    """
    translator = _Translator(columns, nan_is_greatest)
    found: list[Expr] = []
    exact = True
    for part in _flat(condition, "and"):
        try:
            if part.size > _MOST_PARTS:
                raise _Unlike
            expr = translator.is_true(part)
            if expr != TRUE:
                bind_condition(expr, columns)
                found.append(expr)
        except (_Unlike, QueryError):
            exact = False
    whole = _joined("&&", found) if found or exact else None
    return Translated(whole, exact, frozenset(condition.names()))


def _flat(condition: Foreign, kind: str) -> Iterator[Foreign]:
    """Yield the parts that are joined by ``and`` or by ``or``, in their order."""
    left = [condition]
    while left:
        part = left.pop()
        if part.kind == kind:
            left.extend(reversed(part.parts))
        else:
            yield part


def _joined(op: str, exprs: Iterable[Expr]) -> Expr:
    neutral, absorbing = (TRUE, FALSE) if op == "&&" else (FALSE, TRUE)
    kept = [expr for expr in exprs if expr != neutral]
    if absorbing in kept:
        return absorbing
    if not kept:
        return neutral
    return kept[0] if len(kept) == 1 else Logical(op, tuple(kept))


class _Translator:
    def __init__(self, columns: Mapping[str, Any], nan_is_greatest: bool) -> None:
        self._columns = columns
        self._nan_is_greatest = nan_is_greatest
        self._bound: dict[Expr, Bound] = {}

    def is_true(self, part: Foreign) -> Expr:
        """Return when a part is true."""
        return self._is(part, True, 0)

    def _is(self, part: Foreign, wanted: bool, depth: int) -> Expr:
        if depth > _DEEPEST:
            raise _Unlike
        if part.kind in ("and", "or"):
            parts = [self._is(one, wanted, depth + 1) for one in _flat(part, part.kind)]
            return _joined("&&" if (part.kind == "and") is wanted else "||", parts)
        if part.kind == "not":
            return self._is(part.parts[0], not wanted, depth + 1)
        if part.kind == "if":
            test, then, other = part.parts
            true = self._is(test, True, depth + 1)
            false: Expr
            if part.value == "null is false":
                false = FALSE if true == TRUE else TRUE if true == FALSE else Unary("!", true)
            else:
                false = self._is(test, False, depth + 1)
            first = [true, self._is(then, wanted, depth + 1)]
            second = [false, self._is(other, wanted, depth + 1)]
            return _joined("||", [_joined("&&", first), _joined("&&", second)])
        if part.kind == "literal":
            if part.value is not None and not isinstance(part.value, bool):
                raise _Unlike
            return Literal(part.value is wanted)
        return self._leaf(part, wanted)

    def _leaf(self, part: Foreign, wanted: bool) -> Expr:
        if part.kind == "null":
            expr, bound = self._operand(part.parts[0])
            if not bound.optional:
                return Literal(not wanted)
            missing = Call("ismissing", (expr,))
            return missing if wanted else Unary("!", missing)
        if part.kind == "compare":
            found = self._compare(str(part.value), *part.parts)
        elif part.kind == "in":
            found = self._in(part)
        elif part.kind in ("nan", "finite"):
            expr, bound = self._operand(part.parts[0])
            if bound.dtype is None or bound.dtype.kind not in "iuf":
                raise _Unlike
            found = Call(f"is{part.kind}", (expr,))
        elif part.kind == "column":
            found, bound = self._operand(part)
            if bound.dtype != np.dtype(bool):
                raise _Unlike
        else:
            raise _Unlike
        if found in (TRUE, FALSE):
            return found if wanted else Literal(found == FALSE)
        optional = any(self._bind(Column(name)).optional for name in found.columns)
        found = found if wanted else Unary("!", found)
        # Of a missing value Arrow's is_in is false.
        absent = part.kind == "in" and part.type == "null is false" and not wanted
        return Call("fill", (found, Literal(absent))) if optional else found

    def _bind(self, expr: Expr) -> Bound:
        if expr not in self._bound:
            self._bound[expr] = bind(expr, self._columns)
        return self._bound[expr]

    def _operand(self, part: Foreign) -> tuple[Expr, Bound]:
        """Return a column, or a column in another dtype."""
        if part.kind == "column":
            bound = self._bind(Column(part.value))
            if part.value not in self._columns or bound.depth:
                raise _Unlike
            if bound.dtype is None and not self._is_text(bound.expr):
                raise _Unlike
            if bound.dtype is not None and bound.dtype.kind in "mM":  # null is NaT among them
                raise _Unlike
            return bound.expr, bound
        if part.kind != "cast":
            raise _Unlike
        expr, bound = self._operand(part.parts[0])
        if bound.dtype is None or bound.dtype.kind not in "iuf":
            raise _Unlike
        if bound.dtype == np.dtype(part.type):
            return expr, bound
        widens = part.type == "float64" or (
            part.type == "int64" and bound.dtype.kind in "iu" and bound.dtype != np.uint64
        )
        if not widens:
            raise _Unlike
        wide = Call(part.type, (expr,))
        return wide, self._bind(wide)

    def _is_text(self, expr: Expr) -> bool:
        try:
            self._bind(Compare((expr, Literal("")), ("==",)))
        except QueryError:
            return False
        return True

    def _compare(self, op: str, left: Foreign, right: Foreign) -> Expr:
        if left.kind == "literal":
            left, right, op = right, left, TURNED[op]
        expr, bound = self._operand(left)
        if right.kind != "literal":
            other, its = self._operand(right)
            alike = bound.dtype == its.dtype and bound.dtype is not None
            floats = bound.dtype is not None and bound.dtype.kind == "f"
            if not alike or (floats and self._nan_is_greatest):
                raise _Unlike
            return Compare((expr, other), (op,))
        if right.value is None:
            raise _Unlike
        expr = self._as_wide(expr, bound, right)
        self._check_literal(op, bound, right)
        found: Expr = Compare((expr, Literal(right.value)), (op,))
        is_float = bound.dtype is not None and bound.dtype.kind == "f"
        if self._nan_is_greatest and is_float and op in (">", ">="):
            found = Logical("||", (found, Call("isnan", (expr,))))
        return found

    def _as_wide(self, expr: Expr, bound: Bound, literal: Foreign) -> Expr:
        """Return a column in float64, if it is compared with a number that float32 has not."""
        if bound.dtype == np.float32 and literal.type == "float64":
            with np.errstate(over="ignore"):
                narrow = float(np.float32(literal.value))
            if narrow != literal.value and not math.isnan(literal.value):
                return Call("float64", (expr,))
        return expr

    def _check_literal(self, op: str, bound: Bound, literal: Foreign) -> None:
        """Raise unless a comparison with a literal means the same here."""
        value, dtype = literal.value, bound.dtype
        if dtype is None:
            like = isinstance(value, str) and op in ("==", "!=")
        elif dtype.kind == "b":
            like = isinstance(value, bool) and op in ("==", "!=")
        elif isinstance(value, (bool, str)):
            like = False
        elif dtype.kind in "iu":
            # Arrow would compare in a type that has not all of these.
            unsigned = dtype == np.uint64
            like = isinstance(value, int) and (value >= 0 if unsigned else value < 2**63)
        elif dtype.kind != "f":
            like = False
        elif isinstance(value, int):
            like = abs(value) < 2**64 and int(dtype.type(value)) == value
        else:
            like = not (math.isnan(value) and self._nan_is_greatest)
        if not like:
            raise _Unlike

    def _in(self, part: Foreign) -> Expr:
        expr, bound = self._operand(part.parts[0])
        values = tuple(part.value)
        if any(value is None or value != value for value in values):
            raise _Unlike
        for value in values:
            self._check_literal("==", bound, Foreign("literal", value=value))
            if isinstance(value, int) and bound.dtype is not None and bound.dtype.kind in "iu":
                limits = np.iinfo(bound.dtype)
                if not limits.min <= value <= limits.max:
                    raise _Unlike
        if part.type == "null is false" and bound.dtype is not None and bound.dtype.kind == "f":
            # Arrow's is_in tells -0.0 from 0.0, unlike its comparisons; 1e-46 is 0 in float32.
            with np.errstate(over="ignore"):
                if not np.asarray(values, bound.dtype).all():
                    raise _Unlike
        if values:
            return In(expr, tuple(map(Literal, values)))
        if bound.optional and part.type != "null is false":
            raise _Unlike
        return FALSE
