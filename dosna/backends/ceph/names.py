"""The names of the datasets of a pool, and the places where their objects may be.

They are entries (omap) of one object: ``+NAME`` for a dataset, ``-NAME`` for one that was deleted.
An entry is read and changed by one request, however many there are. The entry of a dataset is made
before the dataset, and says so when the dataset exists, so that most names are listed without
looking at each.

Earlier versions kept all names in a JSON document, which they rewrote at each creation. What they
have written there is taken over, and is left as it was, so that they still find it. Pools with
erasure coding have no entries, and keep the document.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dosna.backends.ceph.entries import NoEntriesError
from dosna.backends.stores.store import ABSENT, Store, Turns, VersionConflict
from dosna.errors import FormatError

if TYPE_CHECKING:
    from dosna.backends.ceph.store import CephStore

__all__ = ["ENTRIES", "NAMES", "Grids", "Listed", "Names", "united"]

ENTRIES = ".dosna-names"
"""The object with an entry for each name."""

NAMES = ".dosna-datasets"
"""The object with the document of earlier versions."""

_MADE = '"made": true'
"""What the entry of a dataset that exists has in it, and no other: see `_entry`."""

# A client that still has a handle on a deleted dataset may write chunks. These must not appear in
# another dataset of the same name.
_MOST_DELETED = 1000
_SWEEP_ONE_OF = 256
_TAKEN_OVER = "=document"

Grids = Mapping[str, list[int]]
"""The most stored objects that a dataset ever had on each axis, by the template of their keys.

A dataset usually has one template. If two clients were creating it at the same time, the templates
of both are kept.
"""

_Change = Callable[[str | None, str | None], tuple[str | None, str | None]]
"""A function from the entries of a name, as a dataset and as a deleted one, to new ones."""


class Document(NamedTuple):
    """The document of earlier versions: existing and deleted datasets."""

    datasets: dict[str, Grids]
    deleted: dict[str, Grids]


class Listed(NamedTuple):
    """The names of datasets that exist, and of some that may exist."""

    certain: list[str]
    doubtful: list[str]


class Names:
    """The names in one pool.

    Parameters
    ----------
    pool : str
        The name of the pool.
    raw : callable
        A function that returns the open `CephStore`.
    store : callable
        A function that returns the store through which the document is changed.
    """

    def __init__(
        self, pool: str, raw: Callable[[], CephStore], store: Callable[[], Store]
    ) -> None:
        self._pool, self._raw, self._store = pool, raw, store
        self._has_entries = True  # until it turns out that the pool cannot keep them

    # -- reading --------------------------------------------------------------------------

    def grids(self, name: str) -> Grids:
        """Return where a dataset, or a deleted one, may have objects; empty if it is unknown."""
        entries = self._raw().entries_of(ENTRIES, [f"+{name}", f"-{name}", _TAKEN_OVER])
        found = united(_grids(entries.get(key)) for key in (f"+{name}", f"-{name}"))
        document = self._document(entries.get(_TAKEN_OVER))
        if document is not None:
            found = united([found, *(part.get(name, {}) for part in document)])
        return found

    def listed(self, prefix: str = "") -> Listed:
        """Return the names of all datasets that begin with `prefix`."""
        document = self._document()
        entries = {key[1:]: value for key, value in self._raw().entries(ENTRIES, f"+{prefix}")}
        if document is not None:  # clients of earlier versions may have deleted any of them
            others = (name for name in document.datasets if name.startswith(prefix))
            return Listed([], sorted({*entries, *others}))
        made = [name for name, value in entries.items() if _MADE in value]
        return Listed(made, [name for name, value in entries.items() if _MADE not in value])

    def _document(self, taken_over: str | None = None) -> Document | None:
        """Return the document, or None if the entries have all that is in it."""
        head = self._raw().get(NAMES, (0, 1))
        if head is None:
            return None
        if taken_over is None:
            taken_over = self._raw().entries_of(ENTRIES, [_TAKEN_OVER]).get(_TAKEN_OVER)
        return None if head.version == taken_over else self._read()[0]

    def _read(self) -> tuple[Document, str]:
        """Return the document and its version."""
        found = self._raw().get(NAMES)
        if found is None:
            return Document({}, {}), ABSENT
        try:
            document = json.loads(bytes(found.data))
            return Document(document["datasets"], document["deleted"]), found.version
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"object {NAMES!r} of pool {self._pool!r} is damaged: it is JSON with the names "
                "of all datasets; restore it from a copy"
            ) from error

    # -- changing -------------------------------------------------------------------------

    def remember(self, name: str, grids: Grids) -> str | None:
        """Add places to those of a dataset, and return what `confirm` requires."""
        try:
            return self._add(name, grids)
        except NoEntriesError:
            self._has_entries = False

        def add(document: Document) -> Document:
            # Handles on an earlier dataset of that name may still write objects at its places.
            there = document.datasets.get(name) or document.deleted.get(name) or {}
            datasets = {**document.datasets, name: united([there, grids])}
            return Document(datasets, _without(document.deleted, name))

        self._rewrite(add)
        return None

    def _add(self, name: str, grids: Grids) -> str | None:
        def add(there: str | None, gone: str | None) -> tuple[str | None, None]:
            before = united([_grids(there), _grids(gone)])
            after = united([before, grids])
            if there is not None and gone is None and after == before:
                return there, None
            return _entry(after, there is not None and json.loads(there)["made"]), None

        return self._change(name, add)

    def confirm(self, name: str, entry: str | None) -> None:
        """Note that a dataset exists, unless its entry has changed since `remember`."""
        if entry is not None:
            made = json.dumps({**json.loads(entry), "made": True})
            with suppress(VersionConflict):
                self._raw().change_entries(ENTRIES, {f"+{name}": entry}, {f"+{name}": made})

    def doubt(self, name: str) -> None:
        """Note that a dataset is about to be deleted."""
        self._change_known(name, lambda there, gone: (_entry(_grids(there)), gone))

    def forget(self, name: str) -> None:
        """Note that a dataset was deleted."""
        if self._change_known(name, lambda there, gone: (None, _deleted(_grids(there)))):
            if secrets.randbelow(_SWEEP_ONE_OF) == 0:
                self._sweep()
            return

        def move(document: Document) -> Document:
            if name not in document.datasets:
                return document
            deleted = {**_without(document.deleted, name), name: document.datasets[name]}
            latest = dict(list(deleted.items())[-_MOST_DELETED:])
            return Document(_without(document.datasets, name), latest)

        if self._document() is not None:
            self._rewrite(move)

    def _change_known(self, name: str, change: _Change) -> bool:
        """Change the entries of a dataset; return False if it has none."""
        if not self._has_entries or not self._raw().entries_of(ENTRIES, [f"+{name}"]):
            return False
        self._change(name, lambda there, gone: change(there, gone) if there else (there, gone))
        return True

    def _change(self, name: str, change: _Change) -> str | None:
        """Replace the two entries of a name, and return that of the dataset."""
        if not self._has_entries:
            raise NoEntriesError
        keys = (f"+{name}", f"-{name}")
        for _ in (turns := Turns(f"the entry of {name!r} in object {ENTRIES!r}")):
            entries = self._raw().entries_of(ENTRIES, keys)
            known = (entries.get(keys[0]), entries.get(keys[1]))
            new = change(*known)
            if new == known:
                return new[0]
            with turns.unless_conflict():
                self._raw().change_entries(
                    ENTRIES,
                    dict(zip(keys, known, strict=True)),
                    dict(zip(keys, new, strict=True)),
                )
                return new[0]
        raise AssertionError

    def _rewrite(self, change: Callable[[Document], Document]) -> None:
        """Replace the document."""
        for _ in (turns := Turns(f"object {NAMES!r}")):
            document, version = self._read()
            new = change(document)
            if new == document:
                return
            with turns.unless_conflict():
                turns.expected = version
                self._store().put(NAMES, json.dumps(new._asdict()).encode(), version)
                return

    def _sweep(self) -> None:
        """Remove all but the latest entries of deleted datasets."""
        found = dict(self._raw().entries(ENTRIES, "-"))
        oldest = sorted(found, key=lambda key: float(json.loads(found[key])["at"]))
        for key in oldest[:-_MOST_DELETED]:
            with suppress(VersionConflict):
                self._raw().change_entries(ENTRIES, {key: found[key]}, {key: None})

    def take_over(self, exists: Callable[[str], bool]) -> None:
        """Make entries of what clients of earlier versions have written to the document.

        Parameters
        ----------
        exists : callable
            A function that returns True if there is a dataset of a name.
        """
        if not self._has_entries or self._document() is None:
            return
        document, version = self._read()
        known = {key for key, _ in self._raw().entries(ENTRIES, "+")}

        def add(name: str) -> None:
            entry = self._add(name, document.datasets[name])
            if exists(name):
                self.confirm(name, entry)

        def add_deleted(name: str) -> None:
            grids = document.deleted[name]
            # It may have been made again since, so that an entry of it stays.
            self._change(
                name,
                lambda there, gone: (
                    (None, gone or _deleted(grids))
                    if there is None
                    else (_entry(united([_grids(there), grids])), gone)
                ),
            )

        try:
            self._raw().for_each(add, [n for n in document.datasets if f"+{n}" not in known])
            self._raw().for_each(add_deleted, document.deleted)
            self._raw().change_entries(ENTRIES, {}, {_TAKEN_OVER: version})
        except NoEntriesError:
            self._has_entries = False


def united(grids: Iterable[Grids]) -> dict[str, list[int]]:
    """Return the places of all of the grids."""
    found: dict[str, list[int]] = {}
    for template, grid in ((t, g) for one in grids for t, g in one.items()):
        found[template] = [*map(max, found.get(template, grid), grid)]
    return found


def _without(names: dict[str, Grids], name: str) -> dict[str, Grids]:
    return {n: grids for n, grids in names.items() if n != name}


def _grids(entry: str | None) -> Grids:
    found: Grids = {} if entry is None else json.loads(entry)["grids"]
    return found


def _entry(grids: Grids, made: bool = False) -> str:
    # The token makes an entry differ from all others, so that a condition on it means this one.
    return json.dumps({"grids": grids, "made": made, "token": secrets.token_hex(8)})


def _deleted(grids: Grids) -> str:
    return json.dumps({"grids": grids, "at": time.time()})
