"""The text of a query: ``select PREDICATE, project TREE;CYCLE.BRANCH, …``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from dosna.columns.description import Tree
from dosna.errors import QueryError, UnknownNameError
from dosna.query.expressions.functions import nearest
from dosna.query.expressions.nodes import quote_name

__all__ = ["Request", "parse_request"]

_MOST = 1 << 20  # characters
_PLACE = re.compile(r"(?P<tree>[^\s,;]+);(?P<cycle>\d+)\.")
# What a predicate consists of: quoted text, the beginnings of places, names, and the rest.
_WORD = re.compile(
    r"(?P<quoted>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)"
    r"|(?P<tree>[A-Za-z_][\w./]*);(?P<cycle>\d+)\."
    r"|(?P<name>[A-Za-z_][\w.]*)",
    re.S,
)


class Request(NamedTuple):
    """What a query asks for.

    Parameters
    ----------
    tree : str
        The name of the tree's group, within that of the file.
    where : str or None
        The predicate, in the language of `dosna.query`.
    branches : tuple of str
        The names of the branches.
    """

    tree: str
    where: str | None
    branches: tuple[str, ...]


def parse_request(text: str, trees: Mapping[str, Tree]) -> Request:
    """Split the text of a query.

    Parameters
    ----------
    text : str
        The text. ``select *`` or no ``select`` takes all entries. Without ``project`` all
        branches are taken. A branch is ``TREE;CYCLE.BRANCH``; directories before the name of the
        tree, and parts of the name of the branch, are separated by ``.`` or ``/``. Cycle and tree
        may be left out where there is one tree.
    trees : mapping of str to Tree
        The trees of the file by the names of their groups.

    Raises
    ------
    UnknownNameError
        There is no such tree or branch.
    QueryError
        The text has another form, or is of several trees.
    """
    if len(text) > _MOST:
        raise QueryError(f"the text of a query has {len(text)} characters: {_MOST} are allowed")
    where, projected = _split(text)
    chosen: dict[str, None] = {}
    used: dict[str, None] = {}
    for place in projected:
        group, rest = _tree_of(place, trees)
        used[group] = None
        chosen.update(dict.fromkeys(_branches_of(rest, trees[group], group)))
    for match in _WORD.finditer(where or ""):
        if match["tree"]:
            used[_group_of(match["tree"], match["cycle"], trees)] = None
    if not used:
        used[_only(trees)] = None
    if len(used) > 1:
        raise QueryError(
            f"a query is of one tree, and this one names {' and '.join(map(repr, used))}: "
            "run one for each"
        )
    (group,) = used
    tree = trees[group]
    if not projected:
        chosen = dict.fromkeys(branch.name for branch in tree.branches)
    return Request(group, _rewritten(where, tree), tuple(chosen))


def _split(text: str) -> tuple[str | None, list[str]]:
    """Return the predicate, and the places that are projected."""
    rest, projected = text.strip(), ""
    parts = re.split(r"(?:^|,)\s*project\s+", rest, flags=re.I)
    if len(parts) > 2:
        raise QueryError(f"{text[:100]!r} has more than one 'project'")
    if len(parts) == 2:
        rest, projected = parts
    where = re.sub(r"^\s*select\s+", "", rest, flags=re.I).strip()
    if where and where == rest.strip():
        raise QueryError(
            f"{text[:100]!r} is no query: write 'select PREDICATE, project TREE;CYCLE.BRANCH, …'"
        )
    places = [place.strip() for place in projected.split(",")] if len(parts) == 2 else []
    if not all(places):
        raise QueryError(f"{text[:100]!r} has a comma too many, or nothing after 'project'")
    return (None if where in ("", "*") else where), places


def _only(trees: Mapping[str, Tree]) -> str:
    if len(trees) != 1:
        labels = ", ".join(_labels(trees)) or "none"
        raise QueryError(
            f"the file has the trees {labels}: write the tree before a branch, as in "
            "'project Events;1.Muon_pt'"
        )
    return next(iter(trees))


def _labels(trees: Mapping[str, Tree]) -> list[str]:
    return [f"{group};{tree.cycle}" for group, tree in trees.items()]


def _tree_of(place: str, trees: Mapping[str, Tree]) -> tuple[str, str]:
    """Return the tree that a place begins with, and what is left of it."""
    match = _PLACE.match(place)
    if match:
        return _group_of(match["tree"], match["cycle"], trees), place[match.end() :]
    for group in sorted(trees, key=len, reverse=True):
        for start in {f"{group}.", f"{group.replace('/', '.')}."}:
            if place.startswith(start):
                return group, place[len(start) :]
    if ";" in place:
        raise QueryError(f"{place[:100]!r} is not the place of a branch: write TREE;CYCLE.BRANCH")
    return _only(trees), place


def _group_of(name: str, cycle: str, trees: Mapping[str, Tree]) -> str:
    found = {group.replace("/", "."): group for group in trees}.get(name.replace("/", "."))
    if found is None or trees[found].cycle != int(cycle):
        wanted = f"{name[:100]};{cycle}"
        raise UnknownNameError(f"unknown tree {wanted!r}: {nearest(wanted, _labels(trees))}")
    return found


def _branches_of(place: str, tree: Tree, group: str) -> list[str]:
    """Return the branches that a place within a tree means: one, or those like a pattern."""
    if any(char in place for char in "*?[") and place not in tree.by_name:
        return [branch.name for branch in tree.chosen(place, f"tree {group!r}")]
    found = _dotted(tree).get(place.replace("/", "."))
    if place not in tree.by_name and found is None:
        raise UnknownNameError(f"unknown branch {place[:100]!r}: {nearest(place, tree.by_name)}")
    return [place if place in tree.by_name or found is None else found]


def _dotted(tree: Tree) -> dict[str, str]:
    return {branch.name.replace("/", "."): branch.name for branch in tree.branches}


def _rewritten(where: str | None, tree: Tree) -> str | None:
    """Return a predicate in which branches have the names of the tree, without its own."""
    if where is None:
        return None
    dotted = _dotted(tree)

    def word(match: re.Match[str]) -> str:
        if match["tree"]:
            return ""
        found = dotted.get(match["name"])
        return match[0] if found is None else quote_name(found)

    return _WORD.sub(word, where)
