"""Trees of columns: events whose branches are flat, of fixed size, jagged or nested.

A tree is a group. Its attributes describe it (`Tree`), and its branches are datasets below it:
``Events/nMuon`` for a flat one, ``Events/Muon_pt/offsets`` and ``…/content`` for a jagged one. The
datasets of a branch follow from its awkward form (`dosna.columns.layout`), whatever source the
tree came from. `read_columns` returns awkward arrays, and reads only the chunks that it needs.
"""

from __future__ import annotations

from dosna.columns.description import Branch, FileRange, Tree, escape, find_trees, get_tree
from dosna.registry import lazily

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
# Awkward is imported when arrays are read, not when trees are only listed.
__getattr__ = lazily(__name__, {"read_columns": "reading", "to_arrow": "reading"})
