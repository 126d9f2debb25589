"""Expressions for uproot: Python on arrays, with the functions of NumPy and awkward."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dosna.errors import QueryError, UnknownNameError
from dosna.query.expressions.functions import FUNCTIONS, nearest
from dosna.query.expressions.lexing import MAX_LENGTH
from dosna.query.expressions.nodes import (
    MAX_DEPTH,
    Binary,
    Call,
    Column,
    Compare,
    Expr,
    Item,
    Literal,
    Mask,
    Unary,
)

__all__ = ["from_uproot"]

_BINARY = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip
_UNARY = {ast.USub: "-", ast.Invert: "~"}
_COMPARE = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_OTHER_NAMES = {
    "absolute": "abs", "fabs": "abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arctan2": "atan2",
}  # fmt: skip
_SAME = frozenset(FUNCTIONS) - {"deltaphi", "deltar", "float32", "float64", "int64"} - {
    "ismissing", "fill",
}  # fmt: skip


def from_uproot(
    text: str,
    columns: Collection[str],
    aliases: Mapping[str, str] | None = None,
    nested: Collection[str] = (),
) -> Expr:
    """Return the tree of an expression of uproot's language.

    Anything that the language of queries lacks, or understands differently, is refused.

    Parameters
    ----------
    text : str
        The expression, such as ``(nMuon >= 2) & any(Muon_pt > 20)``. Reductions are over the lists
        within an entry, as with ``axis=1``.
    columns : collection of str
        The names of the columns.
    aliases : mapping of str to str, optional
        Expressions by their names.
    nested : collection of str
        The columns with lists of lists.

    Returns
    -------
    Expr
        The expression.

    Raises
    ------
    QueryError
        The text is not an expression, or contains something that cannot be translated.
    UnknownNameError
        There is no such column or function.
    """
    return _Translation(columns, aliases or {}, nested).tree(text, ())


class _Translation:
    def __init__(
        self, columns: Collection[str], aliases: Mapping[str, str], nested: Collection[str]
    ) -> None:
        self._columns, self._aliases, self._nested = columns, aliases, nested
        self._text = ""

    def tree(self, text: str, within: tuple[str, ...]) -> Expr:
        """Translate the text of an expression or an alias."""
        if text in self._columns:
            return Column(text)
        if len(text) > MAX_LENGTH:
            raise QueryError(f"an expression has more than {MAX_LENGTH} characters: shorten it")
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise QueryError(f"{_short(text)} is not an expression: {error}") from None
        before, self._text = self._text, text
        try:
            return self._node(node, within, 0)
        except RecursionError:  # of what is refused, and shown in the message
            raise QueryError(f"{_short(text)} is nested too deeply: use fewer parts") from None
        finally:
            self._text = before

    def _refused(self, what: str) -> QueryError:
        return QueryError(
            f"{_short(self._text)} cannot be translated to a query: {what}. Use "
            "columns, numbers, operators, and the functions of the language of queries."
        )

    def _node(self, node: ast.AST, within: tuple[str, ...], depth: int) -> Expr:
        if depth > MAX_DEPTH:
            raise self._refused(f"it has more than {MAX_DEPTH} levels")
        call: Callable[[Any], Expr] = lambda one: self._node(one, within, depth + 1)  # noqa: E731
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return Literal(value)
            case ast.Name() | ast.Attribute():
                return self._name(node, within)
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                return Binary(_BINARY[type(op)], call(left), call(right))
            case ast.UnaryOp(ast.UAdd(), operand):
                return call(operand)
            case ast.UnaryOp(op, operand) if type(op) in _UNARY:
                return Unary(_UNARY[type(op)], call(operand))
            case ast.Compare(left, [op], [right]) if type(op) in _COMPARE:
                return Compare((call(left), call(right)), (_COMPARE[type(op)],))
            case ast.Compare():
                raise self._refused("comparisons of arrays do not chain: join them by &")
            case ast.Subscript(value, slice):
                return self._subscript(call(value), slice, call)
            case ast.Call(ast.Name(name), arguments, keywords):
                return self._call(name, arguments, keywords, call)
        raise self._refused(f"it has {ast.unparse(node)[:60]}")

    def _name(self, node: ast.AST, within: tuple[str, ...]) -> Expr:
        name = ast.unparse(node)
        if name in self._columns:
            return Column(name)
        if name in self._aliases:
            if name in within:
                raise QueryError(f"the alias {name!r} refers to itself: give it another name")
            return self.tree(self._aliases[name], (*within, name))
        raise UnknownNameError(f"there is no column {name!r}: {nearest(name, self._columns)}")

    def _subscript(self, value: Expr, index: ast.expr, call: Callable[[Any], Expr]) -> Expr:
        match index:
            case ast.Tuple([ast.Slice(None, None, None), inner]):
                if isinstance(inner, ast.UnaryOp | ast.Constant):
                    try:
                        return Item(value, int(ast.literal_eval(inner)))
                    except (ValueError, TypeError):
                        pass
            case ast.Slice() | ast.Constant() | ast.UnaryOp(ast.USub()) | ast.Tuple():
                pass
            case _:
                return Mask(value, call(index))
        raise self._refused(f"it has [{ast.unparse(index)[:60]}], and not [:, NUMBER] or [MASK]")

    def _call(
        self,
        name: str,
        arguments: list[ast.expr],
        keywords: list[ast.keyword],
        call: Callable[[Any], Expr],
    ) -> Expr:
        if name == "get" and len(arguments) == 1 and isinstance(arguments[0], ast.Constant):
            return self.tree(str(arguments[0].value), ())
        ours = _OTHER_NAMES.get(name, name)
        if ours not in _SAME:
            raise UnknownNameError(
                f"there is no function {name!r} for trees of columns: {nearest(name, _SAME)}"
            )
        found = tuple(call(one) for one in arguments)
        axes = [one.value for one in keywords if one.arg == "axis"]
        if len(axes) < len(keywords) or (axes and not FUNCTIONS[ours].reduces):
            raise self._refused(f"{name} takes no keywords but the axis of a reduction")
        if FUNCTIONS[ours].reduces:
            axis = ast.unparse(axes[0]) if axes else "1"
            if len(found) != 1 or axis not in ("1", "-1"):
                raise self._refused(f"{name} reduces the lists of an entry, by axis=1")
            if axis == "1" and not found[0].columns.isdisjoint(self._nested):
                raise self._refused(f"{name} of lists of lists needs axis=-1")
        return Call(ours, found)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
