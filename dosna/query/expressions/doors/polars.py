"""Predicates that Polars passes to its sources (``register_io_source``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dosna.errors import QueryError
from dosna.query.expressions.doors.foreign import Foreign, Translated, translate

__all__ = ["from_polars"]

_UNKNOWN = Foreign("unknown")
_COMPARISONS = {
    "Eq": "==",
    "NotEq": "!=",
    "Lt": "<",
    "LtEq": "<=",
    "Gt": ">",
    "GtEq": ">=",
}
_JOINS = {"And": "and", "LogicalAnd": "and", "Or": "or", "LogicalOr": "or"}
_TESTS = {
    "Not": ("not", False),
    "IsNull": ("null", False),
    "IsNotNull": ("null", True),
    "IsNan": ("nan", False),
    "IsNotNan": ("nan", True),
    "IsFinite": ("finite", False),
}
_BETWEEN = {"Both": (">=", "<="), "Left": (">=", "<"), "Right": (">", "<="), "None": (">", "<")}
_DEEPEST = 200


def from_polars(predicate: Any, columns: Mapping[str, Any]) -> Translated:
    """Translate a predicate of Polars, where NaN is the largest number.

    Parameters
    ----------
    predicate : polars.Expr
        The predicate.
    columns : mapping of str to form
        The forms of the columns, as for `bind`.

    Returns
    -------
    Translated
        The parts with the same meaning. If something is left out, Polars has to apply the
        predicate to the result.

    Raises
    ------
    QueryError
        If it is not an expression of Polars.

    Examples
    --------
    >>> import polars as pl
    >>> from dosna.query.expressions.doors import from_polars
    >>> found = from_polars(pl.col("met") > 50, {"met": "float32"})
    >>> str(found.expr), found.exact
    ('met > 50 || isnan(met)', True)
    """
    import polars as pl

    if not isinstance(predicate, pl.Expr):
        raise QueryError(
            f"query: expected an expression of Polars, not {type(predicate).__name__}"
        )
    names = frozenset(predicate.meta.root_names())
    try:
        tree = _tree(json.loads(predicate.meta.serialize(format="json")), 0)
    except Exception:  # the JSON of another version of Polars, or nested too deeply
        tree = _UNKNOWN
    found = translate(tree, columns, nan_is_greatest=True)
    return Translated(found.expr, found.exact, names)


def _tree(node: Any, depth: int) -> Foreign:
    if not isinstance(node, dict) or len(node) != 1 or depth > _DEEPEST:
        return _UNKNOWN
    ((kind, inside),) = node.items()
    if kind == "Column" and isinstance(inside, str):
        return Foreign("column", value=inside)
    if kind == "Literal":
        return _literal(inside)
    if kind == "BinaryExpr":
        parts = (_tree(inside["left"], depth + 1), _tree(inside["right"], depth + 1))
        if inside["op"] in _COMPARISONS:
            return Foreign("compare", parts, _COMPARISONS[inside["op"]])
        return Foreign(_JOINS.get(inside["op"], "unknown"), parts)
    if kind == "Cast":
        to = inside["dtype"].get("Literal")
        if to in ("Float64", "Int64"):
            return Foreign("cast", (_tree(inside["expr"], depth + 1),), type=to.lower())
    if kind == "Ternary":
        names = ("predicate", "truthy", "falsy")
        three = tuple(_tree(inside[name], depth + 1) for name in names)
        return Foreign("if", three, "null is false")
    if kind == "Function":
        return _function(inside, depth)
    return _UNKNOWN


def _literal(inside: Any) -> Foreign:
    if not isinstance(inside, dict):
        return _UNKNOWN
    ((scope, typed),) = inside.items()
    if scope not in ("Scalar", "Dyn") or not isinstance(typed, dict):
        return _UNKNOWN
    ((name, value),) = typed.items()
    if name == "Null":
        return Foreign("literal")
    if value is None or isinstance(value, (list, dict)):
        return _UNKNOWN  # NaN and infinities too
    if name == "Float":  # a literal without a type of its own
        return Foreign("literal", value=float(value))
    if name in ("Float32", "Float64"):
        return Foreign("literal", value=float(value), type=name.lower())
    is_plain = name in ("Boolean", "String", "Int") or name.lstrip("UI").startswith("nt")
    return Foreign("literal", value=value, type=name.lower()) if is_plain else _UNKNOWN


def _function(inside: dict[str, Any], depth: int) -> Foreign:
    name = inside["function"].get("Boolean") if isinstance(inside["function"], dict) else None
    parts = tuple(_tree(one, depth + 1) for one in inside["input"])
    if isinstance(name, str) and name in _TESTS:
        kind, negated = _TESTS[name]
        found = Foreign(kind, parts)
        return Foreign("not", (found,)) if negated else found
    if isinstance(name, dict) and "IsBetween" in name:
        value, low, high = parts
        ops = _BETWEEN[name["IsBetween"]["closed"]]
        ends = [
            Foreign("compare", (value, end), op) for end, op in zip((low, high), ops, strict=True)
        ]
        return Foreign("and", tuple(ends))
    if isinstance(name, dict) and "IsIn" in name and not name["IsIn"].get("nulls_equal"):
        values = _values(inside["input"][1])
        if values is not None:
            return Foreign("in", parts[:1], values)
    return Foreign("unknown", parts)


def _values(node: Any) -> tuple[Any, ...] | None:
    """Return the values of a literal list, which is a stream of Arrow in bytes."""
    try:
        serialized = bytes(node["Literal"]["Scalar"]["List"])
    except (KeyError, TypeError, ValueError):
        return None
    import pyarrow as pa

    column = pa.ipc.open_stream(serialized).read_all().column(0)
    values = column.to_pylist()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        values = values[0]
    return tuple(values)
