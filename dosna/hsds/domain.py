"""Making a domain, which appears when it is complete."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from h5json.objid import createObjId

from dosna.core.types import Box, Json, Shape
from dosna.errors import DatasetExistsError, StorageError
from dosna.hsds.client import Failure, HsdsClient
from dosna.io.processes import maker, maker_has_ended

__all__ = ["NewDomain", "grown", "in_flight", "new_domain", "select_of"]


_AT_ONCE = 100
_PART, _OLD = ".part", ".old"


def select_of(box: Box) -> dict[str, str]:
    """Give the parameter of a request that selects a box; none for a scalar."""
    if not box:
        return {}
    return {"select": "[" + ",".join(f"{s.start}:{s.stop}" for s in box) + "]"}


def grown(chunks: Shape, extent: Sequence[int], itemsize: int, most: int) -> Shape:
    """Give the extent of whole chunks that one request is for, as far as they are small."""
    unit = list(chunks)
    # Along the last axes first, where elements lie together.
    for axis in reversed(range(len(unit))):
        while unit[axis] < extent[axis] and 2 * prod(unit) * itemsize <= most:
            unit[axis] *= 2
    return tuple(unit)


def in_flight(work: Callable[[Any], object], items: Iterable[Any], count: int) -> None:
    """Do work for each item, a bounded number at a time; the first error ends it."""
    if count <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(count) as pool:
        running: set[Future[object]] = set()
        try:
            for item in items:
                running.add(pool.submit(work, item))
                if len(running) >= 2 * count:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass
class NewDomain:
    """A domain that is being made. Objects are sent by `commit`, elements at once.

    Parameters
    ----------
    client : HsdsClient
    path : str
        Where it is meanwhile.
    root : str
        Id of its outermost group.
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
        """Add a group, and give its id."""
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
        """Add a dataset, and give its id.

        Parameters
        ----------
        parent, name : str
        type_json : dict
        shape : tuple of int, or None
            None for a null dataspace.
        properties : mapping
            Its creation properties: layout, filters, fill value.
        maxdims : sequence of int or None, optional
            None where an axis may grow without a limit.
        """
        body: Json = {"type": type_json, "creationProperties": dict(properties)}
        body["shape"] = "H5S_NULL" if shape is None else list(shape) if shape else "H5S_SCALAR"
        if maxdims and tuple(maxdims) != shape:
            body["maxdims"] = [0 if n is None else n for n in maxdims]
        return self._add(self._datasets, "datasets", parent, name, body)

    def named_type(self, parent: str, name: str, type_json: Json) -> str:
        """Add a committed type, and give its id."""
        return self._add(self._types, "datatypes", parent, name, {"type": type_json})

    def _add(self, queue: list[Json], collection: str, parent: str, name: str, body: Json) -> str:
        made: str = createObjId(collection, root_id=self.root)
        link = {"link": {"id": parent, "name": name}} if name else {}
        queue.append({"id": made, **link, **body})
        return made

    def link(self, parent: str, name: str, **link: Any) -> None:
        """Add a link: ``id=`` a hard, ``h5path=`` a soft, ``h5domain=`` too an external one."""
        self._links.setdefault(parent, {"links": {}})["links"][name] = link

    def commit(self) -> None:
        """Send what was added."""
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
        """Set attributes of objects that are there, by their ids."""
        self._flushed = False
        wanted = [(owner, attrs) for owner, attrs in owners.items() if attrs]
        for start in range(0, len(wanted), _AT_ONCE):
            some = {o: {"attributes": dict(a)} for o, a in wanted[start : start + _AT_ONCE]}
            self.client.put(f"/groups/{self.root}/attributes", self.path, {"obj_ids": some})

    def write(self, dataset: str, box: Box, data: bytes) -> None:
        """Write a box of a dataset that is there; may be called by several threads."""
        if not len(data):
            return
        self._flushed = False
        select = select_of(box)
        self.client.put_bytes(f"/datasets/{dataset}/value", self.path, data, **select)
        with self._lock:
            self._written[dataset, select.get("select", "")] = zlib.crc32(data)

    def flush(self) -> None:
        """Wait until all that was sent is in the server's storage."""
        if not self._flushed:
            self.client.put("/", self.path, flush=1)
            self._flushed = True

    def verify(self, count: int) -> None:
        """Read all that was written, and compare it.

        Raises
        ------
        StorageError
            Something else came back.
        """

        def look(item: tuple[tuple[str, str], int]) -> None:
            (dataset, select), expected = item
            params = {"select": select} if select else {}
            found = self.client.get_bytes(f"/datasets/{dataset}/value", self.path, **params)
            if zlib.crc32(found) != expected:
                raise StorageError(
                    f"{self.client.endpoint} gives other elements than were written to {dataset} "
                    f"{select}: its log may say why"
                )

        in_flight(look, self._written.items(), count)


@contextmanager
def new_domain(
    client: HsdsClient, path: str, overwrite: bool, token: str | None = None
) -> Iterator[NewDomain]:
    """Make a domain that appears under its path at the end, and vanishes if that fails.

    Until then it is ``.NAME.TOKEN.part`` in the same folder, as it is after a kill.

    Parameters
    ----------
    client : HsdsClient
    path : str
    overwrite : bool
        Whether to replace a domain that is there.
    token : str, optional
        A random one by default. What an earlier call left under this one is deleted.

    Raises
    ------
    DatasetExistsError
        There is such a domain, or a folder of that name.
    StorageError, dosna.errors.ConnectionError
        The server refuses, fails, or cannot be reached.
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
            failure.reason = f"{failure.reason}: is {folder or '/'} a folder there?"
        raise client.error(failure, f"domain {path} cannot be written") from None


def _root(client: HsdsClient, path: str) -> str | None:
    """Give the id of a domain's root, '' for a folder, None if nothing is there."""
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
            + ("" if found == "" else ", or say by overwrite=True that it is to be replaced")
        )


def _appear(client: HsdsClient, part: str, path: str, root: str, overwrite: bool) -> None:
    """Let two paths lead to one root, and then only the right one."""
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
            # An answer that was lost: the second request finds what the first has done.
            if failure.status != 409 or _root(client, path) != root:
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
    """Delete what processes of this machine have left that were killed; of others it is unknown.

    One that was killed between the two steps of `_appear` leaves the old domain and the new, of
    which the new one, which is complete, gets the path.
    """
    folder, _, name = path.rpartition("/")
    start = f"{folder}/.{name}."
    # Of domains that are not hidden there may be many.
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
    """Delete an unfinished domain, but not what it shares with the finished one."""
    mine = _root(client, part)
    if mine is not None:
        keep = {"keep_root": 1} if mine == _root(client, path) else {}
        client.delete("/", part, **keep)
