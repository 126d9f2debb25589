"""The arrays and groups of an HDF5 file, each once, however many links lead to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h5py
from h5py import h5a, h5l, h5o

from dosna.core.names import check_name, parents
from dosna.errors import DatasetNameError
from dosna.sources.errors import OF_READING
from dosna.sources.hdf5.types import attributes

__all__ = ["BrokenLinkError", "Node", "Tree", "key_of", "place_of", "walk", "walk_nodes"]

_MOST_LINKS = 100_000
"""Most names by way of links to groups: such a link gives all below another name."""


class BrokenLinkError(LookupError):
    """An error for a name that leads nowhere. The message says why."""


@dataclass(frozen=True)
class Node:
    """An object to which a name leads.

    Parameters
    ----------
    place : hashable
        The place of the object, the same for each of its names.
    kind : str
        ``array``, ``group`` or something else.
    attrs : mapping
        The attributes, if it is not an array.
    hard, linked : sequence of str
        The keys of hard links in a group, and of its other links.
    """

    place: Hashable
    kind: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    hard: Sequence[str] = ()
    linked: Sequence[str] = ()


@dataclass
class Tree:
    """The result of `walk`.

    Parameters
    ----------
    arrays : dict
        The names of datasets, each with the other names of the same dataset.
    groups : dict
        The attributes of each group.
    broken : dict
        The names that lead nowhere, and the reasons.
    places : dict
        The first name of each place.
    """

    arrays: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    places: dict[Hashable, str] = field(default_factory=dict)


def walk_nodes(look: Callable[[str], Node], inner: str) -> Tree:
    """Return everything below a group, or the one dataset that `inner` names.

    Hard links are followed first, in the order of their names. Then soft and external links are
    followed: they are other names of known objects, or lead to new ones. An array is listed under
    the first of its names that a dataset can have, or under the first of all if there is none.
    Other objects with attributes (named types) are kept as groups.

    Parameters
    ----------
    look : callable
        A function that returns the node of a name, or raises BrokenLinkError.
    inner : str
        The name of a group or a dataset; empty for the whole file.
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
            # Skip a link to a group that contains it: such names have no end.
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
    """Add the names that arrays have by other names of the groups above them."""
    added = 0
    for first, others in arrays.items():
        for name in [first, *others]:
            for group in parents(name):
                for link in of_groups.get(group, ()):
                    if added < _MOST_LINKS:
                        others.append(link + name[len(group) :])
                        added += 1


def _well_named(first: str, others: list[str]) -> tuple[str, list[str]]:
    """Return the first name that a dataset can have, and the other names."""
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
    """Return the key of a name for h5py: bytes for names that are not UTF-8."""
    raw = name.encode("utf-8", "surrogateescape")
    return raw if any("\udc80" <= c <= "\udcff" for c in name) else name


def place_of(opened: Any) -> Hashable:
    """Return the place of an open object. It is the same for all of its names."""
    info = h5o.get_info(opened.id)
    return info.fileno, info.addr


def walk(file: Any, inner: str) -> Tree:
    """Return everything below a group of an h5py file, or the one dataset that `inner` names."""
    # The numbers of closed files are used again, so external files stay open.
    kept: dict[int, Any] = {}
    own = h5o.get_info(file.id).fileno

    def look(name: str) -> Node:
        try:
            # By low-level functions, as there may be many: h5py's objects take twice as long.
            raw = name.encode("utf-8", "surrogateescape") or b"/"
            info = h5o.get_info(file.id, raw)
            if info.fileno == own and info.type == h5o.TYPE_DATASET:
                return Node((own, info.addr), "array")
            if info.fileno == own and info.type == h5o.TYPE_GROUP:
                return _group((own, info.addr), h5o.open(file.id, raw))
            found = file[key_of(name)] if name else file["/"]
            place = place_of(found)
            kept.setdefault(place[0], found.file)  # type: ignore[index]
            if isinstance(found, h5py.Dataset):
                return Node(place, "array")
            if not isinstance(found, h5py.Group):
                return Node(place, "type", attributes(found))
            return _group(place, found.id)
        except OF_READING:
            raise
        except Exception as error:
            # A damaged object must not prevent the reading of others.
            raise BrokenLinkError(f"{_target(file, name)} cannot be opened: {error}") from None

    return walk_nodes(look, inner)


def _group(place: Hashable, found: Any) -> Node:
    """Return the node of a group that h5py's low-level functions have opened."""
    hard, linked = list[str](), list[str]()
    for raw in found:
        kind = found.links.get_info(raw).type
        name = raw.decode("utf-8", "surrogateescape")
        (hard if kind == h5l.TYPE_HARD else linked).append(name)
    attrs = attributes(h5py.Group(found)) if h5a.get_num_attrs(found) else {}
    return Node(place, "group", attrs, hard, linked)


def _target(file: Any, name: str) -> str:
    with suppress(Exception):
        link = file.get(key_of(name), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{link.path!r} of {link.filename!r}, to which it is a link,"
        if isinstance(link, h5py.SoftLink):
            return f"{link.path!r}, to which it is a link,"
    return "what it names"
