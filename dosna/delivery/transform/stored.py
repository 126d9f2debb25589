"""Selections on trees that are already stored as columns, by queries without code of users."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from dosna.array.opening import open_url
from dosna.columns import Tree, find_trees
from dosna.columns.layout import form_of
from dosna.delivery.transform.client import check_wanted
from dosna.delivery.transform.rawquery import RawQuery, no_tree, parse_raw
from dosna.delivery.transform.request import SCHEME, TransformRequest
from dosna.delivery.transform.writing import Part, write
from dosna.errors import LimitError, QueryError, RefusedError, UnknownNameError
from dosna.query.expressions import Output
from dosna.query.expressions.doors import from_uproot
from dosna.query.expressions.nodes import Column
from dosna.query.query import Query

__all__ = ["transform_stored"]

_REGEX = re.compile(r"/(.*)/([iLmsux]*)")


def transform_stored(request: TransformRequest, path: str, log: Callable[[str], None]) -> int:
    """Write the result of a selection of the kind uproot-raw on trees of columns.

    Parameters
    ----------
    request : TransformRequest
        The request. Its source is ``dosna://URL``, the URL of a tree or of a place with trees.
    path : str
        The file for the result.
    log : callable
        Takes notices for the user.

    Returns
    -------
    int
        The number of entries.

    Raises
    ------
    RefusedError
        The selection is of another kind, or copies ROOT objects.
    SourceNotFoundError, UnknownNameError, QueryError
        As for ROOT files.
    LimitError
        It took longer than the limit of time.
    WorkerError
        Nobody wants the result any more.
    """
    if request.codegen != "uproot-raw":
        raise RefusedError(
            f"{request.source} is a tree of columns, to which a selection of the kind "
            f"{request.codegen} does not apply: send one of the kind uproot-raw"
        )
    queries = parse_raw(request.selection)
    latest = time.monotonic() + request.limits.seconds
    con, name = open_url(request.source.removeprefix(SCHEME), mode="r", engine="cpu")
    with con:
        trees = find_trees(con, name)
        found: dict[str, Part] = {}
        missing = []
        for query in queries:
            if query.copy_histograms:
                raise RefusedError(f"{request.source} has no ROOT objects: omit copy_histograms")
            for wanted, out in query.trees.items():
                group = _group(wanted, name, trees)
                if group is None:
                    missing.append(wanted)
                    if query.fail_on_missing_trees:
                        raise no_tree(wanted, trees, request.source)
                    continue
                if out in found:
                    raise QueryError(f"the selection makes two trees {out!r}: rename one")
                made = _query(con, group, trees[group], query, request.source, log)
                found[out] = _part(out, made, latest, request)
        if missing and not found:
            raise no_tree(missing[0], trees, request.source)
        for wanted in missing:
            log(f"{request.source} has no tree {wanted}, which is left out")
        return write(path, request.format, list(found.values()))


def _group(wanted: str, name: str, trees: dict[str, Tree]) -> str | None:
    """Return the group of the tree that a selection names."""
    wanted = wanted.partition(";")[0].strip("/")
    names = (wanted, f"{name}/{wanted}".strip("/"))
    for group in trees:
        if group in names or (group == name and group.rpartition("/")[2] == wanted):
            return group
    return None


def _query(
    con: Any,
    group: str,
    tree: Tree,
    raw: RawQuery,
    source: str,
    log: Callable[[str], None],
) -> Query:
    names = [branch.name for branch in tree.branches]
    nested = {branch.name for branch in tree.branches if form_of(branch.form).purelist_depth > 2}
    where = None if raw.cut is None else from_uproot(raw.cut, names, raw.aliases, nested)
    if raw.expressions is None:
        taken = [
            branch.name
            for branch in tree.branches
            if _passes(branch.typename, raw.filter_typename)
            and _passes(branch.name, raw.filter_name)
        ]
        for name in raw.filter_name or ():
            if not any(_passes(one, (name,)) for one in names):
                log(f"{group} of {source} has no column {name}, which is left out")
        outputs = [Output(name, Column(name)) for name in taken]
    else:
        outputs = [
            Output(text, from_uproot(text, names, raw.aliases, nested)) for text in raw.expressions
        ]
    if not outputs:
        raise UnknownNameError(
            f"the filters select no column of {group} in {source}: it has {', '.join(names[:20])}"
        )
    return con.query(group, where, outputs)  # type: ignore[no-any-return]


def _passes(text: str, patterns: tuple[str, ...] | None) -> bool:
    """Return whether a text matches a filter of uproot: names, patterns, ``/regular/`` ones."""
    return patterns is None or any(_is_like(text, pattern) for pattern in patterns)


def _is_like(text: str, pattern: str) -> bool:
    if (found := _REGEX.fullmatch(pattern)) is None:
        return fnmatch.fnmatchcase(text, pattern)
    import pyarrow as pa
    import pyarrow.compute as pc

    flags = "".join(sorted(set(found[2]) - {"L", "u"}))
    begins = f"{f'(?{flags})' if flags else ''}^(?:{found[1]})"
    try:
        # RE2 takes time in proportion to the text. Python's may never end, in this process.
        return bool(pc.match_substring_regex(pa.scalar(text), begins).as_py())
    except pa.ArrowInvalid as error:
        raise QueryError(f"{pattern!r} is not a regular expression of RE2: {error}") from None


def _part(name: str, query: Query, latest: float, request: TransformRequest) -> Part:
    half = int(request.limits.memory) // 2  # the rest of the memory is for writing
    query = replace(query, memory_limit=half)

    def arrays() -> Iterator[Any]:
        ranges = query.ranges(query.open())
        for start in range(ranges.start, ranges.stop, ranges.step):
            check_wanted(request.folder)
            if time.monotonic() > latest:
                raise LimitError(
                    f"the selection on {request.source} exceeded the limit of "
                    f"{request.limits.seconds:g} seconds: select less"
                )
            yield query.with_entries(start, start + ranges.step).to_awkward()

    return Part(name, arrays, lambda: query.with_entries(query.start, query.start).to_awkward())
