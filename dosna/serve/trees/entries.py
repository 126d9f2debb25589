"""Tables of entries: some columns of the entries that satisfy a condition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dosna.columns.description import Tree
from dosna.query.expressions.parsing import parse_projection
from dosna.query.query import query
from dosna.serve.served import Served
from dosna.serve.trees.describing import quoted, tree_of
from dosna.serve.trees.requests import integer
from dosna.web import Refusal

__all__ = ["entries"]

_MOST_ROWS = 1000
_COLUMNS = 12
_MOST_STEP = 1 << 16
_MOST_ELEMENTS = 50
"""Elements of a list that are shown."""


def entries(served: Served, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the selected entries from a given one on, and where the search has ended.

    Parameters
    ----------
    served : Served
        The datasets that are served.
    asked : mapping
        The parameters ``tree``, and optionally ``columns`` (the first 12 by default), ``where``,
        ``start``, and the ``count`` of rows.

    Returns
    -------
    dict
        The names of the ``columns``, the ``rows``, and the number of the ``next`` entry from which
        to continue, or None at the end.
    """
    name = asked.get("tree", "")
    tree = tree_of(served, name)
    count = min(integer(asked, "count", 50) or 1, _MOST_ROWS)
    start = integer(asked, "start", 0) or 0
    columns = asked.get("columns", "").strip() or _default(tree)
    wanted = parse_projection([columns])
    where = asked.get("where", "").strip() or None
    rows: list[list[Any]] = []
    names: list[str] = []
    step, at = count, start
    whole = query(served.con, name, where, wanted)
    names = [output.name for output in whole.outputs]
    if len(names) > 4 * _COLUMNS:
        raise Refusal(400, f"a table has at most {4 * _COLUMNS} columns")
    while at < tree.entries and len(rows) < count:
        stop = min(tree.entries, at + step)
        found = whole.with_entries(at, stop).to_awkward()
        room = count - len(rows)
        if len(found) > room:  # `next` is an entry, and so is the end of what is shown
            step = max(room, step // 16)
            continue
        parts = [_without_times(found[column]) for column in names]
        shown = [[_plain(value) for value in part] for part in parts]
        rows += [list(row) for row in zip(*shown, strict=True)]
        # Few were found, so more entries are read at a time.
        at, step = stop, min(2 * step, _MOST_STEP) if where else count - len(rows)
    return {
        "columns": names,
        "rows": rows,
        "start": start,
        "next": at if at < tree.entries else None,
    }


def _default(tree: Tree) -> str:
    return ", ".join(quoted(branch.name) for branch in tree.branches[:_COLUMNS])


def _without_times(part: Any) -> Any:
    """Return values with texts for dates and time spans, some of which Python has as integers."""
    import awkward as ak

    def without(layout: Any, **_: Any) -> Any:
        if layout.is_numpy and layout.dtype.kind in "mM":
            texts = [None if np.isnat(time) else str(time) for time in layout.data]
            return ak.from_iter(texts, highlevel=False)
        return None

    return ak.transform(without, ak.to_packed(part), numpy_to_regular=True)


def _plain(value: Any) -> Any:
    """Return a value in JSON types, limited to what is shown."""
    if hasattr(value, "layout"):
        more = len(value) > _MOST_ELEMENTS if _is_list(value) else False
        found = (value[:_MOST_ELEMENTS] if more else value).to_list()
        return _json([*found, "…"] if more else found)
    return _json(value)


def _is_list(value: Any) -> bool:
    return not type(value).__name__.startswith("Record")


def _json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value[: _MOST_ELEMENTS + 1]]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 53:
        return str(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
