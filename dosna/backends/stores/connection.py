"""Backends on stores of bytes: anything that can get, put, delete and list objects.

A subclass of `StoreConnection` has to define only how its `Store` is opened. A dataset
``entry/data`` is a Zarr v3 array: the object ``entry/data/zarr.json`` beside
``entry/data/c/0/1/2``, one for each chunk, or for each shard of many. ``zarr.json`` and
``entry/zarr.json`` are groups, so that other programs find the dataset.
"""

from __future__ import annotations

import re
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar

from dosna.backends.base import BackendConnection, BackendDataset
from dosna.backends.stores.cached import CachedDataset
from dosna.backends.stores.chunkcache import ForgettingStore
from dosna.backends.stores.dataset import StoreDataset
from dosna.backends.stores.deletion import DELETED, Deletion
from dosna.backends.stores.groups import GroupsAbove
from dosna.backends.stores.listing import children_of, kind_of, names_below
from dosna.backends.stores.sharded import ShardedDataset
from dosna.backends.stores.store import (
    ABSENT,
    Blob,
    ByteRange,
    Store,
    Turns,
    VersionConflict,
    lock,
)
from dosna.backends.stores.views import ReadOnlyStore
from dosna.backends.stores.whole import create_whole
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import Children, check_group, check_nesting, parents
from dosna.core.text import is_text
from dosna.core.types import Array
from dosna.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    NotConnectedError,
    StorageError,
)

__all__ = [
    "ABSENT",
    "Blob",
    "ByteRange",
    "Store",
    "StoreConnection",
    "StoreDataset",
    "VersionConflict",
]

_NUMBER = r"(0|[1-9]\d*)"
_OWN = re.compile(
    rf"zarr\.json|\.lock|(c([./]{_NUMBER})*|{_NUMBER}([./]{_NUMBER})*)?/?|\.dosna-\w+"
)
"""Pattern of an array's own keys, relative to its root.

It includes the empty objects by which tools for S3 make folders, and the lock file that is in an
uploaded folder of the backend file.
"""
_PAGE = 1024


class StoreConnection(GroupsAbove):
    """A connection to a store of bytes."""

    lease: ClassVar[float] = 10.0
    """Seconds without a sign of life after which a process that deletes is taken for dead.

    At least 4/3 of the time that a request may take.
    """

    stores_text = True

    settle: ClassVar[float] = 5.0
    """Seconds that the store may take to carry out what a process requested before it died."""

    @property
    def reserved(self) -> frozenset[str]:
        return frozenset({zarr3.DOCUMENT})

    @abstractmethod
    def open_store(self) -> Store:
        """Open the store. All its keys belong to this connection."""

    def connect(self) -> None:
        if self.connected:
            return
        self._store = self.open_store()
        super().connect()
        try:
            self.check_place()
        except BaseException:
            self.disconnect()
            raise

    def check_place(self) -> None:
        """Check by a request that the store answers and accepts the credentials."""

    def disconnect(self) -> None:
        super().disconnect()  # first, so that no other thread opens the store again
        store, self._store = self._store, None
        if store is not None:
            store.close()
        if self.chunk_cache is not None:
            self.chunk_cache.clear()

    _store: Store | None = None

    @property
    def store(self) -> Store:
        """Open store, which refuses every change in mode 'r'."""
        raw, cache = self.raw_store, self.chunk_cache
        if self.mode == "r":
            return ReadOnlyStore(raw, self.refuse)
        return raw if cache is None else ForgettingStore(raw, cache)

    @property
    def raw_store(self) -> Store:
        """Store that `open_store` returned, for backends that use more of it than `Store` has.

        A process that received the connection by pickling opens a store of its own.
        """
        store = self._store
        if store is None:
            if not self.connected:
                raise NotConnectedError(
                    f"connection {self.name!r} is not connected, or was closed while it was in "
                    "use: connect it again"
                )
            store = self._store = self.open_store()
        return store

    def __getstate__(self) -> dict[str, Any]:
        if not self.shared_between_processes:
            raise TypeError(
                f"connection {self.name!r} is to a store that only this process can use, and "
                "cannot be sent to another"
            )
        own: dict[str, Any] = {"_together": {}, "_looked": {}}  # times and work of this process
        return {k: v for k, v in dict(self.__dict__).items() if k != "_store"} | own

    def create_array(self, name: str, metadata: DatasetMetadata) -> StoreDataset:
        key, document = self.document(name), zarr3.to_json(metadata)
        vacant = self.is_vacant(name)
        if not vacant:
            self.make_groups(name)
        turns = Turns(f"object {key!r}")
        again = not self.store.conditional_puts
        for _ in turns:
            # The lock keeps other threads out where the store has no conditional puts.
            with turns.unless_conflict(), lock(name):  # after a conflict, look again
                # Tools for S3 make a folder by an empty object whose key ends with '/'.
                keys = [] if vacant else self.keys_left(name)
                below = [key for key in keys if not key.endswith("/")]
                if not vacant:
                    check_nesting(name, self.names_inside(name, below))
                vacant = False
                # A document that is not listed is seldom there, and then the put finds it.
                found = self.store.get(key) if again or key in below else None
                kind, again = kind_of(found), True
                began = time.monotonic()
                turns.expected = ABSENT if found is None else found.version
                if found is None and below:
                    self._check_left(name, below)
                    self._deletion(name).run(ABSENT)
                elif found is None or kind == "group":
                    entry = self.remember(name, metadata)
                    version = self.store.put(key, document, turns.expected)
                    self.confirm(name, entry)
                    self._looked.pop(name, None)  # it may have been a group
                    break
                elif kind != DELETED:
                    raise DatasetExistsError(
                        f"dataset {name!r} exists in {self.name!r}: open it with get_dataset, or "
                        "delete it"
                    )
            if found and kind == DELETED:
                self._make_way(name, found)
        made = self.open_dataset(name, metadata)
        made.note_look(began, version)
        return made

    def create_whole(
        self, name: str, metadata: DatasetMetadata, values: Array, **options: Any
    ) -> StoreDataset | None:
        if not self.creates_together:
            return None
        self.check_writable()
        new = zarr3.new_array(metadata, **options)
        return create_whole(self, name, self.describe(name, new), values)

    def root(self, name: str) -> str:
        """Return the prefix of a dataset's keys, without the '/' that follows it."""
        return name

    def document(self, name: str) -> str:
        """Return the key of the metadata of a dataset or group; '' is the outermost group."""
        return f"{self.root(name)}/{zarr3.DOCUMENT}" if name else zarr3.DOCUMENT

    def keys_left(self, name: str) -> list[str]:
        """List the keys that exist where a dataset is to be created."""
        return list(self.object_keys(name))

    def keys_to_delete(self, name: str) -> Iterator[str]:
        """Return the keys of all objects that a dataset may have; some may not exist."""
        return self.own_keys(name, self.object_keys(name))

    def own_keys(self, name: str, keys: Iterable[str]) -> Iterator[str]:
        """Return those of the keys that may belong to a dataset."""
        start, document = len(self.root(name)) + 1, "/" + zarr3.DOCUMENT
        return (k for k in keys if _OWN.fullmatch(k[start:]) or k.endswith(document))

    def check_foreign(self, name: str) -> None:
        """Raise StorageError if there are foreign objects among those of a dataset."""
        start = len(self.root(name)) + 1
        for key in self.object_keys(name):
            if not _OWN.fullmatch(key[start:]):
                if key.endswith("/" + zarr3.DOCUMENT) and kind_of(self.store.get(key)) == "group":
                    continue  # A group that lost its last dataset before this one was made.
                raise StorageError(
                    f"dataset {name!r} in {self.name!r} was not deleted: its object {key!r} was "
                    "not written by dosna. Move or delete such objects first"
                )

    def remember(self, name: str, *described: DatasetMetadata) -> str | None:
        """Record what a dataset is and is about to become, for stores that cannot list keys."""
        return None

    def confirm(self, name: str, entry: str | None) -> None:
        """Record that a dataset exists for which `remember` has returned `entry`."""

    def forget(self, name: str) -> None:
        """Undo `remember`, when only the mark of the deletion is left of a dataset."""

    def _check_left(self, name: str, below: list[str]) -> None:
        """Raise DatasetExistsError if foreign objects are where a dataset is to be created."""
        start = len(self.root(name)) + 1
        for key in below:
            if not _OWN.fullmatch(key[start:]):
                raise DatasetExistsError(
                    f"dataset {name!r} in {self.name!r} cannot be created: there is an object "
                    f"{key!r} in its place, which was not written by dosna. Use another name"
                )

    def names_inside(self, name: str, below: list[str]) -> Iterator[str]:
        """Yield the datasets that would lie in a new one."""
        end = "/" + zarr3.DOCUMENT
        inner = [key.removesuffix(end) for key in below if key.endswith(end)]
        return filter(self.has_dataset, (other for other in inner if other != name))

    def open_dataset(self, name: str, metadata: DatasetMetadata) -> StoreDataset:
        """Return a handle on a dataset."""
        kind, cache = StoreDataset, self.chunk_cache
        if zarr3.is_sharded(metadata):
            kind = ShardedDataset
        elif cache and not is_text(metadata.dtype) and cache.admits(metadata.chunk_nbytes):
            kind = CachedDataset
        return kind(self, name, metadata)

    def group_attrs(self, name: str) -> dict[str, Any]:
        if not self.keeps_groups:
            raise self._no_groups()
        found = self.store.get(self.document(name))
        return {} if found is None else zarr3.group_attributes(found.data, self.document(name))

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        self.change_group_attrs(name, lambda before: attrs)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        self.check_writable()
        if not self.keeps_groups:
            raise self._no_groups()
        key = self.document(name)
        turns = Turns(f"object {key!r}")
        for _ in turns:
            if kind_of(self.store.get(key)) == "group":  # then those above are groups as well
                self.drop_consolidated(f"{name}/x" if name else "x")
            else:
                check_group(
                    name, list(filter(self.has_dataset, [*parents(name), name])) if name else ()
                )
                self.make_groups(f"{name}/x" if name else "x")
            with turns.unless_conflict(), lock(name):
                found = self.store.get(key)
                if found and kind_of(found) == "group":
                    turns.expected = found.version
                    attrs = change(zarr3.group_attributes(found.data, key))
                    document = zarr3.with_attributes(found.data, attrs, key)
                    self.store.put(key, document, found.version)
                    return
            if found and kind_of(found) == DELETED:
                self._make_way(name, found)

    def get_dataset(self, name: str) -> StoreDataset:
        return self.open_dataset(name, self.read_metadata(name)[0])

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        self.check_writable()
        self.drop_consolidated(name)
        turns = Turns(f"object {self.document(name)!r}")
        for _ in turns:
            found = self.store.get(self.document(name))
            if found is None:
                raise self.not_found(name)
            kind = zarr3.node_type(found.data, self.document(name))
            if kind == DELETED and self._finish(name, found):
                return
            if kind != "array":
                raise self.not_found(name)
            if only is not None:
                there, mine = zarr3.from_json(found.data, self.document(name)), only.metadata
                if (zarr3.id_of(there), there.dtype, there.chunk_size) != (
                    (zarr3.id_of(mine), mine.dtype, mine.chunk_size)
                ):
                    raise self.not_found(name)
            self.check_foreign(name)
            with turns.unless_conflict():  # after a conflict, look again
                turns.expected = found.version
                self._deletion(name).run(found.version)
                return

    def _deletion(self, name: str) -> Deletion:
        what = f"dataset {name!r} in {self.name!r}"
        return Deletion(
            self.store,
            self.document(name),
            what,
            self.lease,
            self.settle,
            keys=lambda: self.keys_to_delete(name),
            forget=lambda: self.forget(name),
        )

    def _finish(self, name: str, found: Blob) -> bool:
        """Finish a deletion whose process is dead. Return False if it is alive."""
        deletion = self._deletion(name)
        if not deletion.outlived(found):
            return False
        with suppress(VersionConflict):  # another process finishes it
            deletion.run(found.version)
        return True

    def _make_way(self, name: str, found: Blob) -> None:
        """Finish a deletion that blocks a name. DatasetExistsError if its process is alive."""
        if not self._finish(name, found):
            raise DatasetExistsError(
                f"dataset {name!r} in {self.name!r} is being deleted: create it when that is done"
            )

    def dataset_names(self) -> list[str]:
        found = sorted(names_below(self.store, self.document, ""))
        if not found and self.holds_trees and self.store.get(self.document("")) is None:
            self._check_version("")
        return found

    def names_in(self, group: str) -> list[str]:
        if self.has_dataset(group):
            return []
        return sorted(names_below(self.store, self.document, group + "/"))

    def children(self, group: str) -> Children:
        if not self.holds_trees:
            return BackendConnection.children(self, group)
        if group and self.has_dataset(group):
            return Children([], [])
        return children_of(self.store, self.document, group and f"{group}/")

    def has_dataset(self, name: str) -> bool:
        # A broken one counts, because opening it tells what is wrong with it.
        return kind_of(self.store.get(self.document(name))) in ("array", "broken")

    def not_found(self, name: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"no dataset {name!r} in connection {self.name!r}: list(con) has the names"
        )

    def read_metadata(self, name: str) -> tuple[DatasetMetadata, str]:
        """Read the metadata of a dataset and their version, or raise DatasetNotFoundError."""
        found = self.store.get(self.document(name))
        return self.metadata_in(name, found), "" if found is None else found.version

    def metadata_in(self, name: str, found: Blob | None) -> DatasetMetadata:
        """Return the metadata in a document that was read, or raise DatasetNotFoundError."""
        where = f"{self.document(name)} in {self.name!r}"
        metadata = found and zarr3.array_in(found.data, where, ("group", DELETED))
        if metadata is None:
            raise self.not_found(name)
        return metadata

    def object_keys(self, name: str) -> Iterator[str]:
        """Yield the keys of all objects of a dataset, including its document."""
        return self.store.list(self.root(name) + "/")

    def existing(self, keys: Iterator[str]) -> Iterator[str]:
        """Yield those of some keys that exist, by a request for each: for stores without lists."""
        while page := list(islice(keys, _PAGE)):
            there: set[str] = set()

            def look(key: str, there: set[str] = there) -> None:
                if self.store.get(key, (0, 1)) is not None:
                    there.add(key)

            self.store.for_each(look, page)
            yield from (key for key in page if key in there)

    _warned = False

    def warn_of_lost_writes(self) -> None:
        """Warn, once for each connection, that other processes may undo a partial write."""
        if self.shared_between_processes and not self._warned:
            self._warned = True
            warnings.warn(
                f"the store of connection {self.name!r} has no conditional writes: when several "
                "processes write parts of one chunk at a time, some of it can be lost; write "
                "whole chunks, or let one process write",
                stacklevel=2,
            )
