"""Creation of domains. A domain appears when it is complete."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from h5json.objid import createObjId

from dosna.core.types import Box, Json, Shape
from dosna.errors import DatasetExistsError, OutcomeUnknown, StorageError
from dosna.hsds.client import Failure, HsdsClient
from dosna.io.parallel import in_flight
from dosna.io.processes import maker, maker_has_ended

__all__ = ["NewDomain", "grown", "new_domain", "select_of"]


_AT_ONCE = 100
_PART, _OLD = ".part", ".old"


def select_of(box: Box) -> dict[str, str]:
    """Return the parameter of a request that selects a box; none for a scalar."""
    if not box:
        return {}
    return {"select": "[" + ",".join(f"{s.start}:{s.stop}" for s in box) + "]"}


def grown(chunks: Shape, extent: Sequence[int], itemsize: int, most: int) -> Shape:
    """Return the extent of whole chunks that one request takes: several of them if they are small.

    `most`: the largest number of bytes of a request that takes more than one chunk.
    """
    unit = list(chunks)
    # Grow along the last axes first, where elements lie together.
    for axis in reversed(range(len(unit))):
        while unit[axis] < extent[axis] and 2 * prod(unit) * itemsize <= most:
            unit[axis] *= 2
    return tuple(unit)


@dataclass
class NewDomain:
    """A domain under construction. `commit` sends the objects; elements are sent at once.

    Parameters
    ----------
    client : HsdsClient
    path : str
        The temporary path of the domain.
    root : str
        The id of its root group.
    """

    client: HsdsClient
    path: str
    root: str
    _groups: list[Json] = field(default_factory=list)
    _datasets: list[Json] = field(default_factory=list)
    _types: list[Json] = field(default_factory=list)
    _links: dict[str, Json] = field(default_factory=dict)
    _written: dict[tuple[str, str], int] = field(default_factory=dict)
    _flushed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def group(self, parent: str, name: str) -> str:
        """Add a group and return its id."""
        return self._add(self._groups, "groups", parent, name, {})

    def dataset(
        self,
        parent: str,
        name: str,
        type_json: Json,
        shape: Shape | None,
        properties: Mapping[str, Any],
        maxdims: Sequence[int | None] | None = None,
    ) -> str:
        """Add a dataset and return its id.

        Parameters
        ----------
        parent, name : str
            The id of the group, and the name in it. An empty name makes no link.
        type_json : dict
            The type in HSDS's JSON.
        shape : tuple of int, or None
            The extent of each axis; None for a null dataspace.
        properties : mapping
            The creation properties: layout, filters, fill value.
        maxdims : sequence of int or None, optional
            The largest extent of each axis; None where an axis may grow without a limit.
        """
        body: Json = {"type": type_json, "creationProperties": dict(properties)}
        body["shape"] = "H5S_NULL" if shape is None else list(shape) if shape else "H5S_SCALAR"
        if maxdims and tuple(maxdims) != shape:
            body["maxdims"] = [0 if n is None else n for n in maxdims]
        return self._add(self._datasets, "datasets", parent, name, body)

    def named_type(self, parent: str, name: str, type_json: Json) -> str:
        """Add a committed type and return its id."""
        return self._add(self._types, "datatypes", parent, name, {"type": type_json})

    def _add(self, queue: list[Json], collection: str, parent: str, name: str, body: Json) -> str:
        made: str = createObjId(collection, root_id=self.root)
        link = {"link": {"id": parent, "name": name}} if name else {}
        queue.append({"id": made, **link, **body})
        return made

    def link(self, parent: str, name: str, **link: Any) -> None:
        """Add a link: hard by ``id=``, soft by ``h5path=``, external by ``h5domain=`` as well."""
        self._links.setdefault(parent, {"links": {}})["links"][name] = link

    def commit(self) -> None:
        """Send the groups, types, datasets and links that were added."""
        self._flushed = False
        for collection, queue in (
            ("groups", self._groups),
            ("datatypes", self._types),
            ("datasets", self._datasets),
        ):
            for start in range(0, len(queue), _AT_ONCE):
                some = queue[start : start + _AT_ONCE]
                self.client.post(f"/{collection}", self.path, some)
            queue.clear()
        if self._links:
            body = {"grp_ids": self._links}
            self.client.put(f"/groups/{self.root}/links", self.path, body)
            self._links = {}

    def attributes(self, owners: Mapping[str, Mapping[str, Json]]) -> None:
        """Set attributes of existing objects, by their ids."""
        self._flushed = False
        wanted = [(owner, attrs) for owner, attrs in owners.items() if attrs]
        for start in range(0, len(wanted), _AT_ONCE):
            some = {o: {"attributes": dict(a)} for o, a in wanted[start : start + _AT_ONCE]}
            self.client.put(f"/groups/{self.root}/attributes", self.path, {"obj_ids": some})

    def write(self, dataset: str, box: Box, data: bytes) -> None:
        """Write a box of an existing dataset. Several threads may call this at the same time."""
        if not len(data):
            return
        self._flushed = False
        select = select_of(box)
        self.client.put_bytes(f"/datasets/{dataset}/value", self.path, data, **select)
        with self._lock:
            self._written[dataset, select.get("select", "")] = zlib.crc32(data)

    def flush(self) -> None:
        """Wait until everything that was sent is in the server's storage."""
        if not self._flushed:
            self.client.put("/", self.path, flush=1)
            self._flushed = True

    def verify(self, count: int) -> None:
        """Read everything that was written and compare it. `count`: requests at a time.

        Raises
        ------
        StorageError
            If other elements came back than were written.
        """

        def look(item: tuple[tuple[str, str], int]) -> None:
            (dataset, select), expected = item
            params = {"select": select} if select else {}
            found = self.client.get_bytes(f"/datasets/{dataset}/value", self.path, **params)
            if zlib.crc32(found) != expected:
                raise StorageError(
                    f"{self.client.endpoint} returned other elements than were written to "
                    f"{dataset} {select}: look into the log of the server"
                )

        in_flight(look, self._written.items(), count)


@contextmanager
def new_domain(
    client: HsdsClient, path: str, overwrite: bool, token: str | None = None
) -> Iterator[NewDomain]:
    """Create a domain that appears under its path at the end, and vanishes on failure.

    Until then it is ``.NAME.TOKEN.part`` in the same folder. It stays there if the process is
    killed.

    Parameters
    ----------
    client : HsdsClient
    path : str
        The path of the domain.
    overwrite : bool
        Whether to replace a domain that exists.
    token : str, optional
        A part of the temporary name, random by default. Anything that an earlier call with the
        same token left is deleted.

    Raises
    ------
    DatasetExistsError
        If the domain exists, or a folder of that name.
    OutcomeUnknown
        If the last answer was lost, so that the domain may have appeared.
    StorageError, dosna.errors.ConnectionError
        If the server refuses, fails, or cannot be reached.
    """
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.{token or maker()}{_PART}"
    try:
        if token is None:
            _sweep(client, path)
        _check_free(client, path, overwrite)
        if token is not None:
            _remove(client, part, path)
        root = client.put("/", part, {})["root"]
        try:
            made = NewDomain(client, part, root)
            yield made
            made.flush()
            _appear(client, part, path, root, overwrite)
        except BaseException:
            with suppress(Failure):
                _remove(client, part, path)
            raise
    except Failure as failure:
        if failure.absent:
            failure.detail = f"{failure.detail}: is {folder or '/'} a folder there?"
        raise client.error(failure, f"domain {path} cannot be written") from None


def _root(client: HsdsClient, path: str) -> str | None:
    """Return the id of a domain's root, '' for a folder, None if nothing is there."""
    try:
        return str(client.get("/", path).get("root", ""))
    except Failure as failure:
        if failure.absent:
            return None
        raise


def _check_free(client: HsdsClient, path: str, overwrite: bool) -> None:
    found = _root(client, path)
    if found == "" or (found is not None and not overwrite):
        what = "folder" if found == "" else "domain"
        raise DatasetExistsError(
            f"there is a {what} {path} at {client.endpoint}: choose another name"
            + ("" if found == "" else ", or replace it by overwrite=True")
        )


def _appear(client: HsdsClient, part: str, path: str, root: str, overwrite: bool) -> None:
    """Link the final path to the root, then remove the temporary path."""
    _check_free(client, path, overwrite)
    old = f"{part}{_OLD}"
    before = _root(client, path)
    if before is not None:
        client.put("/", old, {"linked_domain": path})
        client.delete("/", path, keep_root=1)
    try:
        try:
            client.put("/", path, {"linked_domain": part})
        except Failure as failure:
            # If an answer was lost, the second request finds what the first has done.
            if failure.status != 409 or _root(client, path) != root:
                if failure.may_be_done:
                    failure.error = OutcomeUnknown
                    failure.kind += ", and the domain may have appeared: look before another try"
                raise
    except BaseException:
        if before is not None:
            with suppress(Failure):
                client.put("/", path, {"linked_domain": old})
                client.delete("/", old, keep_root=1)
        raise
    client.delete("/", part, keep_root=1)
    if before is not None:
        client.delete("/", old)


def _sweep(client: HsdsClient, path: str) -> None:
    """Delete the leftovers of killed processes of this machine.

    For other machines it is not known whether a process has ended. A process that was killed
    between the two steps of `_appear` leaves the old domain and the new one. The new one is
    complete, and gets the path.
    """
    folder, _, name = path.rpartition("/")
    start = f"{folder}/.{name}."
    # List hidden domains only: there may be many others.
    listed = [str(found["name"]) for found in client.domains(folder or "/", pattern=".*")]
    left = {found.removesuffix(_OLD) for found in listed if found.startswith(start)}
    for part in left:
        if not part.endswith(_PART) or not maker_has_ended(part[len(start) : -len(_PART)]):
            continue
        old = f"{part}{_OLD}"
        if old in listed and _root(client, path) is None:
            client.put("/", path, {"linked_domain": part if part in listed else old})
        _remove(client, part, path)
        _remove(client, old, path)


def _remove(client: HsdsClient, part: str, path: str) -> None:
    """Delete an unfinished domain, but keep the root if the finished domain has the same."""
    mine = _root(client, part)
    if mine is not None:
        keep = {"keep_root": 1} if mine == _root(client, path) else {}
        client.delete("/", part, **keep)
