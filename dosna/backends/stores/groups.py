"""The Zarr groups above datasets in a store of bytes, by which other programs find these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from dosna.backends.stores.home import StoreHome
from dosna.backends.stores.listing import absent, kind_of, levels
from dosna.backends.stores.store import ABSENT, Blob, Turns, VersionConflict, lock
from dosna.codecs import zarr as zarr3
from dosna.core.names import check_nesting, parents
from dosna.errors import DosnaError, FormatError

__all__ = ["GroupsAbove"]

_GROUP_ETAG = hashlib.md5(zarr3.GROUP, usedforsecurity=False).hexdigest()
"""The version of the document of a group without attributes, in most stores with ETags."""

_MOST_PLAIN = 10_000


class GroupsAbove(StoreHome):
    """A connection to a store of bytes that keeps the groups above its datasets."""

    def __init__(self, name: str, mode: str = "a") -> None:
        super().__init__(name, mode)
        self._together: dict[str, set[str]] = {}  # the groups looked at for each dataset
        # Versions of documents of groups that had no copies of metadata when they were read.
        self._plain: dict[str, str] = {}

    def make_groups(self, name: str) -> None:
        """Create the Zarr groups above a dataset, and remove copies of metadata from them.

        Raises
        ------
        DatasetNameError
            There is a dataset where a group would be.
        """
        for group in self._groups_above(name):
            self._make_group(group, name)

    def is_vacant(self, name: str) -> bool:
        """Look, where one request tells it, if nothing is where a dataset is to be created.

        If this returns True, the groups above the dataset are made as well. Otherwise something
        may be in its place, and nothing was done.
        """
        if not self.creates_together:
            return False
        folder, _, part = name.rpartition("/")
        groups = self._groups_above(name)
        document = zarr3.DOCUMENT if folder in groups else ""
        found = self.store.beside(folder and f"{folder}/", part, document)
        if found is None or found.taken:
            return False
        for group in groups:
            if (
                group != folder
                or not found.version
                or found.version.strip('"') != (self._plain.get(group, _GROUP_ETAG))
            ):
                self._make_group(group, name)
        return True

    def _groups_above(self, name: str) -> list[str]:
        """Return the groups to look at before a dataset changes: '' is the outermost."""
        looked_at = self._together.get(name, ())
        return [group for group in ["", *parents(name)] if group not in looked_at]

    def _make_group(self, group: str, name: str) -> None:
        found = self._drop_consolidated(group)
        if found is None:
            self._check_version(group)
            self._put_group(group)
        elif group and kind_of(found) in ("array", "broken"):
            check_nesting(name, [group])

    def _put_group(self, group: str) -> bool:
        """Create a group; return False if there is something in its place."""
        try:
            self.store.put(self.document(group), zarr3.GROUP, ABSENT)
        except VersionConflict:
            return False
        return True

    def create_each(
        self,
        create: Callable[[Any], object],
        items: Mapping[str, Any],
        nbytes: int = 0,
        absent: Collection[str] = (),
    ) -> None:
        self.check_writable()
        looked_at: set[str] = set()

        def look(group: str) -> None:
            # Each dataset looks again, and raises what is wrong with a group.
            if looked_at.issuperset(["", *parents(group)] if group else ()):
                with suppress(DosnaError):
                    if group not in absent or not self._put_group(group):
                        self._make_group(group, group + "/x")
                    looked_at.add(group)

        def end() -> None:  # copies of metadata made by others meanwhile lack what is new
            for name in items:
                self._together.pop(name, None)
            self.store.for_each(self._drop_consolidated, sorted(looked_at))

        self._together.update(dict.fromkeys(items, looked_at))
        try:
            for level in levels(items):
                self.store.for_each(look, level)
            self.store.for_each(create, items.values(), nbytes)
        except BaseException:
            with suppress(DosnaError):
                end()
            raise
        end()

    def absent(self, names: Iterable[str]) -> set[str]:
        return absent(self.store, names) if self.creates_together else set()

    def drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above a dataset or group about to change.

        This takes one request for each group above.
        """
        self.check_writable()
        if self.holds_trees:
            for group in self._groups_above(name):
                self._drop_consolidated(group)

    def _drop_consolidated(self, group: str) -> Blob | None:
        key = self.document(group)
        turns = Turns(f"object {key!r}")
        for _ in turns:
            found = self.store.get(key)
            other = zarr3.without_consolidated(found.data, key) if found is not None else None
            if found is not None and other is None and kind_of(found) == "group":
                if len(self._plain) >= _MOST_PLAIN:
                    self._plain.clear()
                self._plain[group] = found.version.strip('"')
            if found is None or other is None:
                return found
            with turns.unless_conflict(), lock(group):
                turns.expected = found.version
                self.store.put(key, other, found.version)
                return found
        raise AssertionError

    @property
    def keeps_groups(self) -> bool:
        return self.holds_trees

    def _check_version(self, group: str) -> None:
        """Raise FormatError if there is a node of Zarr version 2, which datasets would hide."""
        for name in zarr3.VERSION_2:
            key = f"{self.root(group)}/{name}" if group else name
            if self.store.get(key) is not None:
                raise FormatError(
                    f"{key} in {self.name!r} is of Zarr version 2, and datasets are of version 3: "
                    "con.ingest reads it into another connection"
                )
