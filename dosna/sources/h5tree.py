"""The arrays and groups of an HDF5 file, each once, whatever links lead to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
from h5py import h5o

from dosna.sources.h5types import attributes

__all__ = ["BrokenLinkError", "Node", "Tree", "walk", "walk_nodes"]


class BrokenLinkError(LookupError):
    """Why a name leads nowhere."""


@dataclass(frozen=True)
class Node:
    """What a name leads to.

    Parameters
    ----------
    place : hashable
        The same for each name of it.
    kind : str
        ``array``, ``group`` or something else.
    attrs : mapping
        Of a group.
    hard, linked : sequence of str
        Of a group: the keys of hard links in it, and of others.
    """

    place: Hashable
    kind: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    hard: Sequence[str] = ()
    linked: Sequence[str] = ()


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


def walk_nodes(look: Callable[[str], Node], inner: str) -> Tree:
    """Find what is below a group, or the one dataset that `inner` names.

    Hard links come first, in the order of their names; then soft and external ones, which are
    other names of what is known, or lead to more.

    Parameters
    ----------
    look : callable
        Gives what a name leads to, or raises BrokenLinkError.
    inner : str
    """
    tree = Tree()
    known: dict[Hashable, str] = {}
    name = inner.strip("/")
    hard, linked = [name], list[str]()
    while hard or linked:
        name = (hard or linked).pop()
        try:
            found = look(name)
        except BrokenLinkError as error:
            tree.broken[name] = str(error)
            continue
        first = known.setdefault(found.place, name)
        if first != name:
            tree.arrays.get(first, []).append(name)
        elif found.kind == "array":
            tree.arrays[name] = []
        elif found.kind == "group":
            tree.groups[name] = dict(found.attrs)
            above = f"{name}/" if name else ""
            hard += [above + key for key in reversed(found.hard)]
            linked[:0] = [above + key for key in reversed(found.linked)]
    tree.arrays = dict(sorted(tree.arrays.items()))
    return tree


def walk(file: Any, inner: str) -> Tree:
    """Find what is below a group of an h5py file, or the one dataset that `inner` names."""
    # Numbers of files are given again when a file was closed: external ones stay open.
    kept: dict[int, Any] = {}

    def look(name: str) -> Node:
        try:
            found = file[name] if name else file["/"]
        except (KeyError, OSError, RuntimeError) as error:
            raise BrokenLinkError(f"{_target(file, name)} cannot be opened: {error}") from None
        info = h5o.get_info(found.id)
        kept.setdefault(info.fileno, found.file)
        place = (info.fileno, info.addr)
        if isinstance(found, h5py.Dataset):
            return Node(place, "array")
        if not isinstance(found, h5py.Group):
            return Node(place, "type")
        hard, linked = list[str](), list[str]()
        for key in found:
            link = found.get(key, getlink=True)
            (hard if isinstance(link, h5py.HardLink) else linked).append(key)
        return Node(place, "group", attributes(found), hard, linked)

    return walk_nodes(look, inner)


def _target(file: Any, name: str) -> str:
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"{link.path!r} of {link.filename!r}, to which it is a link,"
    if isinstance(link, h5py.SoftLink):
        return f"{link.path!r}, to which it is a link,"
    return "what it names"
