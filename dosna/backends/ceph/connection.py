"""Datasets in a pool of a Ceph cluster: Zarr v3 arrays, whose chunks are RADOS objects.

A pool has no folders: listing the keys with some prefix goes through all of its objects. So one
object keeps the names of the datasets, and for each the most stored objects that it ever had on
each axis. To find out which of these objects exist, each of them is asked for.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from dosna.backends.base import Backend
from dosna.backends.ceph.cluster import Settings
from dosna.backends.ceph.store import CephStore
from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.store import ABSENT, Store, Turns
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.options import check_seconds
from dosna.core.types import Shape
from dosna.errors import (
    ConfigurationError,
    DatasetNameError,
    DatasetNotFoundError,
    FormatError,
)

__all__ = ["BACKEND", "CephConnection"]

NAMES = ".dosna-datasets"
"""The object with the names of datasets."""

_PAGE = 1024
# Listing a pool takes some 3 s for each million objects, asking for one of them 0.1 ms.
_MOST_ASKED = 100_000
# A client that still has a handle on a deleted dataset may write chunks. These must not appear in
# another dataset of the same name.
_MOST_DELETED = 1000

Grids = dict[str, list[int]]
"""The most stored objects that a dataset ever had on each axis, by the template of their keys."""


class Names(NamedTuple):
    """The names of existing and of deleted datasets, and the places of their objects.

    A dataset usually has one template. If two clients were creating it at the same time, the
    templates of both are kept.
    """

    datasets: dict[str, Grids]
    deleted: dict[str, Grids]


class CephConnection(StoreConnection):
    """A connection to a pool of a Ceph cluster.

    Parameters
    ----------
    name : str
        The name of the pool, which must exist.
    conffile : path
        The path of the cluster's configuration, with the monitors' addresses and the keyring.
    timeout : float
        The seconds after which a request without an answer is an error. They are rounded up,
        because librados takes whole seconds.
    client_id : str, optional
        The id of the client: 'dosna' for ``client.dosna``. The default is librados' own,
        'admin'.
    mode : {'a', 'r'}
        The access mode; 'r' refuses every change.
    """

    shared_between_processes = True

    def __init__(
        self,
        name: str,
        conffile: str | os.PathLike[str] = "ceph.conf",
        timeout: float = 5,
        client_id: str | None = None,
        mode: str = "a",
    ) -> None:
        super().__init__(name, mode)
        check_seconds("timeout", timeout)
        self.settings = Settings(name, os.path.abspath(conffile), client_id, timeout)
        self.lease = 2.0 * timeout + 1  # type: ignore[misc]

    @property
    def location(self) -> str:
        return f"{self.settings.conffile}:{self.name}"

    def open_store(self) -> Store:
        return CephStore(self.settings, writable=self.mode == "a")

    def describe(self, name: str, metadata: DatasetMetadata) -> DatasetMetadata:
        store = self.raw_store
        assert isinstance(store, CephStore)
        layout = zarr3.layout(metadata)
        nbytes = _most_bytes(layout)
        for option, unit in (("osd_max_write_size", 1 << 20), ("osd_max_object_size", 1)):
            limit = int(store.cluster.option(option)) * unit
            if nbytes > limit:
                what = "chunks" if layout.shards is None else "shards"
                raise ConfigurationError(
                    f"{what} of {layout.grain} would have up to {nbytes} bytes, and {option} of "
                    f"this Ceph cluster allows {limit}: make them smaller"
                )
        self._check_keys(name, metadata)
        return metadata

    def _check_keys(self, name: str, metadata: DatasetMetadata) -> None:
        store, layout = self.raw_store, zarr3.layout(metadata)
        assert isinstance(store, CephStore)
        limit = int(store.cluster.option("osd_max_object_name_len"))
        last = [n - 1 for n in _grid(metadata)]
        if len(f"{self.root(name)}/{layout.template % tuple(last)}".encode()) > limit:
            raise DatasetNameError(
                f"the keys of chunks have at most {limit} bytes in this Ceph cluster "
                f"(osd_max_object_name_len), too few for the dataset name {name!r}"
            )

    # -- names ----------------------------------------------------------------------------

    def _names(self) -> tuple[Names, str]:
        """Return the names, and the version of their object."""
        found = self.store.get(NAMES)
        if found is None:
            return Names({}, {}), ABSENT
        try:
            document = json.loads(bytes(found.data))
            return Names(document["datasets"], document["deleted"]), found.version
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"object {NAMES!r} of pool {self.name!r} is damaged: it is JSON with the names of "
                "all datasets; restore it from a copy"
            ) from error

    def _change_names(self, change: Callable[[Names], Names]) -> None:
        turns = Turns(f"object {NAMES!r}")
        for _ in turns:
            names, version = self._names()
            new = change(names)
            if new == names:
                return
            with turns.unless_conflict():
                turns.expected = version
                self.store.put(NAMES, json.dumps(new._asdict()).encode(), version)
                return

    def remember(self, name: str, *described: DatasetMetadata) -> None:
        self._check_keys(name, described[-1])

        def add(names: Names) -> Names:
            # Handles on an earlier dataset of that name may still write objects at its places.
            grids = names.datasets.get(name) or names.deleted.get(name) or {}
            for metadata in described:
                grids = _union(grids, metadata)
            return Names({**names.datasets, name: grids}, _without(names.deleted, name))

        self._change_names(add)

    def forget(self, name: str) -> None:
        def move(names: Names) -> Names:
            if name not in names.datasets:
                return names
            deleted = {**_without(names.deleted, name), name: names.datasets[name]}
            latest = dict(list(deleted.items())[-_MOST_DELETED:])
            return Names(_without(names.datasets, name), latest)

        self._change_names(move)

    def dataset_names(self) -> list[str]:
        found: list[str] = []

        def look(name: str) -> None:
            if self.has_dataset(name):
                found.append(name)

        self.store.for_each(look, self._names()[0].datasets)
        return sorted(found)

    def keys_left(self, name: str) -> list[str]:
        names = self._names()[0]
        if name not in names.datasets and name not in names.deleted:
            return []  # There has never been a handle that could write it.
        return list(self.object_keys(name))

    def names_inside(self, name: str, below: list[str]) -> Iterator[str]:
        inner = (other for other in self._names()[0].datasets if other.startswith(name + "/"))
        return filter(self.has_dataset, inner)

    # -- objects --------------------------------------------------------------------------

    def object_keys(self, name: str) -> Iterator[str]:
        keys = self._possible_keys(name)
        while page := list(islice(keys, _PAGE)):
            there: set[str] = set()

            def look(key: str, there: set[str] = there) -> None:
                if self.store.get(key, (0, 1)) is not None:
                    there.add(key)

            self.store.for_each(look, page)
            yield from (key for key in page if key in there)

    def keys_to_delete(self, name: str) -> Iterator[str]:
        return self.own_keys(name, self._possible_keys(name))

    def check_foreign(self, name: str) -> None:
        """Do nothing, because other objects of the pool are not looked for."""

    def _possible_keys(self, name: str) -> Iterator[str]:
        """Return the keys that a dataset's objects have or may have."""
        names = self._names()[0]
        grids = names.datasets.get(name) or names.deleted.get(name) or {}
        with suppress(DatasetNotFoundError, FormatError):
            grids = _union(grids, self.read_metadata(name)[0])
        if not grids or sum(map(math.prod, grids.values())) > _MOST_ASKED:
            return self.store.list(self.root(name) + "/")
        places = (
            template % place
            for template, grid in grids.items()
            for place in itertools.product(*map(range, grid))
        )
        keys = (f"{self.root(name)}/{place}" for place in places)
        return itertools.chain([self.document(name)], keys)


def _union(grids: Grids, metadata: DatasetMetadata) -> Grids:
    """Return `grids` with the present places of a dataset's objects added."""
    template, grid = zarr3.layout(metadata).template, _grid(metadata)
    return {**grids, template: [*map(max, grids.get(template, grid), grid)]}


def _without(names: dict[str, Grids], name: str) -> dict[str, Grids]:
    return {n: grids for n, grids in names.items() if n != name}


def _grid(metadata: DatasetMetadata) -> Shape:
    """Return the number of stored objects on each axis."""
    grain = zarr3.layout(metadata).grain
    return tuple(-(-n // g) for n, g in zip(metadata.shape, grain, strict=True))


def _most_bytes(layout: zarr3.Layout) -> int:
    """Return the most bytes that a stored object can have."""
    chunk = layout.pipeline.size or layout.pipeline.nbytes
    shards = layout.shards
    return chunk if shards is None else chunk * shards.total + shards.index_size


BACKEND = Backend(
    name="ceph",
    connection=CephConnection,
    description="objects of a pool of a Ceph cluster",
    url="https://docs.ceph.com/en/latest/rados/api/librados-intro/",
)
