"""The arrays and groups of an HDF5 file, each once, whatever links lead to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h5py
from h5py import h5l, h5o

from dosna.core.names import check_name, parents
from dosna.errors import DatasetNameError
from dosna.sources.hdf5.types import attributes

__all__ = ["BrokenLinkError", "Node", "Tree", "key_of", "place_of", "walk", "walk_nodes"]

_MOST_LINKS = 100_000
"""Names by way of links to groups: each such link is another name of all that is below."""


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
    places : dict
        The name of each place, as it was met first.
    """

    arrays: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    places: dict[Hashable, str] = field(default_factory=dict)


def walk_nodes(look: Callable[[str], Node], inner: str) -> Tree:
    """Find what is below a group, or the one dataset that `inner` names.

    Hard links come first, in the order of their names; then soft and external ones, which are
    other names of what is known, or lead to more. An array goes by the first of its names that a
    dataset can have, or by the first, if none is such. What has attributes without being an array
    or a group (a named type) is kept as a group.

    Parameters
    ----------
    look : callable
        Gives what a name leads to, or raises BrokenLinkError.
    inner : str
    """
    tree = Tree()
    known = tree.places
    of_groups: dict[str, list[str]] = {}
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
            if first in tree.arrays:
                tree.arrays[first].append(name)
            # Not of one that leads back to where it is in: such names have no end.
            elif first in tree.groups and first and not name.startswith(f"{first}/"):
                of_groups.setdefault(first, []).append(name)
        elif found.kind == "array":
            tree.arrays[name] = []
        elif found.kind == "group":
            tree.groups[name] = dict(found.attrs)
            above = f"{name}/" if name else ""
            hard += [above + key for key in reversed(found.hard)]
            linked[:0] = [above + key for key in reversed(found.linked)]
        elif found.attrs:
            tree.groups[name] = dict(found.attrs)
    if of_groups:
        _add_names(tree.arrays, of_groups)
    tree.arrays = dict(sorted(_well_named(first, rest) for first, rest in tree.arrays.items()))
    return tree


def _add_names(arrays: Mapping[str, list[str]], of_groups: Mapping[str, Sequence[str]]) -> None:
    """Add the names of arrays by way of further names of the groups above them."""
    added = 0
    for first, others in arrays.items():
        for name in [first, *others]:
            for group in parents(name):
                for link in of_groups.get(group, ()):
                    if added < _MOST_LINKS:
                        others.append(link + name[len(group) :])
                        added += 1


def _well_named(first: str, others: list[str]) -> tuple[str, list[str]]:
    """Put the first name that a dataset can have before the others."""
    names = [first, *others]
    chosen = next(filter(_is_legal, names), first)
    return chosen, [name for name in names if name != chosen]


def _is_legal(name: str) -> bool:
    try:
        check_name(name)
    except DatasetNameError:
        return False
    return True


def key_of(name: str) -> str | bytes:
    """Return what h5py calls a name, of which HDF5 does not say that it is of UTF-8."""
    raw = name.encode("utf-8", "surrogateescape")
    return raw if any("\udc80" <= c <= "\udcff" for c in name) else name


def place_of(opened: Any) -> Hashable:
    """Return the place of an open object: the same, by whatever name it was opened."""
    info = h5o.get_info(opened.id)
    return info.fileno, info.addr


def walk(file: Any, inner: str) -> Tree:
    """Find what is below a group of an h5py file, or the one dataset that `inner` names."""
    # Numbers of files are given again when a file was closed: external ones stay open.
    kept: dict[int, Any] = {}

    def look(name: str) -> Node:
        try:
            found = file[key_of(name)] if name else file["/"]
            place = place_of(found)
            kept.setdefault(place[0], found.file)  # type: ignore[index]
            if isinstance(found, h5py.Dataset):
                return Node(place, "array")
            if not isinstance(found, h5py.Group):
                return Node(place, "type", attributes(found))
            hard, linked = list[str](), list[str]()
            for raw in found:
                key = raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")
                kind = found.id.links.get_info(key.encode("utf-8", "surrogateescape")).type
                (hard if kind == h5l.TYPE_HARD else linked).append(key)
            return Node(place, "group", attributes(found), hard, linked)
        except Exception as error:
            # One that is damaged is to cost no other.
            raise BrokenLinkError(f"{_target(file, name)} cannot be opened: {error}") from None

    return walk_nodes(look, inner)


def _target(file: Any, name: str) -> str:
    with suppress(Exception):
        link = file.get(key_of(name), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{link.path!r} of {link.filename!r}, to which it is a link,"
        if isinstance(link, h5py.SoftLink):
            return f"{link.path!r}, to which it is a link,"
    return "what it names"
