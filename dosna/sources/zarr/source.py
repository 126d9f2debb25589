"""Zarr arrays and groups, of versions 2 and 3, read by zarr-python."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from array import array as ints
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
from zarr.core.sync import sync
from zarr.dtype import VariableLengthUTF8
from zarr.storage import LocalStore

from dosna.backends.base import BackendConnection
from dosna.backends.zarr import FileConnection
from dosna.codecs.zarr.attributes import FILL_VALUE
from dosna.columns.description import without_source
from dosna.core.text import TEXT, as_text
from dosna.core.types import Array, Box, Shape
from dosna.core.values import check_dtype, decode_attrs
from dosna.errors import DosnaError, SourceError, SourceNotFoundError
from dosna.io.failure import Failure
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.errors import Converting
from dosna.sources.kinds import SourceKind, registry
from dosna.sources.naming import name_within
from dosna.sources.zarr.nodes import (
    DOCUMENTS,
    Node,
    described,
    documents_below,
    documents_of_members,
    documents_on_disk,
    first_document,
    open_node,
)

__all__ = ["KIND", "ZarrSource"]


_DIMENSIONS = "_ARRAY_DIMENSIONS"
"""The attribute in which xarray keeps the names of axes in version 2."""


class ZarrSource(Source):
    """The arrays of a Zarr group, by their paths in it, or one array.

    Parameters
    ----------
    location : str or zarr.Array, zarr.Group
        A folder, an ``s3://bucket/prefix`` URL, or an open object.
    inner : str
        An array or a group in it; everything by default.
    **options
        The server of an ``s3://`` URL, by the fields of `dosna.io.s3.options.S3Options`.
    """

    @takes_s3_options
    def __init__(self, location: Any, inner: str = "", **options: Any) -> None:
        self._options = S3Options(**options)
        self._given = not isinstance(location, str)
        self._opening = secrets.token_hex(8)
        self._open_object: Any = location if self._given else None
        self._store: Any = None
        super().__init__(str(location.store_path) if self._given else location, inner.strip("/"))
        self._found: dict[str, Node] | None = None
        self._single = False

    def unopened(self) -> dict[str, Any]:
        return {"_store": None, "_found": None}

    @property
    def picklable(self) -> bool:
        return not self._given

    @property
    def _remote(self) -> bool:
        return not self._given and self.location.startswith("s3://")

    @property
    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.location.removeprefix("s3://").partition("/")
        return bucket, prefix.strip("/")

    def close(self) -> None:
        with self._lock:
            if not self._given:
                if self._store is not None:
                    self._store.close()
                self._store = self._found = None

    @property
    def single(self) -> bool:
        self._nodes()
        return self._single

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        if self._remote:
            bucket, prefix = self._place
            client = open_client(self._options, self.location)
            for page in client.listed(bucket, prefix + "/", self.location):
                for found in page.get("Contents", ()):
                    digest.update(f"{found['Key']} {found['ETag']}\n".encode())
            client.close()
        elif not self._given:
            for folder, folders, files in os.walk(self.location):
                folders.sort()
                for name in sorted(files):
                    status = os.stat(os.path.join(folder, name))
                    path = os.path.relpath(os.path.join(folder, name), self.location)
                    digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        else:
            # An open object may be in any store. Stores do not tell if they were written to.
            digest.update(self._opening.encode())
            for name, node in sorted(self._nodes().items()):
                digest.update(f"{name} {node.document!r} {node.refused}\n".encode())
        return digest.hexdigest()

    def name_of(self, connection: BackendConnection, dataset: str) -> str | None:
        if self._given or self._remote or not isinstance(connection, FileConnection):
            return None
        return name_within(self.location, self.inner, f"{connection.location}/{dataset}")

    def names(self) -> list[str]:
        return sorted(name for name, node in self._nodes().items() if not node.is_group)

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        found = {name: node for name, node in self._nodes().items() if node.is_group}
        return {
            name: without_source(decode_attrs(node.attributes(self._where(name))))
            for name, node in found.items()
        }

    def describe(self, name: str) -> ArrayDescription:
        node = self._node(name)
        try:
            return node.refusal(name) or self._described(name, node)
        except DosnaError:
            raise
        except Exception as error:
            # Libraries may raise anything: for codecs, for grids, for damage.
            return ArrayDescription(name, refused=f"it cannot be read ({described(error)})")

    def _described(self, name: str, node: Node) -> ArrayDescription:
        array = node.array
        dtype = _dtype(array)
        try:
            check_dtype(dtype)
        except TypeError as error:
            return ArrayDescription(name, refused=str(error))
        fill = array.fill_value
        attrs = decode_attrs(node.attributes(self._where(name), dtype))
        dims = _dims(array, attrs)
        missing = dims is not None and array.metadata.zarr_format == 2 and fill is not None
        if missing and dtype.kind in "biufcSU":
            # In version 2, xarray's value for missing elements has no other place.
            attrs[FILL_VALUE] = np.asarray(fill, dtype)[()]
        if fill is None and dtype.kind in "mM":
            fill = "NaT"  # what zarr reads where nothing is stored, and not 1970
        return ArrayDescription(
            name,
            tuple(array.shape),
            dtype,
            attrs,
            chunks=_chunks(array),
            dims=dims,
            fillvalue=None if fill is None else np.asarray(fill, dtype)[()],
        )

    def stored(self, name: str) -> Array | None:
        array = self._node(name).array
        chunks = _chunks(array)
        store, path = array.store_path.store, array.store_path.path
        if chunks is None or not store.supports_listing:
            return None
        pattern = re.compile(_keys_of(array))
        prefix = f"{path}/" if path else ""
        axes, found = len(array.shape), ints("q")
        grid = [-(-n // c) for n, c in zip(array.shape, chunks, strict=True)]

        async def look() -> None:
            async for key in store.list_prefix(prefix):
                known = pattern.fullmatch(key.removeprefix(prefix))
                idx = [int(part) for part in re.findall(r"\d+", known[1])] if known else []
                if len(idx) == axes and all(i < n for i, n in zip(idx, grid, strict=True)):
                    found.extend(idx)

        sync(look())
        places = np.frombuffer(found, np.int64).reshape(-1, axes)
        return places if len(places) < prod(grid) else None

    def read(self, name: str, box: Box) -> Array:
        node = self._node(name)
        if node.refused:
            raise SourceError(f"{name!r} of {self.location}: {node.refused}")
        array = node.array
        with Converting(partial(self._unreadable, name)):
            found = np.asarray(array[box if box else ...])
        return as_text(found) if _dtype(array) == TEXT else found

    def _unreadable(self, name: str, error: Exception) -> DosnaError:
        if isinstance(error, Failure):
            return error.error(f"{self.location} cannot be read: {error}")
        return SourceError(
            f"{name!r} of {self.location} cannot be read: it is damaged, or its codecs are "
            f"missing ({type(error).__name__}: {error})"
        )

    def _where(self, name: str) -> str:
        return f"{self.location}/{name}" if name else self.location

    def _nodes(self) -> dict[str, Node]:
        """Return arrays and groups by name. Any that cannot be opened are refused, not lost."""
        with self._lock:
            if self._found is None:
                self._found = self._searched()
            return self._found

    def _searched(self) -> dict[str, Node]:
        store, top = self._opened()
        found: dict[str, Node] = {}
        above = ""
        for path, name in self._documents(store, top):
            if above and path.startswith(above):
                continue  # chunks of an array may have any names
            node = open_node(store, path, name)
            if node is None:
                continue
            inside = path[len(top) :].lstrip("/")
            if not node.is_group:
                above = f"{path}/"
                if not inside:
                    self._single = True
                    own = self.inner or path or os.path.basename(self.location.rstrip("/"))
                    if not self.inner:
                        own = own.rpartition("/")[2]
                    return {own.removesuffix(".zarr"): node}
            found["/".join(filter(None, [self.inner, inside]))] = node
        if not found:
            raise SourceNotFoundError(
                f"{self.location} has no Zarr array or group"
                + (f" {self.inner!r}" if self.inner else "")
            )
        # A group without a document, as TensorStore leaves it.
        found.setdefault(self.inner, Node({}, is_group=True))
        return found

    def _documents(self, store: Any, top: str) -> Iterator[tuple[str, str]]:
        """Yield the documents at and below a path, each by its folder and its name.

        Copies of documents in groups are not used: arrays may have been created, deleted or
        resized since. A folder comes before the folders in it.
        """
        if self._remote:
            bucket, prefix = self._place
            client = open_client(self._options, self.location)
            begin = "/".join(filter(None, [prefix, top]))
            keys = [
                found["Key"][len(prefix) :].lstrip("/")
                for page in client.listed(bucket, begin + "/" if begin else "", self.location)
                for found in page.get("Contents", ())
                if found["Key"].endswith(DOCUMENTS)
            ]
            client.close()
        elif self._given and not store.supports_listing:
            keys = documents_of_members(self._open_object)
        elif self._given:
            keys = sync(documents_below(store, top))
        else:
            yield from documents_on_disk(self.location, top)
            return
        places: dict[str, set[str]] = {}
        for key in keys:
            path, _, name = key.rpartition("/")
            if name in DOCUMENTS:
                places.setdefault(path, set()).add(name)
        for path in sorted(places, key=lambda path: path.split("/")):
            yield path, first_document(places[path])

    def _opened(self) -> tuple[Any, str]:
        """Open the store, and return it with the path of the source in it."""
        with self._lock:
            if self._store is None:
                if self._given:
                    self._store = self._open_object.store
                elif self._remote:
                    client = open_client(self._options, self.location)
                    from dosna.sources.zarr.s3store import S3Objects

                    self._store = S3Objects(client, *self._place)
                elif os.path.isdir(self.location):
                    self._store = LocalStore(self.location, read_only=True)
                else:
                    raise SourceNotFoundError(f"there is no folder {self.location}")
            above = self._open_object.path if self._given else ""
            return self._store, "/".join(filter(None, [above, self.inner]))

    def _node(self, name: str) -> Node:
        node = self._nodes().get(name)
        if node is None or node.is_group:
            raise SourceNotFoundError(f"{self} has no array {name!r}")
        return node


def _keys_of(array: Any) -> str:
    """Return a regular expression for the keys of chunks. Its group matches the numbers."""
    encoding = getattr(array.metadata, "chunk_key_encoding", None)
    if encoding is None:
        kind, separator = "v2", array.metadata.dimension_separator
    else:
        kind, separator = encoding.name, encoding.separator
    between = re.escape(separator)
    numbers = rf"(\d{{1,18}}(?:{between}\d{{1,18}})*)"
    return numbers if kind == "v2" else f"c{between}{numbers}"


def _dims(array: Any, attrs: dict[str, Any]) -> tuple[str | None, ...] | None:
    """Return the names of the axes, and remove them from the attributes."""
    names = getattr(array.metadata, "dimension_names", None)
    listed = attrs.get(_DIMENSIONS)
    if not isinstance(listed, list) or not all(n is None or isinstance(n, str) for n in listed):
        listed = None
    if listed is not None and len(listed) == array.ndim:
        names = listed if names is None else names
        if list(names) == listed:
            del attrs[_DIMENSIONS]
    return None if names is None else tuple(names)


def _chunks(array: Any) -> Shape | None:
    try:
        return tuple(array.shards or array.chunks) if array.shape else None
    except NotImplementedError:  # for a grid that is not regular
        return None


def _dtype(array: Any) -> np.dtype[Any]:
    kind = array.metadata.dtype if hasattr(array.metadata, "dtype") else None
    if kind is None:
        kind = array.metadata.data_type
    return TEXT if isinstance(kind, VariableLengthUTF8) else np.dtype(array.dtype)


KIND = SourceKind(
    name="zarr",
    source=ZarrSource,
    claims=registry.known["zarr"].about,
    description="Zarr arrays and groups of versions 2 and 3",
    url="https://zarr.dev",
)
