"""Domains of HSDS, HDF5 as a service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dosna.core.plan import every_chunk
from dosna.core.text import TEXT
from dosna.core.types import Array, Box, Json, Shape
from dosna.errors import (
    SourceChangedError,
    SourceNotFoundError,
)
from dosna.hsds.client import IN_FLIGHT, Failure, HsdsClient, HsdsOptions, domain_of
from dosna.hsds.domain import grown, select_of
from dosna.hsds.tree import DomainTree, Place, attributes, domains_in
from dosna.hsds.types import dtype_of, elements, shape_of
from dosna.io.parallel import Workers
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.hdf5.strings import as_dtype, blocks, measure
from dosna.sources.hdf5.tree import BrokenLinkError
from dosna.sources.hdf5.types import Representation, represent_as
from dosna.sources.kinds import SourceKind, registry

__all__ = ["KIND", "HsdsSource"]

_REQUEST_BYTES = 2 << 20
_TOGETHER_BYTES = 2 * _REQUEST_BYTES
"""Bytes that an ingest reads at a time, for two requests under way. It holds them three times."""
_ASKED_AGAIN_AFTER = 20
"""A fingerprint of many domains is used for so many times the time that it took to get it."""


class HsdsSource(Source):
    """The datasets of a domain of HSDS, by their paths in it, or of all domains of a folder.

    Boxes are read along the chunks of a dataset in HSDS, by several requests at a time.

    Parameters
    ----------
    location : str or h5pyd.File, h5pyd.Group, h5pyd.Dataset
        ``hdf5://home/user/scan.h5``, ``hdf5://home/user/scan.h5:/entry``, or
        ``hdf5://home/user/`` for a folder, whose arrays are named ``scan.h5/entry/data``.
    inner : str
        A group or a dataset of the domain; the whole domain by default.
    endpoint, username, password, bucket : str, optional
        The server, the credentials and the bucket. By default they are taken from the
        environment (``HS_ENDPOINT``, ``HS_USERNAME``, ``HS_PASSWORD``) and from ``~/.hscfg``.
    timeout : float
        The seconds that one request may wait for its answer to begin, or to go on.
    retries : int
        The number of times that a request is repeated after a failure that may pass.
    """

    def __init__(
        self,
        location: Any,
        inner: str = "",
        *,
        endpoint: str | None = None,
        username: str | None = None,
        password: str | None = None,
        bucket: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        if not isinstance(location, str):
            location, inner, endpoint, username, password = _of_object(location)
        elif not inner:
            scheme, _, rest = location.partition("://")
            rest, _, inner = rest.partition(":")
            location = f"{scheme}://{rest}"
        super().__init__(location, inner.strip("/"))
        self._path = domain_of(location)
        self._options = HsdsOptions(endpoint, username, password, bucket, timeout, retries)
        self._known: HsdsClient | None = None
        self._process = os.getpid()
        self._forget()

    def _forget(self) -> None:
        self._found: _Found | None = None
        self._readers: dict[str, _Reader] = {}
        self._workers: Workers | None = None
        self._state: tuple[float, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        forgotten = dict.fromkeys(("_known", "_found", "_workers", "_state"))
        located = {"_options": self._options.located(), "_readers": {}}
        return {**super().__getstate__(), **forgotten, **located}

    def close(self) -> None:
        with self._lock:
            if self._workers is not None:
                self._workers.close()
            if self._known is not None:
                self._known.close()
                self._known = None
            self._forget()

    @property
    def single(self) -> bool:
        return bool(self.inner) and list(self._all().arrays) == [self.inner]

    def keeps_its_data_in(self, name: str, connection: Any, dataset: str) -> bool:
        return False

    def fingerprint(self) -> str:
        with self._lock, self._asking(self._path):
            now = time.monotonic()
            if self._state is None or now > self._state[0]:
                state = self._asked()
                took = time.monotonic() - now if self._is_folder() else 0.0
                self._state = (time.monotonic() + _ASKED_AGAIN_AFTER * took, state)
            return self._state[1]

    def _asked(self) -> str:
        client = self._client
        states = []
        for domain in self._domains().values():
            there = self._domain(domain)
            root = client.get(f"/groups/{there['root']}", domain)
            states.append(f"{there['root']} {there['lastModified']} {root['lastModified']}")
        return f"root, lastModified, its root's: {'; '.join(states)}"

    def names(self) -> list[str]:
        found = self._all()
        return sorted([*found.arrays, *found.broken])

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        return self._all().groups

    def describe(self, name: str) -> ArrayDescription:
        found = self._all()
        if name in found.broken:
            return ArrayDescription(name, refused=found.broken[name])
        if name not in found.arrays:
            raise SourceNotFoundError(f"{self} has no array {name!r}")
        with self._asking(name):
            return self._reader(name).describe(name, found.arrays[name])

    def read(self, name: str, box: Box) -> Array:
        with self._asking(name):
            reader = self._reader(name)
            out = np.empty([s.stop - s.start for s in box], reader.dtype)
            reader.read_into(box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array) -> None:
        with self._asking(name):
            self._reader(name).read_into(box, out)

    @property
    def _client(self) -> HsdsClient:
        with self._lock:
            if self._known is None:
                self._known = HsdsClient(self._options)
            return self._known

    def _is_folder(self) -> bool:
        return self.location.endswith("/")

    def _domains(self) -> dict[str, str]:
        """Return the domains by the prefixes of the names of their arrays."""
        if not self._is_folder():
            return {"": self._path}
        prefix = f"{self._path}/"
        found = domains_in(self._client, self._path)
        return {path.removeprefix(prefix): path for path in found if not _unfinished(path)}

    def _domain(self, path: str) -> Json:
        found = self._client.get("/", path)
        if "root" not in found:
            raise SourceNotFoundError(
                f"{path} at {self._client.endpoint} is a folder: use {self.location}/ for all of "
                "its domains"
            )
        return found

    def _all(self) -> _Found:
        with self._lock, self._asking(self.inner or self._path):
            if self._found is None:
                found = _Found({}, {}, {}, {})
                for prefix, domain in self._domains().items():
                    self._walk(found, prefix, domain)
                self._found = found
            return self._found

    def _walk(self, found: _Found, prefix: str, domain: str) -> None:
        self._domain(domain)
        tree = DomainTree(self._client, domain)
        try:
            walked = tree.walk(self.inner)
        except BrokenLinkError as error:
            raise SourceNotFoundError(f"{self.location} has no {self.inner!r}: {error}") from None

        def full(name: str) -> str:
            return "/".join(filter(None, [prefix, name]))

        for name, links in walked.arrays.items():
            found.arrays[full(name)] = tuple(map(full, links))
            found.trees[full(name)] = (tree, name)
        found.groups.update((full(name), attrs) for name, attrs in walked.groups.items())
        found.broken.update((full(name), why) for name, why in walked.broken.items())

    def _reader(self, name: str) -> _Reader:
        found = self._all()
        with self._lock:
            if self._process != os.getpid():
                # Threads do not survive a fork.
                self._process, self._workers, self._readers = os.getpid(), None, {}
            reader = self._readers.get(name)
            if reader is None:
                if name not in found.trees:
                    raise SourceNotFoundError(f"{self} has no array {name!r}")
                tree, inside = found.trees[name]
                if self._workers is None:
                    self._workers = Workers("dosna-hsds", IN_FLIGHT, IN_FLIGHT, blocking=True)
                place, described = tree.dataset(inside)
                reader = _Reader(self._client, self._workers, tree, place, described)
                self._readers[name] = reader
            return reader

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except Failure as failure:
            where = f"{self._client.endpoint} as {self._client.username!r}"
            if failure.absent:
                raise SourceNotFoundError(
                    f"{what!r} of {self.location} does not exist (any more) at {where}: {failure}"
                ) from None
            raise self._client.error(
                failure, f"{what!r} of {self.location} cannot be read"
            ) from None
        except BrokenLinkError as error:
            raise SourceNotFoundError(f"{what!r} of {self.location}: {error}") from None


def _unfinished(path: str) -> bool:
    """Return True if a domain is unfinished."""
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith((".part", ".part.old"))


def _of_object(what: Any) -> tuple[str, str, str | None, str | None, str | None]:
    """Return location, inner path, endpoint and credentials of an open object of h5pyd."""
    plugin = what.id.db.plugin
    connection = plugin.http_conn
    if not plugin.read_only:
        what.file.flush()
    return (
        f"hdf5:/{connection.domain}",
        what.name,
        connection.endpoint,
        connection.username,
        connection.password,
    )


@dataclass
class _Found:
    """Arrays with their other names, attributes of groups, broken names, places of arrays."""

    arrays: dict[str, tuple[str, ...]]
    groups: dict[str, dict[str, Any]]
    broken: dict[str, str]
    trees: dict[str, tuple[DomainTree, str]]


class _Reader:
    """A reader of one dataset."""

    def __init__(
        self,
        client: HsdsClient,
        workers: Workers,
        tree: DomainTree,
        place: Place,
        described: Json,
    ) -> None:
        self._client, self._workers, self._tree = client, workers, tree
        self.place, self.described = place, described
        self.extent = shape_of(described["shape"])
        self.as_, self.stored = _represented(described["type"], self.extent)
        self.refused = self.as_.refused
        self.dtype, self.shape = self.as_.dtype, self.as_.shape
        if self.as_.strings and not self.refused:
            parts = (self._strings(box) for box in blocks(self.shape))
            self.dtype, self.refused = measure(self.shape, parts)

    def describe(self, name: str, links: tuple[str, ...]) -> ArrayDescription:
        found = self.as_
        if self.refused:
            return ArrayDescription(name, refused=self.refused, links=links)
        inner = self.shape[len(self.extent or ()) :] if not found.empty else ()
        chunks, pieces = self._chunks(), None
        if chunks is not None:
            chunks = (*chunks, *inner)
            pieces = grown(chunks, self.shape, self.dtype.itemsize, _TOGETHER_BYTES)
        notes = found.notes
        if found.strings and self.dtype != TEXT:
            notes += (f"its strings of variable length are stored as {self.dtype}",)
        fill = None
        if not found.strings and not found.empty and not inner and self.dtype.kind in "biuf":
            fill = self.described.get("creationProperties", {}).get("fillValue")
        return ArrayDescription(
            name,
            self.shape,
            self.dtype,
            {**attributes(self.described, self._tree), **(found.attrs or {})},
            chunks=chunks,
            pieces=pieces,
            fillvalue=None if fill is None else self.dtype.type(fill),
            links=links,
            notes=notes,
        )

    def _chunks(self) -> Shape | None:
        layout = self.described.get("layout") or self.described["creationProperties"].get("layout")
        dims = (layout or {}).get("dims")
        if not dims or not self.extent or len(dims) != len(self.extent):
            return None
        return tuple(map(int, dims))

    def read_into(self, box: Box, out: Array) -> None:
        if not out.size:
            return
        axes = len(self.extent or ())
        outer, inner = box[:axes], box[axes:]

        def read(part: Box) -> None:
            place: Any = tuple(
                slice(p.start - b.start, p.stop - b.start)
                for p, b in zip(part, outer, strict=True)
            )
            within: Any = (..., *inner)
            if self.as_.strings:
                out[(*place, ...)] = as_dtype(self._strings(part), self.dtype)
            else:
                out[(*place, ...)] = self._elements(part)[within]

        self._workers.for_each(read, self._parts(outer), 1)

    def _parts(self, box: Box) -> list[Box]:
        """Divide a box into parts of one request each: chunks, several if they are small."""
        size = self.dtype.itemsize * prod(self.shape[len(box) :])
        extent = [s.stop - s.start for s in box]
        if prod(extent) * size <= _REQUEST_BYTES:
            return [box]
        chunks = self._chunks() or (1,) * len(box)
        unit = grown(chunks, extent, size, _REQUEST_BYTES)
        parts = []
        starts = [s.start - s.start % u for s, u in zip(box, unit, strict=True)]
        covered = [s.stop - start for s, start in zip(box, starts, strict=True)]
        for task in every_chunk(covered, unit):
            part = tuple(
                slice(max(s.start, start + o.start), start + o.stop)
                for s, start, o in zip(box, starts, task.out, strict=True)
            )
            parts.append(part)
        return parts

    def _strings(self, box: Box) -> Array:
        if self.as_.empty:
            return np.empty(0, object)
        return self._elements(box)

    def _elements(self, box: Box) -> Array:
        data = self._client.get_bytes(
            f"/datasets/{self.place.id}/value", self.place.domain, **select_of(box)
        )
        shape = tuple(s.stop - s.start for s in box)
        try:
            return elements(data, self.stored, shape)
        except (ValueError, IndexError) as error:
            raise SourceChangedError(
                f"{self.place.domain} has changed since it was opened: {len(data)} bytes came for "
                f"{shape} elements of {self.stored} ({error}). Open it again"
            ) from None


def _represented(type_json: Any, extent: Shape | None) -> tuple[Representation, np.dtype[Any]]:
    """Return the representation of the elements, and the dtype in which HSDS sends them."""
    unknown = np.dtype("V1")
    kind = type_json.get("class") if isinstance(type_json, dict) else ""
    try:
        stored = dtype_of(type_json)
    except TypeError as error:
        refused = f"its HDF5 type has no NumPy dtype: {error}"
        return Representation(unknown, extent or (0,), refused=refused), unknown
    if kind == "H5T_REFERENCE":
        refused = "its elements are references to other objects"
        return Representation(unknown, extent or (0,), refused=refused), stored
    return represent_as(stored, extent), stored


KIND = SourceKind(
    name="hsds",
    source=HsdsSource,
    claims=registry.known["hsds"].about,
    description="domains of HSDS, HDF5 as a service",
    url="https://www.hdfgroup.org/solutions/highly-scalable-data-service-hsds/",
)
