"""Trees of columns: events whose branches are flat, of fixed size, jagged or nested.

A tree is a group. Its attributes say what it is (`Tree`), and its branches are datasets below it:
a flat one ``Events/nMuon``, a jagged one ``Events/Muon_pt/offsets`` and ``…/content``. What a
branch's datasets are follows from its awkward form (`dosna.columns.layout`), whatever the tree
came from. `read_columns` gives awkward arrays back, and reads only the chunks that it needs.
"""

from __future__ import annotations

from typing import Any

from dosna.columns.description import Branch, FileRange, Tree, escape, find_trees, get_tree

__all__ = [
    "Branch",
    "FileRange",
    "Tree",
    "escape",
    "find_trees",
    "get_tree",
    "read_columns",
    "to_arrow",
]


def __getattr__(name: str) -> Any:
    # Awkward is loaded when arrays are read, and not to look at what there is.
    if name in ("read_columns", "to_arrow"):
        from dosna.columns import reading

        return getattr(reading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
