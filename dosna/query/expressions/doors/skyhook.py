"""Queries of SkyhookDM: ``select event_id>5, project Events;75.Muon_eta,Events;75.Muon_phi``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dosna.errors import QueryError
from dosna.query.expressions.lexing import MAX_LENGTH, fail, tokenize
from dosna.query.expressions.nodes import Expr, quote_name
from dosna.query.expressions.parsing import Output, parse, parse_projection

__all__ = ["SkyhookQuery", "from_skyhook"]

# Quoted text is taken as a whole, because it may contain anything.
_PATH = re.compile(
    r"""(?:(?<![\w/])(?P<tree>[A-Za-z_]\w*+(?:/\w++)*+)|`(?P<odd>(?:[^`\\]|\\.)*+)`)
        ;(?P<cycle>[0-9]{1,9})\.(?:(?P<branch>\*|[A-Za-z_][\w.]*[*?]?)|(?P<name>`(?:[^`\\]|\\.)*+`))
    |(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)


@dataclass(frozen=True)
class SkyhookQuery:
    """A query of SkyhookDM.

    Parameters
    ----------
    where : Expr or None
        The condition; None if there is none.
    outputs : tuple of Output
        The projected columns; empty for all columns.
    tree : str
        The name of the tree in the paths; empty if they have none.
    cycle : int or None
        The cycle of the tree in the paths.
    """

    where: Expr | None
    outputs: tuple[Output, ...] = ()
    tree: str = ""
    cycle: int | None = None


def from_skyhook(text: str) -> SkyhookQuery:
    """Return a query of the form ``select CONDITION, project COLUMNS``.

    Columns are names, or paths ``Tree;cycle.branch`` with subbranches after further dots; names
    with other characters stand in backquotes. Both parts may use the whole language; each may be
    absent, and so may the comma. ``select *`` selects all entries.

    Parameters
    ----------
    text : str
        The query.

    Returns
    -------
    SkyhookQuery

    Raises
    ------
    QueryError
        If the text does not have this form, or names several trees.

    Examples
    --------
    >>> from dosna.query.expressions.doors import from_skyhook
    >>> query = from_skyhook("select event_id>5, project Events;75.Muon_eta")
    >>> str(query.where), query.tree, [output.name for output in query.outputs]
    ('event_id > 5', 'Events', ['Muon_eta'])
    """
    trees: dict[tuple[str, int], None] = {}

    def plain(found: re.Match[str]) -> str:
        if found["quoted"]:
            return found[0]
        tree = found["tree"] or re.sub(r"\\(.)", r"\1", found["odd"], flags=re.DOTALL)
        trees[tree, int(found["cycle"])] = None
        branch = found["branch"] or found["name"]
        if found["name"]:
            return str(branch)
        return branch if branch[-1] in "*?" else quote_name(branch)

    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        tokenize(text)  # which refuses it
    select, project = _parts(_PATH.sub(plain, text))
    if len(trees) > 1:
        names = " and ".join(f"{name};{cycle}" for name, cycle in list(trees)[:5])
        raise QueryError(
            f"query: all columns must be of one tree, but these are of {names}: "
            "query each tree separately"
        )
    tree, cycle = next(iter(trees), ("", None))
    where = None if select in ("", "*") else parse(select)
    outputs = () if project in ("", "*") else tuple(parse_projection(project))
    return SkyhookQuery(where, outputs, tree, cycle)


def _parts(text: str) -> tuple[str, str]:
    """Return the condition and the columns."""
    places = [m.start() for m in re.finditer(r"(?<![\w.`])project(?=\s+[\w`*\"'(-])", text)]
    begin = re.match(r"\s*select\b", text)
    if begin is None and (not places or text[: places[0]].strip()):
        raise fail(text, 0, "expected 'select CONDITION, project COLUMNS', or one of the two")
    start = begin.end() if begin else 0
    place = next((at for at in places[:50] if _is_whole(text[start:at])), None)
    if place is None:
        return text[start:].strip().rstrip(","), ""
    select = text[start:place].strip().removesuffix(",").strip()
    return select, text[place + len("project") :].strip().removesuffix(",")


def _is_whole(text: str) -> bool:
    """Return whether a text ends outside of brackets and quotes, so that a word may follow."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`(?:[^`\\]|\\.)*`', "", text)
    if set(bare) & set("\"'`"):
        return False
    end = bare.rstrip()
    balanced = all(bare.count(a) == bare.count(b) for a, b in ("()", "[]"))
    return balanced and (not end or end[-1] in ",*)]" or end[-1].isalnum() or bare != end)
