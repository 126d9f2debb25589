"""Predicates of one column, which a store can evaluate beside the data.

A program is a sequence of steps that works on a stack: a comparison of the column with a constant
adds the truth of each row, ``and`` and ``or`` take two away and add one, ``not`` changes the last.
Its meaning is NumPy's: a constant is converted to the column's dtype where NumPy would do that
(a Python float beside float32), and where NumPy would convert the column (an integer beside a
Python float), the comparison becomes an equal one of the column's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = ["Program", "comparison"]

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
        The steps, as pairs of the code and the constant; the latter is None where there is none.
    depth : int
        The most truths that are on the stack at once.
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
        """Return the truth for each of some values of the column."""
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
        """Return the opposite of this predicate, or None if that is too long for a store."""
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
    """Return the step of a comparison of integers, or of bool taken for 0 and 1."""
    if dtype.kind == "b":
        if type(constant) is int and abs(constant) > _EXACT:
            return None  # NumPy compares int64, and refuses what is beyond it.
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
