"""Queries over trees of columns: entries that satisfy a condition, and some of their columns.

`dosna.Connection.query` returns a lazy `Query`. `dosna.query.expressions` is its language: text
and the filters of other programs become the same tree of expressions. Ranges of entries that the
zones of a branch (`dosna.core.zones`) rule out are not read. In the other ranges, the columns of
the condition are read first, and then the other columns for the entries that are left.
"""

from __future__ import annotations

from dosna.registry import lazily

__all__ = ["Query", "dataset", "index"]

_PLACES = {
    "Query": "query",
    "dataset": "arrowdataset",
    "index": "indexing",
}
# pyarrow and awkward are imported when they are needed.
__getattr__ = lazily(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
