"""Datasets in a pool of a Ceph cluster: Zarr v3 arrays, whose chunks are RADOS objects.

A pool has no folders: listing the keys with some prefix goes through all of its objects. So
`dosna.backends.ceph.names` keeps the names of the datasets, and for each the most stored objects
that it ever had on each axis. To find out which of these objects exist, each is asked for.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dosna.backends.base import Backend
from dosna.backends.ceph.cluster import Settings
from dosna.backends.ceph.names import Grids, Names, united
from dosna.backends.ceph.store import CephStore
from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.deletion import Deletion
from dosna.backends.stores.store import Store
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import Children, children_among
from dosna.core.options import check_seconds
from dosna.core.types import Shape
from dosna.errors import (
    ConfigurationError,
    DatasetNameError,
    DatasetNotFoundError,
    FormatError,
)

__all__ = ["BACKEND", "CephConnection"]

# Listing a pool takes some 3 s for each million objects, asking for one of them 0.1 ms.
_MOST_ASKED = 100_000


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
        self._known: Names | None = None

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

    def _raw(self) -> CephStore:
        store = self.raw_store
        assert isinstance(store, CephStore)
        return store

    @property
    def _names(self) -> Names:
        if self._known is None:
            self._known = Names(self.name, self._raw, lambda: self.store)
        return self._known

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_known": None}  # its functions cannot be pickled

    def remember(self, name: str, *described: DatasetMetadata) -> str | None:
        self.check_writable()
        self._check_keys(name, described[-1])
        return self._names.remember(name, united(map(_grids, described)))

    def confirm(self, name: str, entry: str | None) -> None:
        self._names.confirm(name, entry)

    def forget(self, name: str) -> None:
        self.check_writable()
        self._names.forget(name)

    def _deletion(self, name: str) -> Deletion:
        self._names.doubt(name)
        return super()._deletion(name)

    def dataset_names(self) -> list[str]:
        return self.names_in("")

    def names_in(self, group: str) -> list[str]:
        certain, doubtful = self._names.listed(group and f"{group}/")
        found: list[str] = []

        def look(name: str) -> None:
            if self.has_dataset(name):
                found.append(name)

        self.store.for_each(look, doubtful)
        return sorted(certain + found)

    def children(self, group: str) -> Children:
        # A pool has no folders. The names are entries of one object, many to a request.
        return children_among(self.names_in(group), group)

    def keys_left(self, name: str) -> list[str]:
        self._names.take_over(self.has_dataset)
        if not self._names.grids(name):
            return []  # There has never been a handle that could write it.
        return list(self.object_keys(name))

    def names_inside(self, name: str, below: list[str]) -> Iterator[str]:
        return filter(self.has_dataset, itertools.chain(*self._names.listed(name + "/")))

    # -- objects --------------------------------------------------------------------------

    def object_keys(self, name: str) -> Iterator[str]:
        return self.existing(self._possible_keys(name))

    def keys_to_delete(self, name: str) -> Iterator[str]:
        return self.own_keys(name, self._possible_keys(name))

    def check_foreign(self, name: str) -> None:
        """Do nothing, because other objects of the pool are not looked for."""

    def _possible_keys(self, name: str) -> Iterator[str]:
        """Return the keys that a dataset's objects have or may have."""
        grids = self._names.grids(name)
        with suppress(DatasetNotFoundError, FormatError):
            grids = united([grids, _grids(self.read_metadata(name)[0])])
        if not grids or sum(map(math.prod, grids.values())) > _MOST_ASKED:
            return self.store.list(self.root(name) + "/")
        places = (
            template % place
            for template, grid in grids.items()
            for place in itertools.product(*map(range, grid))
        )
        keys = (f"{self.root(name)}/{place}" for place in places)
        return itertools.chain([self.document(name)], keys)


def _grids(metadata: DatasetMetadata) -> Grids:
    """Return the present places of a dataset's objects."""
    return {zarr3.layout(metadata).template: [*_grid(metadata)]}


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
    description="objects in a pool of a Ceph cluster",
    url="https://docs.ceph.com/en/latest/rados/api/librados-intro/",
)
