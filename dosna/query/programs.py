"""Predicates of one column, which a store can evaluate beside the data.

A program is a sequence of steps on a stack: a comparison of the column with a constant pushes the
truth of each row, ``and`` and ``or`` replace the last two entries by one, and ``not`` negates the
last. The semantics are those of NumPy: a constant is converted to the column's dtype where NumPy
would do so (a Python float with float32); where NumPy would convert the column (an integer with a
Python float), the comparison is replaced by an equivalent one in the column's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dosna.core.types import Array
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

__all__ = ["Program", "comparison", "program_of"]

_COMPARE = {"<": 1, "<=": 2, "==": 3, "!=": 4, ">": 5, ">=": 6}
_FUNCTIONS: dict[int, Any] = {
    1: np.less,
    2: np.less_equal,
    3: np.equal,
    4: np.not_equal,
    5: np.greater,
    6: np.greater_equal,
}
_AND, _OR, _NOT, _ABSOLUTE = 16, 17, 18, 64
_MOST_STEPS, _MOST_DEPTH = 64, 8
_EXACT = 1 << 53  # integers up to here are exact as float64


@dataclass(frozen=True)
class Program:
    """A predicate of one column.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the column.
    steps : tuple
        The steps, as pairs of a code and a constant, which is None for steps without one.
    depth : int
        The maximum depth of the stack.
    """

    dtype: np.dtype[Any]
    steps: tuple[tuple[int, Any], ...]
    depth: int = 1
    code: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = (
            bytes([step]) + (b"" if limit is None else limit.tobytes())
            for step, limit in self.steps
        )
        object.__setattr__(self, "code", b"".join(parts))

    def evaluate(self, values: Array) -> Array:
        """Return for each of some values of the column whether the predicate is true."""
        stack: list[Array] = []
        for step, limit in self.steps:
            if step == _NOT:
                stack[-1] = ~stack[-1]
            elif step in (_AND, _OR):
                other = stack.pop()
                stack[-1] = stack[-1] & other if step == _AND else stack[-1] | other
            else:
                of = np.abs(values) if step & _ABSOLUTE else values
                stack.append(_FUNCTIONS[step & ~_ABSOLUTE](of, limit))
        return stack[0]

    def negated(self) -> Program | None:
        """Return the negation of this predicate, or None if it is too long for a store."""
        return self._longer(((_NOT, None),), self.depth)

    def both(self, other: Program) -> Program | None:
        """Return the conjunction with another predicate, or None if it is too long."""
        return self._longer((*other.steps, (_AND, None)), max(self.depth, other.depth + 1))

    def either(self, other: Program) -> Program | None:
        """Return the disjunction with another predicate, or None if it is too long."""
        return self._longer((*other.steps, (_OR, None)), max(self.depth, other.depth + 1))

    def _longer(self, steps: tuple[tuple[int, Any], ...], depth: int) -> Program | None:
        made = (*self.steps, *steps)
        if len(made) > _MOST_STEPS or depth > _MOST_DEPTH:
            return None
        return Program(self.dtype, made, depth)


def comparison(
    dtype: np.dtype[Any], operator: str, constant: Any, absolute: bool = False
) -> Program | None:
    """Return the comparison of a column with a constant.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the column, of bool or numbers.
    operator : {'<', '<=', '==', '!=', '>', '>='}
        The operator, with the column on its left.
    constant : bool, int or float
        The constant.
    absolute : bool
        True to compare the absolute value of the column.

    Returns
    -------
    Program or None
        The comparison; None if a store cannot make it exactly as NumPy does.
    """
    if type(constant) not in (bool, int, float) or (absolute and dtype.kind != "f"):
        return None
    step: tuple[int, Any] | None = None
    if dtype.kind == "f":
        if type(constant) is float or abs(constant) <= _EXACT:
            with np.errstate(over="ignore"):
                step = _COMPARE[operator], dtype.type(constant)
    elif dtype.kind in "iub":
        step = _integers(dtype, operator, constant)
    if step is None:
        return None
    return Program(dtype, ((step[0] | absolute * _ABSOLUTE, step[1]),))


def _integers(
    dtype: np.dtype[Any], operator: str, constant: float | int
) -> tuple[int, Any] | None:
    """Return the step of a comparison of integers, or of bool as 0 and 1."""
    if dtype.kind == "b":
        if type(constant) is int and abs(constant) > _EXACT:
            return None  # NumPy compares int64, and refuses larger integers.
        dtype = np.dtype(np.uint8)
    if type(constant) is float:
        if dtype.itemsize == 8:
            return None  # NumPy compares rounded values.
        if math.isnan(constant):
            return _always(dtype, operator == "!=")
        if not constant.is_integer() and math.isfinite(constant):
            if operator in ("==", "!="):
                return _always(dtype, operator == "!=")
            operator, constant = (
                ("<=", math.floor(constant))
                if operator in ("<", "<=")
                else (">=", math.ceil(constant))
            )
    limits = np.iinfo(dtype)
    if constant > limits.max:
        return _always(dtype, operator in ("<", "<=", "!="))
    if constant < limits.min:
        return _always(dtype, operator in (">", ">=", "!="))
    return _COMPARE[operator], dtype.type(int(constant))


def _always(dtype: np.dtype[Any], truth: bool) -> tuple[int, Any]:
    """Return a step that is true, or false, for each integer."""
    operator = "<=" if truth else ">"
    return _COMPARE[operator], dtype.type(np.iinfo(dtype).max)


def program_of(expr: Expr, name: str, dtype: np.dtype[Any]) -> Program | None:
    """Return a condition on one column as a program.

    Parameters
    ----------
    expr : Expr
        The condition: comparisons of the column, or of its absolute value, with literals, joined
        by ``&&``, ``||`` and ``!``.
    name : str
        The name of the column.
    dtype : numpy.dtype
        The dtype of the column.

    Returns
    -------
    Program or None
        The program; None for any other condition, and for one that a store cannot compute exactly.
    """
    parts: list[Program | None]
    if isinstance(expr, Column) and expr.name == name and dtype.kind == "b":
        return comparison(dtype, "!=", False)
    if isinstance(expr, Unary) and expr.op == "!":
        found = program_of(expr.operand, name, dtype)
        return None if found is None else found.negated()
    if isinstance(expr, Logical):
        parts = [program_of(one, name, dtype) for one in expr.operands]
        return _joined(expr.op, parts)
    if isinstance(expr, In):
        parts = [_compared(expr.operand, "==", value, name, dtype) for value in expr.values]
        return _joined("||", parts)
    if isinstance(expr, Compare):
        pairs = zip(expr.operands, expr.ops, expr.operands[1:], strict=False)
        return _joined("&&", [_compared(*pair, name, dtype) for pair in pairs])
    return None


def _joined(operator: str, parts: list[Program | None]) -> Program | None:
    found, *others = parts
    for other in others:
        if found is None or other is None:
            return None
        found = found.both(other) if operator == "&&" else found.either(other)
    return found


def _compared(
    left: Expr, operator: str, right: Expr, name: str, dtype: np.dtype[Any]
) -> Program | None:
    constant = _constant(right)
    if constant is None:
        left, operator, constant = right, TURNED[operator], _constant(left)
    absolute = isinstance(left, Call) and left.function == "abs"
    operand = left.arguments[0] if isinstance(left, Call) and absolute else left
    if operand != Column(name):
        return None
    return comparison(dtype, operator, constant, absolute)


def _constant(expr: Expr) -> Any:
    """Return the number of a literal, also of a negative one; None for anything else."""
    if isinstance(expr, Unary) and expr.op == "-":
        value = _constant(expr.operand)
        return None if value is None or isinstance(value, bool) else -value
    return expr.value if isinstance(expr, Literal) else None
