"""The functions of the language."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.errors import UnknownNameError
from dosna.query.expressions.lexing import Token, fail

__all__ = ["FUNCTIONS", "Function", "check_function", "nearest"]


@dataclass(frozen=True)
class Function:
    """A function of the language.

    Parameters
    ----------
    least, most : int
        The numbers of arguments; `most` is 0 if there is no limit.
    compute : callable or None
        The function of the elements; None for a reduction, or if it is computed in another way.
    reduces : bool
        Whether it reduces lists when it has one argument.
    gives_truth : bool
        Whether the result is a Boolean.
    """

    least: int
    most: int
    compute: Callable[..., Any] | None = None
    reduces: bool = False
    gives_truth: bool = False


def deltaphi(a: Any, b: Any) -> Any:
    """Return ``a - b`` as an angle of at least -π and below π."""
    return np.remainder(a - b + np.pi, 2 * np.pi) - np.pi


def deltar(eta1: Any, phi1: Any, eta2: Any, phi2: Any) -> Any:
    """Return the distance of two directions in η and φ."""
    return np.hypot(eta1 - eta2, deltaphi(phi1, phi2))


FUNCTIONS: dict[str, Function] = {
    "abs": Function(1, 1, np.absolute),
    "sqrt": Function(1, 1, np.sqrt),
    "exp": Function(1, 1, np.exp),
    "log": Function(1, 1, np.log),
    "log10": Function(1, 1, np.log10),
    "sin": Function(1, 1, np.sin),
    "cos": Function(1, 1, np.cos),
    "tan": Function(1, 1, np.tan),
    "asin": Function(1, 1, np.arcsin),
    "acos": Function(1, 1, np.arccos),
    "atan": Function(1, 1, np.arctan),
    "sinh": Function(1, 1, np.sinh),
    "cosh": Function(1, 1, np.cosh),
    "tanh": Function(1, 1, np.tanh),
    "atan2": Function(2, 2, np.arctan2),
    "hypot": Function(2, 2, np.hypot),
    "floor": Function(1, 1, np.floor),
    "ceil": Function(1, 1, np.ceil),
    "isnan": Function(1, 1, np.isnan, gives_truth=True),
    "isfinite": Function(1, 1, np.isfinite, gives_truth=True),
    "deltaphi": Function(2, 2, deltaphi),
    "deltar": Function(4, 4, deltar),
    "where": Function(3, 3, np.where),
    "min": Function(1, 0, np.minimum, reduces=True),
    "max": Function(1, 0, np.maximum, reduces=True),
    "any": Function(1, 1, reduces=True, gives_truth=True),
    "all": Function(1, 1, reduces=True, gives_truth=True),
    "sum": Function(1, 1, reduces=True),
    "count": Function(1, 1, reduces=True),
    "ismissing": Function(1, 1, gives_truth=True),
    "fill": Function(2, 2),
    "float32": Function(1, 1),
    "float64": Function(1, 1),
    "int64": Function(1, 1),
}
"""The functions by their names."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the part of a message that suggests names similar to an unknown one."""
    known = list(known)
    folded: dict[str, str] = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold()[:200], folded, 3, 0.5)
    if close:
        return "did you mean " + " or ".join(repr(folded[one]) for one in close) + "?"
    some = ", ".join(sorted(known)[:10]) or "none"
    return f"there are {some}{', …' if len(known) > 10 else ''}"


def check_function(text: str, token: Token, arguments: int) -> None:
    """Raise an error for an unknown function, or one with a wrong number of arguments."""
    function = FUNCTIONS.get(token.value) if token.kind == "name" else None
    if function is None:
        raise fail(
            text,
            token.start,
            f"unknown function {token.value[:40]!r}: {nearest(token.value, FUNCTIONS)}",
            UnknownNameError,
        )
    if arguments < function.least or (function.most and arguments > function.most):
        least, most = function.least, function.most
        takes = (
            f"{least}" if most == least else f"{least} or more" if not most else f"{least}…{most}"
        )
        raise fail(text, token.start, f"{token.value} takes {takes} arguments, not {arguments}")
