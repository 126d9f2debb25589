"""The text of a query: ``select PREDICATE, project TREE;CYCLE.BRANCH, …``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

from dosna.columns.description import Tree
from dosna.errors import QueryError, UnknownNameError
from dosna.query.expressions.doors import SkyhookQuery, from_skyhook
from dosna.query.expressions.functions import nearest
from dosna.query.expressions.nodes import (
    TURNED,
    Column,
    Compare,
    Expr,
    Literal,
    Logical,
    conjuncts,
    quote_name,
)
from dosna.query.expressions.parsing import Output

__all__ = ["ENTRY", "Request", "parse_request"]

E = TypeVar("E")

ENTRY = "event_id"
"""The column of a predicate that is the number of the entry, unless a branch has that name."""


class Request(NamedTuple):
    """The parts of a query.

    Parameters
    ----------
    tree : str
        The name of the tree's group, within that of the file.
    where : Expr or None
        The predicate, without `ENTRY`.
    columns : list of str or None
        The columns of the result, in the language of `dosna.query`; None for all branches.
    start, stop : int
        The range of entries.
    """

    tree: str
    where: Expr | None
    columns: list[str] | None
    start: int
    stop: int


def parse_request(text: str, trees: Mapping[str, Tree]) -> Request:
    """Parse the text of a query.

    Parameters
    ----------
    text : str
        The text, see `dosna.query.expressions.doors.from_skyhook`. Directories before the name of
        a tree are separated by ``/``, and the parts of a branch's name by ``.``.
    trees : mapping of str to Tree
        The trees of the file, by the names of their groups.

    Raises
    ------
    UnknownNameError
        There is no such tree.
    QueryError
        The text has another form, or names several trees.
    """
    query = from_skyhook(text)
    group = _group(query, trees)
    tree = trees[group]
    names = {branch.name.replace("/", "."): branch.name for branch in tree.branches}
    where, start, stop = _renamed(query.where, names), 0, tree.entries
    if where is not None and ENTRY in where.columns and ENTRY not in tree.by_name:
        where, start, stop = _entries(where, tree.entries)
    texts = [text for output in query.outputs for text in _texts(output, names)]
    return Request(group, where, texts or None, start, stop)


def _group(query: SkyhookQuery, trees: Mapping[str, Tree]) -> str:
    labels = [f"{group};{tree.cycle}" for group, tree in trees.items()]
    if query.tree:
        wanted = f"{query.tree};{query.cycle}"
        if wanted not in labels:
            raise UnknownNameError(f"unknown tree {wanted[:100]!r}: {nearest(wanted, labels)}")
        return query.tree
    if len(trees) != 1:
        raise QueryError(
            f"the file has the trees {', '.join(labels) or 'none'}: write the tree before a "
            "branch, as in 'project Events;1.Muon_pt'"
        )
    return next(iter(trees))


def _renamed(value: E, names: Mapping[str, str]) -> E:
    """Return an expression with the names of the tree's branches."""
    found: Any = value
    if isinstance(value, Column):
        found = Column(names.get(value.name, value.name))
    elif isinstance(value, tuple):
        found = tuple([_renamed(one, names) for one in value])
    elif isinstance(value, Expr):
        node: Any = value
        new = {f.name: _renamed(getattr(node, f.name), names) for f in fields(node)}
        found = replace(node, **new)
    renamed: E = found
    return renamed


def _texts(output: Output, names: Mapping[str, str]) -> list[str]:
    """Return a column, or those that match a pattern, in the language of `dosna.query`."""
    alike = [name for dotted, name in names.items() if fnmatchcase(dotted, output.pattern)]
    if alike:
        return [quote_name(name) for name in alike]
    if output.expr is None:
        return [output.pattern]  # which is an error
    expr = _renamed(output.expr, names)
    if isinstance(output.expr, Column) and output.expr.name == output.name:
        return [str(expr)]
    return [f"{quote_name(output.name)} = {expr}"]


def _entries(where: Expr, entries: int) -> tuple[Expr | None, int, int]:
    """Return a predicate without `ENTRY`, and the range of entries that it selects.

    Raises
    ------
    QueryError
        `ENTRY` is used other than in comparisons with numbers.
    """
    left, start, stop = list[Expr](), 0, entries
    for part in conjuncts(where):
        if ENTRY not in part.columns:
            left.append(part)
            continue
        bounds = _compared(part)
        start, stop = max(start, bounds[0]), min(stop, bounds[1])
    rest = left[0] if len(left) == 1 else Logical("&&", tuple(left)) if left else None
    return (rest, start, stop) if start < stop else (rest, 0, 0)


def _compared(part: Expr) -> tuple[int, int]:
    """Return the range of entries that a comparison of `ENTRY` with numbers selects."""
    start, stop = 0, 1 << 62
    compared = isinstance(part, Compare)
    operands, ops = (part.operands, part.ops) if isinstance(part, Compare) else ((part,), ())
    for one, op, other in zip(operands, ops, operands[1:], strict=False):
        if isinstance(one, Literal):
            one, op, other = other, TURNED[op], one
        value = other.value if isinstance(other, Literal) else math.nan
        usual = one == Column(ENTRY) and op != "!=" and isinstance(value, (int, float))
        if not usual or isinstance(value, str) or math.isnan(value):
            compared = False
            break
        value = max(-1.0, min(float(1 << 60), value)) if isinstance(value, float) else value
        if op in (">", ">=", "=="):
            start = max(start, math.floor(value) + 1 if op == ">" else math.ceil(value))
        if op in ("<", "<=", "=="):
            stop = min(stop, math.ceil(value) if op == "<" else math.floor(value) + 1)
    if not compared:
        raise QueryError(
            f"{ENTRY}, the number of an entry, can only be compared with numbers by < <= == > >= "
            f"and joined to the rest by &&, not used as in {str(part)[:100]!r}"
        )
    return start, stop
