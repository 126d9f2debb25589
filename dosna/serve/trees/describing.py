"""The trees that are served, and their branches, as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dosna.columns.description import Branch, Tree, find_trees, get_tree
from dosna.errors import DatasetNotFoundError
from dosna.serve.served import Served
from dosna.web import Refusal

__all__ = ["describe", "list_trees", "quoted", "tree_of"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def list_trees(served: Served) -> list[dict[str, Any]]:
    """Return the names of the shown trees, and their numbers of entries."""
    found = find_trees(served.con, served.below)
    return [
        {
            "name": name,
            "title": tree.title,
            "kind": tree.kind,
            "entries": tree.entries,
            "branches": len(tree.branches),
        }
        for name, tree in sorted(found.items())
        if served.is_inside(name)
    ]


def tree_of(served: Served, name: str) -> Tree:
    """Return the description of a tree.

    Raises
    ------
    Refusal
        There is no such tree (404), or the name is not legal (400).
    """
    try:
        checked = served.check(name)
        if not served.is_inside(checked):
            raise DatasetNotFoundError(checked)
        return get_tree(served.con, checked)
    except DatasetNotFoundError:
        raise Refusal(404, f"there is no tree {name!r}") from None


def describe(name: str, tree: Tree) -> dict[str, Any]:
    """Return the description of a tree for the page."""
    return {
        "name": name,
        "title": tree.title,
        "kind": tree.kind,
        "entries": tree.entries,
        "files": len(tree.files),
        "branches": [_branch(branch) for branch in tree.branches],
    }


def _branch(branch: Branch) -> dict[str, Any]:
    kind, record = _kind_of(branch.form)
    found: dict[str, Any] = {
        "name": branch.name,
        "expression": quoted(branch.name),
        "type": branch.type,
        "typename": branch.typename,
        "title": branch.title,
        "kind": kind,
    }
    if record is not None:
        found["fields"] = list(_fields(branch.name, record))
    return found


def _fields(above: str, record: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the fields of records and of records within them, if they have names."""
    for field, form in zip(record["fields"] or (), record["contents"], strict=False):
        # The language takes a name after a dot for that of a field.
        if "." in field or not field:
            continue
        name = f"{above}.{field}"
        kind, inner = _kind_of(form)
        yield {"name": field, "expression": quoted(name), "kind": kind}
        if inner is not None:
            yield from ({**one, "name": f"{field}.{one['name']}"} for one in _fields(name, inner))


def _kind_of(form: Mapping[str, Any] | str) -> tuple[str, Mapping[str, Any] | None]:
    """Return the kind of a form (flat, list, nested, record, text, other), and that of records."""
    lists = 0
    while not isinstance(form, str):
        if (form.get("parameters") or {}).get("__array__") in ("string", "bytestring"):
            return "text", None
        kind = form["class"]
        if kind == "RecordArray":
            return "record", form
        if kind == "NumpyArray":
            lists += len(form.get("inner_shape", ()))
            break
        if kind in ("UnionArray", "EmptyArray"):
            return "other", None
        lists += kind in ("ListOffsetArray", "ListArray", "RegularArray")
        form = form["content"]
    return ("flat", "list", "nested")[min(lists, 2)], None


def quoted(name: str) -> str:
    """Return a name as an expression of the language of queries."""
    if _WORD.fullmatch(name):
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
