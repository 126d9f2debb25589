"""Trees of one file, by the kind that uproot says they are."""

from __future__ import annotations

from typing import Any

import uproot

from dosna.errors import RefusedError
from dosna.sources.root.file import reading
from dosna.sources.root.part import TreePart
from dosna.sources.root.rntuple import RNTuplePart
from dosna.sources.root.ttree import TTreePart

__all__ = ["open_part", "part_of"]


def open_part(directory: Any, path: str) -> TreePart:
    """Open a tree of a file.

    Parameters
    ----------
    directory : uproot.ReadOnlyDirectory
    path : str
        The path with the cycle.
    """
    with reading(f"tree {path!r} of {directory.file.file_path}"):
        return part_of(directory[path])


def part_of(tree: Any) -> TreePart:
    """Return a `TreePart` around a tree of uproot.

    Raises
    ------
    RefusedError
        If uproot reads no trees of this kind.
    """
    if isinstance(tree, uproot.TTree):
        return TTreePart(tree)
    if isinstance(tree, uproot.behaviors.RNTuple.RNTuple):
        return RNTuplePart(tree)
    kind = str(tree.classname)
    if "RNTuple" not in kind:
        raise RefusedError(f"a {kind} is not a tree")
    raise RefusedError(
        f"it is a {kind} from before version 1.0 of RNTuple's format, and uproot reads none of "
        "these: write it anew by ROOT 6.34 or later"
    )
