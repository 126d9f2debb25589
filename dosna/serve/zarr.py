"""``/zarr/…``: all datasets as one Zarr v3 hierarchy.

Stored bytes are passed on unchanged if they are Zarr, and are encoded otherwise. Files on a web
server cannot be listed, so each group contains the metadata of everything in it (inline
consolidated metadata), by which zarr-python and xarray find its members.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from dosna.array.dataset import EngineDataset
from dosna.backends.zarrobjects import MadeObjects, ZarrObjects
from dosna.codecs import zarr as zarr3
from dosna.core import stopping
from dosna.core.names import parents
from dosna.core.types import Json, Shape
from dosna.core.values import encode_attrs
from dosna.errors import DosnaError, Stopped
from dosna.io.cache import Cache
from dosna.serve.ranges import (
    FileAnswer,
    Wanted,
    answer,
    check_same,
    etag_of,
    matches,
    not_modified,
    wanted,
)
from dosna.serve.served import Served
from dosna.web.answers import Refusal
from dosna.web.budget import sharing

__all__ = ["routes"]

_MOST_LISTED = 10_000
"""Datasets up to which a group has the documents of all of them."""

_LONGEST = 2000
_OLD = {*zarr3.VERSION_2, ".zattrs", ".zmetadata"}
_DEFAULT = re.compile(r"(?:^|/)(c(?:(?:/\d+)+|(?:\.\d+)+)?)$")
_NUMBERS = re.compile(r"\d+")
_DOTTED = re.compile(r"\d+(?:\.\d+)+")
_THREADS = 8
_HINT = "ask for parts of it by ranges"
_MOST_QUICK = 8 << 20


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes below ``/zarr``."""
    return [Route("/zarr/{key:path}", _Hierarchy(served), methods=["GET", "HEAD"])]


class _Hierarchy:
    """The served datasets, as objects by key."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._objects: Cache[tuple[EngineDataset, ZarrObjects]] = Cache(1000)
        self._threads = ThreadPoolExecutor(_THREADS, "dosna-serve")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for an object."""
        request = Request(scope)
        key: str = request.path_params["key"]
        if self._is_quick(key):
            response = self._answer(request, key)
        else:
            response = await run_in_threadpool(self._answer, request, key)
        await response(scope, receive, send)

    def _is_quick(self, key: str) -> bool:
        """Return True if answering takes less time than a thread, as for cached files."""
        for name, _ in _splits(key) if len(key) <= _LONGEST else ():
            kept = self._objects.peek(name)
            if kept is not None and self._served.keeps(name, kept[0]):
                return _is_quick(kept[1])
        return False

    def _answer(self, request: Request, key: str) -> Response:
        if len(key) > _LONGEST:
            raise Refusal(414, "the key is too long")
        above, _, last = f"/{key}".rpartition("/")
        if last == zarr3.DOCUMENT:
            return self._answer_document(request, self._document(above[1:]))
        if last in _OLD:
            raise _nothing()
        return self._answer_chunk(request, key)

    # -- documents ------------------------------------------------------------------------

    def _answer_document(self, request: Request, data: bytes) -> Response:
        self._served.limits.check_bytes(len(data), "open the arrays in it by their names")
        etag = etag_of(hashlib.blake2b(data, digest_size=12).hexdigest())
        check_same(request, etag)
        if matches(request.headers.get("if-none-match"), etag):
            return not_modified(etag)
        part = wanted(request, etag)
        size = len(data)
        return answer(part, data[part.start : part.stop], size, etag, "application/json")

    def _document(self, name: str) -> bytes:
        served = self._served
        found = self._array(name) if served.check(name) else None
        if found is not None:
            return found
        if not served.is_group(name):
            raise _nothing()
        document = self._group(name)
        names = served.names_in(name)
        if len(names) <= _MOST_LISTED:
            document["consolidated_metadata"] = {
                "kind": "inline",
                "must_understand": False,
                "metadata": self._members(name, names),
            }
        return json.dumps(document).encode()

    def _array(self, name: str) -> bytes | None:
        """Return the metadata of a dataset, or None if there is no such dataset."""
        try:
            return self._served.dataset(name, fresh=True).zarr_objects().document()
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            return None
        except TypeError:
            raise Refusal(415, "Zarr does not have the type of this dataset") from None

    def _group(self, name: str) -> Json:
        attrs = encode_attrs(self._served.attrs_of_group(name))
        document: Json = json.loads(zarr3.with_attributes(zarr3.GROUP, attrs, "zarr.json"))
        return document

    def _members(self, group: str, names: list[str]) -> dict[str, Json]:
        """Return the metadata of all datasets in a group and of the groups above them."""
        start = len(group) + 1 if group else 0
        groups = {above for name in names for above in parents(name) if len(above) > start}
        stop = stopping.current.get()

        def read(name: str) -> Json | None:
            if stop is not None:
                stop.check()
            if name in groups:
                return self._group(name)
            try:
                found = self._array(name)
                document: Json | None = None if found is None else json.loads(found)
            except Stopped:
                raise
            except (DosnaError, ValueError, TypeError):
                return None  # a dataset that cannot be opened does not hide the others
            return document

        listed = sorted({*groups, *names})
        documents = zip(listed, self._threads.map(read, listed), strict=True)
        return {name[start:]: found for name, found in documents if found is not None}

    # -- chunks ---------------------------------------------------------------------------

    def _answer_chunk(self, request: Request, key: str) -> Response:
        self._served.check(key)
        for name, rest in _splits(key):
            there = False
            try:
                self._served.dataset(name)
                there = True
                return self._served.read(name, partial(self._chunk, request, rest))
            except Refusal as refusal:
                if refusal.status == 404 and self._was_deleted(name):
                    # Clients that have its document would take 404 for a chunk of fill values.
                    raise Refusal(409, "the dataset was deleted meanwhile") from None
                if there or refusal.status != 404:
                    raise
        raise _nothing()

    def _was_deleted(self, name: str) -> bool:
        """Return True if a dataset has been read from, and its handle was dropped since."""
        return self._objects.peek(name) is not None and not self._served.is_open(name)

    def _chunk(self, request: Request, key: str, ds: EngineDataset) -> Response:
        objects = self._objects_of(ds)
        idx = objects.index(key)
        if idx is None:
            raise _nothing()
        head, condition = request.method == "HEAD", request.headers.get("if-none-match")
        part, limits = wanted(request), self._served.limits
        most = _most_bytes(objects, part)
        large = most is None or (limits.most_bytes is not None and most > limits.most_bytes)
        if head or condition or "if-range" in request.headers or large:
            found = objects.stat(idx)
            if found is None:
                raise _nothing()
            etag = etag_of(found.version)
            check_same(request, etag)
            if matches(condition, etag):
                return not_modified(etag)
            if head:
                return answer(part, b"", found.size, etag, head=True)
            part = wanted(request, etag)
            start, stop, _ = slice(part.start, part.stop).indices(found.size)
            most = stop - start
            limits.check_bytes(most, _HINT)
        # What is made is made whole, whatever part of it is sent.
        whole = objects.most_bytes if isinstance(objects, MadeObjects) else None
        with sharing(whole or most or 0):
            return self._read(request, objects, idx, part)

    def _read(self, request: Request, objects: ZarrObjects, idx: Shape, part: Wanted) -> Response:
        file = objects.open(idx) if _is_quick(objects) and not part.is_part else None
        if file is not None:
            self._served.limits.check_bytes(file.size, _HINT)
            etag = etag_of(file.version)
            check_same(request, etag)
            return FileAnswer(file, etag)
        found = objects.get(idx, part.start, part.stop)
        if found is None:
            raise _nothing()
        etag = etag_of(found.version)
        check_same(request, etag)
        return answer(part, found.data, found.size, etag)

    def _objects_of(self, ds: EngineDataset) -> ZarrObjects:
        kept = self._objects.find(ds.name)
        if kept is None or kept[0] is not ds:
            try:
                kept = (ds, ds.zarr_objects())
            except TypeError:
                raise Refusal(415, "Zarr does not have the type of this dataset") from None
            self._objects.put(ds.name, kept)
        return kept[1]


def _most_bytes(objects: ZarrObjects, part: Wanted) -> int | None:
    """Return the most bytes that a part of an object has, roughly; None if that is unknown."""
    whole, (start, stop) = objects.most_bytes, part
    if start is None:
        return whole
    length = -start if start < 0 else whole if stop is None else stop - start
    return length if whole is None or length is None else min(length, whole)


def _is_quick(objects: ZarrObjects) -> bool:
    """Return True if an object is read from an own disk in less time than a thread takes."""
    return objects.on_own_disk and 0 < (objects.most_bytes or 0) <= _MOST_QUICK


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to split a key into the name of an array and the key of a chunk."""
    found = _DEFAULT.search(key)
    if found is not None and found.start(1) > 0:
        yield key[: found.start(1) - 1], found[1]
    parts = key.split("/")
    if _DOTTED.fullmatch(parts[-1]):
        yield "/".join(parts[:-1]), parts[-1]
    first = len(parts)
    while first > 1 and _NUMBERS.fullmatch(parts[first - 1]):
        first -= 1
    for at in range(max(1, first), len(parts)):
        yield "/".join(parts[:at]), "/".join(parts[at:])


def _nothing() -> Refusal:
    return Refusal(404, "there is no such object")
