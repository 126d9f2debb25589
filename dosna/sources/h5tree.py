"""The arrays and groups of an HDF5 file, each once, whatever links lead to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import h5py
from h5py import h5o

from dosna.sources.h5types import attributes

__all__ = ["Tree", "walk"]


@dataclass
class Tree:
    """What `walk` finds.

    Parameters
    ----------
    arrays : dict
        Names of datasets, each with the other names of the same one.
    groups : dict
        Attributes of each group.
    broken : dict
        Names that lead nowhere, and why.
    """

    arrays: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def walk(file: Any, inner: str) -> Tree:
    """Find what is below a group of a file, or the one dataset that `inner` names.

    Hard links come first, in the order of their names; then soft and external ones, which are
    other names of what is known, or lead to more.
    """
    tree = Tree()
    known: dict[tuple[int, int], str] = {}
    # Numbers of files are given again when a file was closed: external ones stay open.
    kept: dict[int, Any] = {}
    name = inner.strip("/")
    hard, linked = [name], list[str]()
    while hard or linked:
        name = (hard or linked).pop()
        try:
            found = file[name] if name else file["/"]
        except (KeyError, OSError, RuntimeError) as error:
            tree.broken[name] = f"{_target(file, name)} cannot be opened: {error}"
            continue
        info = h5o.get_info(found.id)
        kept.setdefault(info.fileno, found.file)
        first = known.setdefault((info.fileno, info.addr), name)
        if first != name:
            tree.arrays.get(first, []).append(name)
        elif isinstance(found, h5py.Dataset):
            tree.arrays[name] = []
        elif isinstance(found, h5py.Group):
            tree.groups[name] = attributes(found)
            links = [
                (f"{name}/{key}" if name else key, found.get(key, getlink=True)) for key in found
            ]
            hard += [path for path, at in reversed(links) if isinstance(at, h5py.HardLink)]
            later = [path for path, at in reversed(links) if not isinstance(at, h5py.HardLink)]
            linked[:0] = later
    tree.arrays = dict(sorted(tree.arrays.items()))
    return tree


def _target(file: Any, name: str) -> str:
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"{link.path!r} of {link.filename!r}, to which it is a link,"
    if isinstance(link, h5py.SoftLink):
        return f"{link.path!r}, to which it is a link,"
    return "what it names"
