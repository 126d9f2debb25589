"""Datasets of another connection as a source: copies that continue after an interruption."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dosna.array.connection import EngineConnection
from dosna.array.dataset import EngineDataset
from dosna.array.home import ArrayHome
from dosna.array.loading import stored_in_dataset
from dosna.array.opening import open_url
from dosna.backends.base import BackendConnection
from dosna.columns.description import Tree, without_source
from dosna.core.names import parents
from dosna.core.types import Array, Box
from dosna.errors import FormatError, MissingDependencyError, SourceNotFoundError
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.kinds import SourceKind, registry
from dosna.sources.naming import name_within

__all__ = ["KIND", "DatasetsSource", "groups_above"]


class DatasetsSource(Source):
    """The datasets of a connection.

    Their chunks stay the same, unless the ingest sets others.

    Parameters
    ----------
    location : Connection, Dataset or str
        A connection that is connected, or a dataset of one; or a URL, see `dosna.open_url`.
    inner : str
        The name of a dataset, or the prefix of names before a '/'; all datasets by default.
    unchanged : bool
        Whether the caller guarantees that the datasets were not written since an interrupted
        ingest of them began. A dataset cannot tell that itself. Without this guarantee, a second
        ingest is refused if the first has left datasets.
    """

    def __init__(self, location: Any, inner: str = "", *, unchanged: bool = False) -> None:
        if isinstance(location, EngineDataset):
            location, inner = location.connection, location.name
        self._given = isinstance(location, EngineConnection)
        self._con: EngineConnection
        if self._given:
            self._con = location
        else:
            self._con, within = open_url(location, mode="r", engine="cpu")
            inner = inner or within
        self._state = "unchanged" if unchanged else secrets.token_hex(8)
        self._digest: str | None = None
        self._origins: dict[str, str] = {}
        self._open: dict[str, EngineDataset] = {}
        super().__init__(
            f"{type(self._con.instance).__name__} {self._con.instance.location}", inner.strip("/")
        )

    def unopened(self) -> dict[str, Any]:
        return {"_open": {}}

    @property
    def picklable(self) -> bool:
        return self._con.instance.shared_between_processes

    @property
    def single(self) -> bool:
        return bool(self.inner) and self._connected().has_dataset(self.inner)

    def close(self) -> None:
        self._open.clear()
        if not self._given:
            self._con.disconnect()

    def keeps_its_data_in(self, name: str, connection: BackendConnection, dataset: str) -> bool:
        own = self._con.instance
        # One dataset may have two locations: by a link, or if one folder is in the other.
        here, there = f"{own.location}/{name}", f"{connection.location}/{dataset}"
        return type(own) is type(connection) and os.path.realpath(here) == os.path.realpath(there)

    def name_of(self, connection: BackendConnection, dataset: str) -> str | None:
        own = self._con.instance
        if type(own) is not type(connection):
            return None
        return name_within(own.location, self.inner, f"{connection.location}/{dataset}")

    def names(self) -> list[str]:
        if self.single:
            return [self.inner]
        names = self._connected().names_in(self.inner)
        if self.inner and not names:
            raise SourceNotFoundError(f"{self} has no dataset {self.inner!r}, nor any in it")
        return names

    def describe(self, name: str) -> ArrayDescription:
        try:
            ds = self._dataset(name)
        except (FormatError, MissingDependencyError) as error:
            return ArrayDescription(name, refused=str(error))
        if ds.incomplete:
            return ArrayDescription(name, refused="it is incomplete: its data are still to come")
        return ArrayDescription(
            name,
            ds.shape,
            ds.dtype,
            dict(ds.attrs),
            chunks=ds.chunk_size,
            chunks_kept=True,
            pieces=ds.instance.grain,
            dims=getattr(ds, "dims", None),
            fillvalue=ds.fillvalue,
        )

    def stored(self, name: str) -> Array | None:
        ds = self._dataset(name)
        fill = np.asarray(ds.fillvalue, ds.dtype)
        return stored_in_dataset(ds.instance, ds.chunk_size, fill)

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        found = groups_above(self._connected(), self.names())
        return {
            name: without_source(attrs) if self._is_of_one_state(name, attrs) else attrs
            for name, attrs in found.items()
        }

    def _is_of_one_state(self, group: str, attrs: Mapping[str, Any]) -> bool:
        """Return False if a dataset of a tree is of another state of its source than the tree.

        A copy of such a tree keeps its fingerprint, and so remains one that cannot be read.
        """
        tree = Tree.from_attrs(attrs, f"group {group!r}")
        if tree is None or not tree.fingerprint:
            return True
        self.fingerprint()  # has looked at all datasets
        within = {f"{group}/{branch.path}".lstrip("/") for branch in tree.branches}
        return not any(
            fingerprint != tree.fingerprint
            for name, fingerprint in self._origins.items()
            if not within.isdisjoint([name, *parents(name)])
        )

    def fingerprint(self) -> str:
        if self._digest is None:
            self._digest = self._digested()
        return self._digest

    def _digested(self) -> str:
        digest = hashlib.sha256(self._state.encode())
        for name in self.names():
            try:
                metadata = self._connected().instance.get_dataset(name).metadata
                known = metadata.replace(storage={}).to_json()
                if metadata.origin and "fingerprint" in metadata.origin:
                    self._origins[name] = metadata.origin["fingerprint"]
            except (FormatError, MissingDependencyError) as error:
                known = str(error)
            digest.update(f"{name} {known}\n".encode())
        return digest.hexdigest()

    def read(self, name: str, box: Box) -> Array:
        ds = self._dataset(name)
        return np.asarray(ds.read(box), ds.dtype)

    def read_into(self, name: str, box: Box, out: Array) -> None:
        self._dataset(name).read(box, out=out)

    def _connected(self) -> EngineConnection:
        if not self._given:
            self._con.connect()
        return self._con

    def _dataset(self, name: str) -> EngineDataset:
        found = self._open.get(name)
        if found is None:
            if name not in self._connected():
                raise SourceNotFoundError(f"{self} has no dataset {name!r}")
            found = self._open[name] = self._connected()[name]
        return found


def groups_above(con: ArrayHome, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the attributes of the groups above datasets, for groups that have attributes."""
    if not con.instance.keeps_groups:
        return {}
    above = sorted({"", *(group for name in names for group in parents(name))})
    found = {group: con.get_group_attrs(group) for group in above}
    return {group: attrs for group, attrs in found.items() if attrs}


KIND = SourceKind(
    name="dosna",
    source=DatasetsSource,
    claims=registry.known["dosna"].about,
    description="datasets of another connection",
)
