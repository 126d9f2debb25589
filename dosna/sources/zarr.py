"""Zarr arrays and groups, of versions 2 and 3, read by zarr-python."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from array import array as ints
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.core.dtype import VariableLengthUTF8
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from dosna.errors import DosnaError, SourceError, SourceNotFoundError
from dosna.metadata import check_dtype
from dosna.registry import SourceKind, sources
from dosna.sources.base import Array, ArrayDescription, Box, Source
from dosna.sources.files import S3Options
from dosna.sources.strings import blocks, fixed, measure

__all__ = ["KIND", "ZarrSource"]


class ZarrSource(Source):
    """The arrays of a Zarr group, by their paths in it, or one array.

    Parameters
    ----------
    location : str or zarr.Array, zarr.Group
        A folder, an ``s3://bucket/prefix`` URL, or something open.
    inner : str
        An array or a group in it; all by default.
    endpoint_url, profile_name, region_name, verify, timeout, retries
        Of an S3 server, as of a connection of the backend s3.
    """

    def __init__(
        self,
        location: Any,
        inner: str = "",
        *,
        endpoint_url: str | None = None,
        profile_name: str = "default",
        region_name: str | None = None,
        verify: bool | str = True,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._options = S3Options(
            endpoint_url, profile_name, region_name, verify, timeout, retries
        )
        self._given = not isinstance(location, str)
        self._opening = secrets.token_hex(8)
        self._node: Any = location if self._given else None
        super().__init__(str(location.store_path) if self._given else location, inner.strip("/"))
        self._arrays: dict[str, Any] | None = None
        self._texts: dict[str, tuple[np.dtype[Any], str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        if self._given:
            raise TypeError(f"{self!r} is an open object, and cannot be sent to another process")
        return {**super().__getstate__(), "_node": None, "_arrays": None}

    @property
    def travels(self) -> bool:
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
                self._node = self._arrays = None

    @property
    def single(self) -> bool:
        return isinstance(self._opened(), zarr.Array)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        if self._remote:
            bucket, prefix = self._place
            client = self._options.client(self.location)
            for page in client.pages(bucket, prefix + "/"):
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
            # What is open may be in any store, and nobody tells whether it was written to since.
            digest.update(self._opening.encode())
            for name, array in sorted(self._found().items()):
                known = (name, array.shape, str(array.dtype), array.chunks, sorted(array.attrs))
                digest.update(repr(known).encode())
        return digest.hexdigest()

    def names(self) -> list[str]:
        return sorted(self._found())

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        node = self._opened()
        if isinstance(node, zarr.Array):
            return {}
        groups = {name: found for name, found in _members(node) if isinstance(found, zarr.Group)}
        return {self.inner: dict(node.attrs)} | {
            self._named(name): dict(group.attrs) for name, group in groups.items()
        }

    def describe(self, name: str) -> ArrayDescription:
        array = self._array(name)
        dtype, notes = self._dtype(name, array)
        refused = ""
        try:
            check_dtype(dtype)
            refused = self._texts[name][1] if name in self._texts else ""
        except TypeError as error:
            refused = str(error)
        if refused:
            return ArrayDescription(name, refused=refused)
        fill = array.fill_value
        attrs = dict(array.attrs)
        # How xarray names the axes in version 2.
        dims = getattr(array.metadata, "dimension_names", None) or attrs.get("_ARRAY_DIMENSIONS")
        return ArrayDescription(
            name,
            tuple(array.shape),
            dtype,
            attrs,
            chunks=tuple(array.shards or array.chunks) if array.shape else None,
            dims=None if dims is None else tuple(dims),
            fillvalue=None if notes or fill is None else np.asarray(fill, dtype)[()],
            notes=notes,
        )

    def stored(self, name: str) -> Array | None:
        array = self._array(name)
        chunks = array.shards or array.chunks
        store, path = array.store_path.store, array.store_path.path
        if name in self._texts or not array.shape or not store.supports_listing:
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
        array = self._array(name)
        try:
            found = np.asarray(array[box if box else ...])
        except DosnaError:
            raise
        except Exception as error:
            raise SourceError(
                f"{name!r} of {self.location} cannot be read: it is damaged, or its codecs are "
                f"missing ({type(error).__name__}: {error})"
            ) from error
        if name in self._texts:
            return fixed(found, self._texts[name][0])
        return found

    def _dtype(self, name: str, array: Any) -> tuple[np.dtype[Any], tuple[str, ...]]:
        kind = array.metadata.dtype if hasattr(array.metadata, "dtype") else None
        if kind is None:
            kind = array.metadata.data_type
        if not isinstance(kind, VariableLengthUTF8):
            return np.dtype(array.dtype), ()
        if name not in self._texts:
            parts = (np.asarray(array[box if box else ...]) for box in blocks(array.shape))
            self._texts[name] = measure(array.shape, parts)
        dtype = self._texts[name][0]
        return dtype, (f"its strings of variable length are kept as {dtype}",)

    def _opened(self) -> Any:
        with self._lock:
            if self._node is None:
                store: Any = self.location
                if self._remote:
                    client = self._options.client(self.location)
                    store = ObjectStore(client.objects_of(*self._place), read_only=True)
                elif not os.path.isdir(self.location):
                    raise SourceNotFoundError(f"there is no folder {self.location}")
                try:
                    self._node = zarr.open(store, mode="r", path=self.inner or None)
                except (FileNotFoundError, KeyError) as error:
                    raise SourceNotFoundError(
                        f"{self.location} has no Zarr array or group {self.inner!r}: {error}"
                    ) from None
                except (ValueError, TypeError) as error:
                    raise SourceError(
                        f"{self.location} is damaged, or no Zarr: {error}"
                    ) from error
            return self._node

    def _found(self) -> dict[str, Any]:
        with self._lock:
            if self._arrays is None:
                node = self._opened()
                if isinstance(node, zarr.Array):
                    own = self.inner or node.basename or os.path.basename(self.location)
                    self._arrays = {own.removesuffix(".zarr"): node}
                else:
                    self._arrays = {
                        self._named(name): found
                        for name, found in _members(node)
                        if isinstance(found, zarr.Array)
                    }
            return self._arrays

    def _named(self, name: str) -> str:
        return f"{self.inner}/{name}" if self.inner else name

    def _array(self, name: str) -> Any:
        try:
            return self._found()[name]
        except KeyError:
            raise SourceNotFoundError(f"{self!r} has no array {name!r}") from None


def _keys_of(array: Any) -> str:
    """Return an expression for the keys of chunks, whose group has the numbers."""
    encoding = getattr(array.metadata, "chunk_key_encoding", None)
    if encoding is None:
        kind, separator = "v2", array.metadata.dimension_separator
    else:
        kind, separator = encoding.name, encoding.separator
    between = re.escape(separator)
    numbers = rf"(\d{{1,18}}(?:{between}\d{{1,18}})*)"
    return numbers if kind == "v2" else f"c{between}{numbers}"


def _members(group: Any) -> Iterator[tuple[str, Any]]:
    found: Iterator[tuple[str, Any]] = iter(group.members(max_depth=None))
    return found


KIND = SourceKind(
    name="zarr",
    source=ZarrSource,
    claims=sources.claims()["zarr"],
    description="Zarr arrays and groups of versions 2 and 3",
    url="https://zarr.dev",
)
