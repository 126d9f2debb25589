"""The functions that expressions of uproot-raw selections may call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import awkward as ak
from uproot.language.python import PythonLanguage

__all__ = ["language"]

_REDUCTIONS = (
    "concatenate count count_nonzero sum nansum prod nanprod any all min nanmin max nanmax argmin "
    "nanargmin argmax nanargmax moment mean nanmean var nanvar std nanstd softmax"
)

_WITHIN_ENTRIES = dict.fromkeys(_REDUCTIONS.split(" "), 1) | {"flatten": 2}
"""The axes of functions that work within each entry, unless an expression gives another."""

_AS_THEY_ARE = (
    "almost_equal argcartesian argcombinations argsort broadcast_arrays broadcast_fields "
    "cartesian combinations drop_none fill_none firsts is_none isclose mask num pad_none "
    "singletons sort where"
)


def _with_axis(function: Callable[..., Any], axis: int) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if "axis" not in signature.bind_partial(*given, **named).arguments:
            named["axis"] = axis
        return function(*given, **named)

    return call


@functools.cache
def language(standard_axis: bool) -> PythonLanguage:
    """Return uproot's language of expressions, with functions of Awkward Array.

    Parameters
    ----------
    standard_axis : bool
        True for the default axes of Awkward Array, with which many functions work over all
        entries.
    """
    functions = {name: getattr(ak, name) for name in _AS_THEY_ARE.split(" ")}
    for name, axis in _WITHIN_ENTRIES.items():
        function = getattr(ak, name)
        functions[name] = function if standard_axis else _with_axis(function, axis)
    return PythonLanguage({**PythonLanguage.default_functions, **functions})
