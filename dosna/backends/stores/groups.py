"""The Zarr groups above datasets in a store of bytes, by which other programs find these."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any

from dosna.backends.absent import NOTHING, Absent
from dosna.backends.stores.home import StoreHome
from dosna.backends.stores.listing import absent, kind_of
from dosna.backends.stores.making import Making
from dosna.backends.stores.store import ABSENT, Blob, Turns, VersionConflict, lock
from dosna.backends.stores.watching import LOOK_SECONDS
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
        self._together: dict[str, Making] = {}  # the work that a dataset is a part of
        self._looked: dict[str, float] = {}  # when a group was found to be one
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
        making = self._together.get(name)
        if making is not None and making.is_vacant(name):
            return True
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
        making = self._together.get(name)
        if making is None:
            return ["", *parents(name)]
        with suppress(DosnaError):  # the group is looked at again, which raises what is wrong
            making.wait(name)
        return [group for group in ["", *parents(name)] if group not in making.looked_at]

    def await_groups(self, name: str) -> None:
        """Wait until the groups above a new dataset exist, if they are made at the same time."""
        making = self._together.get(name)
        if making is not None:
            making.wait(name)

    def _make_group(self, group: str, name: str) -> None:
        found = self._drop_consolidated(group)
        if found is None:
            self._check_version(group)
            self._put_group(group)
        elif group and kind_of(found) in ("array", "broken"):
            check_nesting(name, [group])

    def _put_group(self, group: str, attrs: Mapping[str, Any] | None = None) -> bool:
        """Create a group; return False if there is something in its place."""
        key, document = self.document(group), zarr3.GROUP
        if attrs:
            document = zarr3.with_attributes(document, attrs, key)
        try:
            self.store.put(key, document, ABSENT)
        except VersionConflict:
            return False
        return True

    def create_each(
        self,
        create: Callable[[Any], object],
        items: Mapping[str, Any],
        nbytes: int = 0,
        absent: Absent = NOTHING,
        groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> set[str]:
        self.check_writable()
        making = Making(items, absent, groups, LOOK_SECONDS)
        began: dict[str, float] = {}

        def look(group: str) -> None:
            # Each dataset looks again, and raises what is wrong with a group.
            if making.looked_at.issuperset(["", *parents(group)] if group else ()):
                with suppress(DosnaError):
                    began[group] = self._look_at(group, making)
                    making.looked_at.add(group)

        def put(group: str) -> None:
            began[group] = time.monotonic()
            try:
                if making.is_below_groups(group):
                    if self._put_group(group, groups.get(group)):
                        making.made.add(group)
                    else:
                        self._make_group(group, group + "/x")
                    making.looked_at.add(group)
            except BaseException as error:
                making.puts[group].set_exception(error)
                if not isinstance(error, DosnaError):
                    raise
            else:
                making.puts[group].set_result(None)

        def end() -> None:  # copies of metadata made by others meanwhile lack what is new
            for name in items:
                self._together.pop(name, None)
            late = time.monotonic() - LOOK_SECONDS
            again = [g for g in making.looked_at if not making.few or began[g] < late]
            self.store.for_each(self._drop_consolidated, sorted(again))

        self._together.update(dict.fromkeys(items, making))
        try:
            for level in making.levels:
                self.store.for_each(look, level)
            puts: list[Callable[[], object]] = [partial(put, group) for group in making.puts]
            makes: list[Callable[[], object]] = [partial(create, item) for item in items.values()]
            # Those that make groups begin first, so that the others never wait in vain.
            for work in [[*puts, *makes]] if making.at_once else [puts, makes]:
                self.store.for_each(_do, work, nbytes)
        except BaseException:
            with suppress(DosnaError):
                end()
            raise
        end()
        return making.made

    def _look_at(self, group: str, making: Making) -> float:
        """Make a group if there is none, and return when it was looked at.

        Where few datasets are made, a look that others have just taken does as well.
        """
        now = time.monotonic()
        looked = self._looked.get(group, -math.inf)
        if making.few and now - looked <= LOOK_SECONDS / 2:
            return looked
        self._make_group(group, group + "/x")
        if len(self._looked) >= _MOST_PLAIN:
            self._looked.clear()
        self._looked[group] = now
        return now

    def absent(self, names: Iterable[str]) -> Absent:
        began = time.monotonic()
        if not self.creates_together:
            return NOTHING
        names = list(names)
        above = {group for name in names for group in parents(name)}
        late, looked = began - LOOK_SECONDS / 2, self._looked
        groups = {group for group in above if looked.get(group, -math.inf) >= late}
        return Absent(absent(self.store, names, groups), began, groups)

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


def _do(work: Callable[[], object]) -> None:
    work()
