"""The value of an expression, as NumPy and Awkward compute it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dosna.errors import QueryError, QueryTypeError, UnknownNameError
from dosna.query.expressions import reducing
from dosna.query.expressions.functions import FUNCTIONS, nearest
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
from dosna.query.expressions.values import (
    Lists,
    Masked,
    Value,
    apply,
    depth_of,
    dtype_of,
    is_scalar,
    is_text,
    look_up,
    to_awkward,
    to_value,
)

__all__ = ["compute"]

_UNARY: dict[str, Callable[..., Any]] = {
    "-": np.negative,
    "~": np.invert,
    "!": np.logical_not,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "**": np.power,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
}
_COMPARE: dict[str, Callable[..., Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_BITS: dict[str, Callable[..., Any]] = {"&&": np.bitwise_and, "||": np.bitwise_or}
_LOGICAL: dict[str, Callable[..., Any]] = {"&&": np.logical_and, "||": np.logical_or}
_PYTHON: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}


def compute(expr: Expr, columns: Mapping[str, Any]) -> Value:
    """Return the value of an expression, in its simplest form."""
    with np.errstate(all="ignore"):
        return _compute(expr, columns)


def _compute(expr: Expr, columns: Mapping[str, Any]) -> Value:
    if isinstance(expr, Literal):
        return expr.value
    if isinstance(expr, Column):
        return _column(expr, columns)
    values = [_compute(child, columns) for child in expr.children]
    try:
        return _KINDS[type(expr)](expr, values)
    except QueryError as error:
        if "query: " in str(error):
            raise
        raise type(error)(f"query: {str(expr)[:200]}: {error}") from error
    except TypeError as error:
        raise QueryTypeError(
            f"query: {str(expr)[:200]}: the operation is not defined for {_types(values)}"
        ) from error
    except (ArithmeticError, ValueError) as error:
        raise QueryError(f"query: {str(expr)[:200]}: {error}") from error


def _types(values: list[Value]) -> str:
    names = []
    for value in values:
        dtype = dtype_of(value)
        name = "string" if is_text(value) else str(dtype or type(value).__name__)
        names.append("lists of " * depth_of(value) + name)
    return " and ".join(dict.fromkeys(names))


def _column(expr: Column, columns: Mapping[str, Any]) -> Value:
    name, fields = look_up(columns, expr.name)
    array = columns[name]
    for field in fields:
        known = getattr(array, "fields", None)
        if known is None:
            known = getattr(getattr(array, "dtype", None), "names", None) or ()
        if field not in known:
            has = f"no field {field[:80]!r}: {nearest(field, known)}" if known else "no fields"
            raise UnknownNameError(
                f"query: unknown column {expr.name[:80]!r}: {name[:80]!r} has {has}"
            )
        array = array[field]
    return to_value(array)


def _numbers(values: list[Value]) -> None:
    for value in values:
        if is_text(value):
            raise TypeError
        dtype = dtype_of(value)
        if (dtype is None and not is_scalar(value)) or (dtype and dtype.kind not in "biufc"):
            raise TypeError


def _is_truth(value: Value) -> bool:
    return isinstance(value, bool) or dtype_of(value) == np.dtype(bool)


def _unary(expr: Unary, values: list[Value]) -> Value:
    _numbers(values)
    (value,) = values
    if isinstance(value, (bool, int, float)):  # literals remain Python objects
        if expr.op == "!":
            return not value
        if isinstance(value, bool):
            if expr.op == "-":
                raise TypeError
            return not value
        return -value if expr.op == "-" else ~value  # type: ignore[operator]
    return apply(_UNARY[expr.op], value)


def _binary(expr: Binary, values: list[Value]) -> Value:
    _numbers(values)
    left, right = values
    if expr.op not in "&|^" and _is_truth(left) and _is_truth(right):
        raise QueryTypeError(
            "arithmetic on two Booleans is an 'or' in NumPy: write (a) * 1 + (b) to count"
        )
    if isinstance(left, (bool, int, float)) and isinstance(right, (bool, int, float)):
        return _fold(expr.op, left, right)
    try:
        return apply(_BINARY[expr.op], left, right)
    except ValueError as error:
        if isinstance(error, QueryError):
            raise
        raise QueryError(f"query: {str(expr)[:200]}: {error}") from error


def _fold(op: str, left: Any, right: Any) -> Any:
    """Compute an operation of two literals as Python does, within 64 bits."""
    if op == "**":
        ints = isinstance(left, int) and isinstance(right, int)
        # Longer powers of other numbers have more than 64 bits, and would take long.
        if ints and (right < 0 or (right > 64 and abs(left) > 1)):
            raise OverflowError("the result is not an integer of 64 bits: write 2.0 ** 3")
        found = float(left) ** right if isinstance(right, float) else left**right
        if isinstance(found, complex):
            return float("nan")
    else:
        found = _PYTHON[op](left, right)
    if isinstance(found, int) and not -(2**63) <= found < 2**64:
        raise OverflowError("the result is not an integer of 64 bits: write a float")
    return found


def _compare(expr: Compare, values: list[Value]) -> Value:
    found: Value = None
    for op, left, right in zip(expr.ops, values, values[1:], strict=False):
        one = _compare_two(op, left, right)
        found = one if found is None else _join("&&", found, one, may_overwrite=True)
    return found


def _compare_two(op: str, left: Value, right: Value) -> Value:
    if _has_text(left) and _has_text(right):
        if op not in ("==", "!="):
            raise QueryTypeError("strings can be compared by == and != only")
        if isinstance(left, str) and isinstance(right, str):
            return (left == right) is (op == "==")
        if isinstance(left, str):
            left, right = right, left
        equal = to_value(left == right)
        return equal if op == "==" else apply(np.logical_not, equal)
    _numbers([left, right])
    if is_scalar(left) and is_scalar(right):
        return bool(_COMPARE[op](left, right))
    return apply(_COMPARE[op], left, right)


def _has_text(value: Value) -> bool:
    """Return whether values are strings, also those of an array of NumPy."""
    return value.dtype.kind in "UT" if isinstance(value, np.ndarray) else is_text(value)


def _join(op: str, left: Value, right: Value, may_overwrite: bool = False) -> Value:
    arrays = isinstance(left, np.ndarray) and isinstance(right, np.ndarray)
    if arrays and left.dtype == right.dtype == np.bool_ and left.shape == right.shape:
        return _BITS[op](left, right, out=left if may_overwrite else None)
    return apply(_LOGICAL[op], left, right)


def _logical(expr: Logical, values: list[Value]) -> Value:
    _numbers(values)
    found, *others = values
    # The result of a comparison has no other user, unlike a column.
    own = isinstance(expr.operands[0], (Compare, In, Logical))
    for other in others:
        found, own = _join(expr.op, found, other, own), True
    return bool(found) if is_scalar(found) else found


def _in(expr: In, values: list[Value]) -> Value:
    operand, *choices = values
    many = None if hasattr(operand, "layout") else expr.sought(dtype_of(operand))
    if many is not None:
        return apply(lambda x: np.isin(x, many), operand)
    found = _compare_two("==", operand, choices[0])
    for choice in choices[1:]:
        found = _join("||", found, _compare_two("==", operand, choice), may_overwrite=True)
    return found


def _item(expr: Item, values: list[Value]) -> Value:
    return reducing.item(values[0], expr.index)


def _mask(expr: Mask, values: list[Value]) -> Value:
    return reducing.mask(values[0], values[1])


def _call(expr: Call, values: list[Value]) -> Value:
    function = FUNCTIONS[expr.function]
    if function.reduces and len(values) == 1:
        if (
            expr.function == "count"
            and _is_truth(values[0])
            and isinstance(expr.arguments[0], (Compare, Logical, In, Unary, Binary))
        ):
            raise QueryTypeError(
                "count(condition) would count all elements: write sum(condition) for those that "
                "are true"
            )
        return reducing.reduce(expr.function, values[0])
    special = _SPECIAL.get(expr.function)
    if special is not None:
        return special(*values)
    _numbers(values)
    assert function.compute is not None
    if expr.function in ("min", "max"):
        return functools.reduce(functools.partial(apply, function.compute), values)
    if all(map(is_scalar, values)):
        return function.compute(*values)
    return apply(function.compute, *values)


def _where(condition: Value, left: Value, right: Value) -> Value:
    if not _is_truth(condition):
        raise QueryTypeError("where(condition, x, y) needs a condition as its first argument")
    if is_text(left) or is_text(right):
        raise TypeError
    _numbers([left, right])
    if all(map(is_scalar, (condition, left, right))):
        return np.asarray(np.where(condition, left, right))[()]
    masked = [isinstance(value, Masked) for value in (condition, left, right)]
    if any(masked) and not any(depth_of(v) or hasattr(v, "layout") for v in (left, right)):
        there = [v.valid if isinstance(v, Masked) else True for v in (condition, left, right)]
        data = [v.data if isinstance(v, Masked) else v for v in (condition, left, right)]
        return Masked(np.where(*data), np.where(data[0], there[1], there[2]) & there[0])
    return apply(np.where, condition, left, right)


def _is_missing(value: Value) -> Value:
    if isinstance(value, Masked):
        return ~value.valid
    if is_scalar(value):
        return False
    if isinstance(value, (Lists, np.ndarray)):
        return apply(lambda x: np.zeros(x.shape, bool), value)
    import awkward as ak

    return to_value(ak.is_none(value, axis=depth_of(value)))


def _fill(value: Value, filler: Value) -> Value:
    if not isinstance(filler, (bool, int, float, str)):
        raise QueryTypeError("the value in fill(x, value) must be a literal")
    if is_text(value) != isinstance(filler, str):
        raise TypeError
    if isinstance(value, Masked):
        return np.where(value.valid, value.data, filler)
    if is_scalar(value) or isinstance(value, (Lists, np.ndarray)):
        return value
    import awkward as ak

    dtype = dtype_of(value)
    typed = filler if dtype is None else np.result_type(dtype, filler).type(filler)
    return to_value(ak.fill_none(value, typed, axis=depth_of(value)))


def _cast(name: str) -> Callable[[Value], Value]:
    dtype = np.dtype(name)

    def cast(value: Value) -> Value:
        _numbers([value])
        if is_scalar(value):
            return dtype.type(value)
        if hasattr(value, "layout"):
            import awkward as ak

            return to_value(ak.values_astype(to_awkward(value), dtype))
        return apply(lambda x: x.astype(dtype), value)

    return cast


_SPECIAL: dict[str, Callable[..., Value]] = {
    "where": _where,
    "ismissing": _is_missing,
    "fill": _fill,
    "float32": _cast("float32"),
    "float64": _cast("float64"),
    "int64": _cast("int64"),
}
_KINDS: dict[type[Expr], Callable[[Any, list[Value]], Value]] = {
    Unary: _unary,
    Binary: _binary,
    Compare: _compare,
    Logical: _logical,
    In: _in,
    Item: _item,
    Mask: _mask,
    Call: _call,
}
