"""The tree of an expression: frozen, hashable and picklable.

``str(expr)`` is canonical text. `parse` of it returns an equal tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = [
    "LEVELS",
    "MAX_DEPTH",
    "MAX_NODES",
    "TURNED",
    "Binary",
    "Call",
    "Column",
    "Compare",
    "Expr",
    "In",
    "Item",
    "Literal",
    "Logical",
    "Mask",
    "Unary",
    "conjuncts",
    "quote_name",
]

MAX_DEPTH = 100
"""Levels of nesting above which text is refused."""

MAX_NODES = 20_000
"""Nodes of a tree above which text is refused."""

_RESERVED = frozenset(("and", "or", "not", "in", "true", "false", "True", "False", "nan", "inf"))
"""Words that are not names of columns, unless they are quoted."""

TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""The comparisons, and those that say the same of exchanged operands."""

# From low to high precedence. Python and C differ for & ^ |, which are as in C here.
LEVELS = {
    "||": 1, "&&": 2, "not": 3, "|": 4, "^": 5, "&": 6, "compare": 7,
    "+": 8, "-": 8, "*": 9, "/": 9, "//": 9, "%": 9, "unary": 10, "**": 11, "atom": 12,
}  # fmt: skip


def is_plain_name(name: str) -> bool:
    """Return whether a name needs no quotes: ASCII words joined by dots, none reserved."""
    return (
        name.isascii()
        and name not in _RESERVED
        and all(part.isidentifier() and not part.startswith("__") for part in name.split("."))
    )


def quote_name(name: str) -> str:
    """Return the name of a column as text: in backquotes unless it is a plain name."""
    if is_plain_name(name):
        return name
    return f"`{name.replace(chr(92), chr(92) * 2).replace('`', chr(92) + '`')}`"


def _quote_text(text: str) -> str:
    """Return a string as a literal."""
    inside = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inside}"'


class Expr:
    """An expression. `children` are its operands."""

    @property
    def children(self) -> tuple[Expr, ...]:
        return ()

    @property
    def level(self) -> int:
        return LEVELS["atom"]

    def walk(self) -> Iterator[Expr]:
        """Yield this expression and all expressions in it."""
        left: list[Expr] = [self]
        while left:
            node = left.pop()
            yield node
            left.extend(reversed(node.children))

    @cached_property
    def columns(self) -> frozenset[str]:
        """Names of the columns in the expression."""
        return frozenset(node.name for node in self.walk() if isinstance(node, Column))

    def _inside(self, child: Expr, above: int) -> str:
        """Return the text of a child, in parentheses unless its precedence is above `above`."""
        return str(child) if child.level > above else f"({child})"


@dataclass(frozen=True)
class Column(Expr):
    """A column by its name."""

    name: str

    def __str__(self) -> str:
        return quote_name(self.name)


@dataclass(frozen=True, eq=False)
class Literal(Expr):
    """A number, a Boolean or a string. ``1``, ``1.0`` and ``true`` are not equal."""

    value: bool | int | float | str

    def _key(self) -> tuple[type, str]:
        return type(self.value), repr(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def level(self) -> int:
        negative = not isinstance(self.value, (bool, str)) and str(self.value).startswith("-")
        return LEVELS["unary" if negative else "atom"]

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return _quote_text(self.value)
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, float) and math.isnan(self.value):
            return "nan"
        return repr(self.value)


@dataclass(frozen=True)
class Unary(Expr):
    """``-x``, ``~x`` (bitwise) or ``!x`` (logical)."""

    op: str
    operand: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    @property
    def level(self) -> int:
        return LEVELS["unary"]

    def __str__(self) -> str:
        operand = self.operand
        # A minus before a number is part of the number.
        bare = operand.level >= self.level and not isinstance(operand, Literal)
        return f"{self.op}{operand}" if bare else f"{self.op}({operand})"


@dataclass(frozen=True)
class Binary(Expr):
    """``left op right`` with ``+ - * / // % **``, and with the bitwise ``& | ^``."""

    op: str
    left: Expr
    right: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.left, self.right)

    @property
    def level(self) -> int:
        return LEVELS[self.op]

    def __str__(self) -> str:
        if self.op == "**":
            left = self._inside(self.left, self.level)
            right = self._inside(self.right, self.level - 2)
        elif self.op in "&|^":  # what is compared beside them needs its parentheses
            left = (
                self._inside(self.left, LEVELS["compare"])
                if (not isinstance(self.left, Binary) or self.left.op != self.op)
                else str(self.left)
            )
            right = self._inside(self.right, LEVELS["compare"])
        else:
            left = self._inside(self.left, self.level - 1)
            right = self._inside(self.right, self.level)
        return f"{left} {self.op} {right}"


@dataclass(frozen=True)
class Compare(Expr):
    """``a < b``, or a chain ``a < b <= c``: true if each comparison is."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands

    @property
    def level(self) -> int:
        return LEVELS["compare"]

    def __str__(self) -> str:
        texts = [self._inside(operand, self.level) for operand in self.operands]
        return texts[0] + "".join(
            f" {op} {text}" for op, text in zip(self.ops, texts[1:], strict=True)
        )


@dataclass(frozen=True)
class Logical(Expr):
    """``a && b && …`` or ``a || b || …``."""

    op: str
    operands: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands

    @property
    def level(self) -> int:
        return LEVELS[self.op]

    def __str__(self) -> str:
        return f" {self.op} ".join(self._inside(one, self.level) for one in self.operands)


@dataclass(frozen=True)
class Call(Expr):
    """A function of the language with its arguments."""

    function: str
    arguments: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.arguments

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Item(Expr):
    """``x[0]``: an element of each list; missing where the list is shorter."""

    operand: Expr
    index: int

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self._inside(self.operand, self.level - 1)}[{self.index}]"


@dataclass(frozen=True)
class Mask(Expr):
    """``x[condition]``: the elements of each list for which the condition is true."""

    operand: Expr
    condition: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand, self.condition)

    def __str__(self) -> str:
        return f"{self._inside(self.operand, self.level - 1)}[{self.condition}]"


@dataclass(frozen=True)
class In(Expr):
    """``x in (1, 2, 3)``: whether a value equals one of some literals."""

    operand: Expr
    values: tuple[Literal, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand, *self.values)

    @property
    def level(self) -> int:
        return LEVELS["compare"]

    def __str__(self) -> str:
        operand = self._inside(self.operand, self.level)
        return f"{operand} in ({', '.join(map(str, self.values))})"

    @cached_property
    def _sought(self) -> dict[np.dtype[Any], Array | None]:
        return {}

    def sought(self, dtype: np.dtype[Any] | None) -> Array | None:
        """Return the values in a dtype, sorted; None if they are few, or of another kind."""
        if dtype is None or dtype.kind not in "iuf" or len(self.values) <= _FEW:
            return None
        if dtype not in self._sought:
            self._sought[dtype] = _as_sorted([one.value for one in self.values], dtype)
        return self._sought[dtype]


_FEW = 16
"""Values that are compared one by one."""


def _as_sorted(values: list[Any], dtype: np.dtype[Any]) -> Array | None:
    kinds = (int, float) if dtype.kind == "f" else (int,)
    if any(type(value) not in kinds for value in values):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.unique(np.array([value for value in values if value == value], dtype))
    limits = np.iinfo(dtype)
    return np.unique(np.array([v for v in values if limits.min <= v <= limits.max], dtype))


def conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """Return the conditions that ``&&`` joins, also in parentheses, in their order."""
    found: list[Expr] = []
    left = [expr]
    while left:
        one = left.pop()
        if isinstance(one, Logical) and one.op == "&&":
            left.extend(reversed(one.operands))
        else:
            found.append(one)
    return tuple(found)
