"""Lists of the datasets below a folder of a store of bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from itertools import islice
from typing import Any, NamedTuple

from dosna.backends.stores.deletion import DELETED
from dosna.backends.stores.store import Blob, Store
from dosna.codecs import zarr as zarr3
from dosna.core.names import Children, parents
from dosna.errors import FormatError

__all__ = ["absent", "children_of", "kind_of", "levels", "names_below"]

_FEW = 1000
"""Number of folders beside those that are asked for, which a list may have."""

_MARK = 400
"""Bytes that the mark of a deletion has at most. Documents of arrays with chunks have more."""

_DENSE = 30
"""Documents in a thousand keys from which a list of all keys is worthwhile."""

_CHUNK = re.compile(r"/c(?:[./]\d+)*$")


class _Listed(NamedTuple):
    """The names of arrays, and of what may be one."""

    arrays: list[str]
    doubtful: list[str]


def kind_of(found: Blob | None) -> Any:
    """Return the ``node_type`` of a document, 'broken' if it is invalid, None if absent."""
    if found is None:
        return None
    try:
        return zarr3.node_type(found.data, "")
    except FormatError:
        return "broken"


def names_below(store: Store, document: Callable[[str], str], folder: str) -> list[str]:
    """Return the datasets below a folder.

    Where a list of all keys tells most of them, only the others are looked at. Otherwise folders
    are listed level by level, with many requests under way.

    Parameters
    ----------
    store : Store
    document : callable
        A function that returns the key of the document of a dataset.
    folder : str
        The name of a group and '/', or '' for all datasets.
    """
    names: list[str] = []
    listed = _listed(store, folder)
    if listed is not None:

        def check(name: str) -> None:
            if kind_of(store.get(document(name))) in ("array", "broken"):
                names.append(name)

        store.for_each(check, listed.doubtful)
        return names + listed.arrays
    level = [folder]
    while level:
        found: list[str] = []
        inner: list[str] = []

        def expand(above: str, found: list[str] = found) -> None:
            found.extend(above + part for part in store.folders(above))

        def look(name: str, inner: list[str] = inner) -> None:
            kind = kind_of(store.get(document(name)))
            if kind in ("array", "broken"):
                names.append(name)
            elif kind != DELETED:
                inner.append(name + "/")

        store.for_each(expand, level)
        store.for_each(look, found)
        level = inner
    return names


def children_of(store: Store, document: Callable[[str], str], folder: str) -> Children:
    """Return the members of a folder; the parameters are those of `names_below`."""
    found = Children([], [])

    def look(part: str) -> None:
        kind = kind_of(store.get(document(folder + part)))
        if kind in ("array", "broken"):
            found.datasets.append(folder + part)
        elif kind != DELETED:
            found.groups.append(folder + part)

    store.for_each(look, store.folders(folder))
    return Children(sorted(found.groups), sorted(found.datasets))


def _listed(store: Store, folder: str) -> _Listed | None:
    """List all keys below a folder; None if that is not possible or takes long.

    A document is of an array if there are chunks beside it and no documents below it. Those that
    are as small as the mark of a deletion, or that tell nothing, are doubtful.
    """
    pages = store.pages(folder)
    if pages is None:
        return None
    end = "/" + zarr3.DOCUMENT
    sizes: dict[str, int] = {}
    above, chunked = set[str](), set[str]()
    for number, page in enumerate(pages, 1):
        for key, size in page:
            if key.endswith(end):
                name = key.removesuffix(end)
                sizes[name] = size
                above.update(parents(name))
            elif chunk := _CHUNK.search(key):
                chunked.add(key[: chunk.start()])
        if number * _DENSE > len(sizes) and len(page) >= _FEW:
            return None  # there are so many chunks that looking at each dataset takes less
    sizes.pop(folder[:-1], None)
    arrays = {n for n, s in sizes.items() if s > _MARK and n in chunked} - above
    # Groups below an array may be left from the time when it was a group.
    above -= chunked
    return _Listed(sorted(arrays), sorted(sizes.keys() - arrays - above))


def absent(store: Store, names: Iterable[str], groups: Set[str] = frozenset()) -> set[str]:
    """Return those of the names, and of the groups above them, at which no key begins.

    A folder is listed if several of the names are in it, and if it does not hold many others. A
    single one is looked for. What then is not known to be absent may exist or not.

    Parameters
    ----------
    store : Store
    names : iterable of str
        The names of datasets.
    groups : set of str
        Names that are known to be groups, and are not looked for.
    """
    inside: dict[str, list[str]] = {}
    for name in dict.fromkeys(at for given in names for at in [*parents(given), given]):
        inside.setdefault(name.rpartition("/")[0], []).append(name)
    gone: set[str] = set()

    def look(group: str) -> None:
        children, folder = inside[group], group and group + "/"
        if len(children) == 1:
            # Looking for a dataset itself takes no more.
            if children[0] in inside and children[0] not in groups:
                found = store.beside(folder, children[0].rpartition("/")[2])
                if found is not None and not found.taken:
                    gone.add(children[0])
        else:
            most = _FEW + 4 * len(children)
            there = set(islice(store.folders(folder), most + 1))
            if len(there) <= most:
                gone.update(c for c in children if c.rpartition("/")[2] not in there)

    level = [""] if inside else []
    while level:
        store.for_each(look, level)
        below = [name for group in level for name in inside[group]]
        for name in gone.intersection(below):
            gone.update(_all_inside(name, inside))
        level = [name for name in below if name in inside and name not in gone]
    return gone


def levels(names: Iterable[str]) -> list[list[str]]:
    """Return the groups above datasets: first '', the outermost, then those in it, and so on."""
    found = [[""]]
    for group in sorted({above for name in names for above in parents(name)}):
        depth = len(group.split("/"))
        while len(found) <= depth:
            found.append([])
        found[depth].append(group)
    return found


def _all_inside(name: str, inside: dict[str, list[str]]) -> list[str]:
    """Return the names inside of one, at any depth."""
    found = list(inside.get(name, ()))
    for inner in found:  # grows meanwhile
        found.extend(inside.get(inner, ()))
    return found
