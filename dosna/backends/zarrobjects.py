"""A dataset as the objects of a Zarr v3 array, for programs that read Zarr.

A backend that stores Zarr gives the objects as they are stored. For any other, they are made when
they are asked for: the document, and chunks without compression.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from crc32c import crc32c

from dosna.codecs import zarr as zarr3
from dosna.core.types import Array, Shape
from dosna.core.values import plain_fields

if TYPE_CHECKING:
    from dosna.backends.dataset import BackendDataset

__all__ = ["MadeObjects", "ZarrFile", "ZarrObject", "ZarrObjects", "in_grid"]


class ZarrObject(NamedTuple):
    """A part of an object, or none of it.

    Attributes
    ----------
    data : bytes or memoryview
        The bytes that were asked for.
    size : int
        The size of the whole object in bytes.
    version : str
        A text that differs for other bytes; '' if there is none that can be relied upon.
    """

    data: bytes | memoryview
    size: int
    version: str


class ZarrFile(NamedTuple):
    """An open file that is an object.

    Attributes
    ----------
    file : int
        The descriptor, which is closed with the last reference to it.
    size : int
        The size in bytes.
    version : str
        As that of `ZarrObject`.
    """

    file: int
    size: int
    version: str


class ZarrObjects(ABC):
    """The objects of an array: its document, and one for each chunk or shard."""

    most_bytes: int | None
    """The most bytes that a chunk or shard can have, roughly; None if that is not known."""

    on_own_disk: bool = False
    """True if objects are read from a disk of this machine, without further work."""

    @abstractmethod
    def document(self) -> bytes:
        """Return the ``zarr.json`` of the array as it is now.

        Raises
        ------
        DatasetNotFoundError
            The dataset was deleted.
        TypeError
            Zarr does not have the dtype.
        """

    @abstractmethod
    def index(self, key: str) -> Shape | None:
        """Return the index of the chunk or shard with a key; None if the array has no such key.

        Parameters
        ----------
        key : str
            The key below the array's, such as ``c/0/1``.
        """

    @abstractmethod
    def get(
        self, idx: Shape, start: int | None = None, stop: int | None = None
    ) -> ZarrObject | None:
        """Return a part of a chunk or shard; None if it was never written, and reads as fill.

        Parameters
        ----------
        idx : tuple of int
            The index that `index` has returned.
        start, stop : int, optional
            The range of bytes, which is cut off at the end; by default all. A negative `start`
            counts from the end, and has no `stop`. The result is empty where the range is.
        """

    def open(self, idx: Shape) -> ZarrFile | None:
        """Return the file that a chunk or shard is; None if it is absent, or not a file."""
        return None

    @abstractmethod
    def stat(self, idx: Shape) -> ZarrObject | None:
        """Return the size and the version of a chunk or shard, without bytes; None if absent."""


class MadeObjects(ZarrObjects):
    """The objects of a dataset that is not stored as Zarr.

    Parameters
    ----------
    dataset : BackendDataset
        The dataset.
    """

    def __init__(self, dataset: BackendDataset) -> None:
        self._dataset = dataset
        meta = dataset.metadata
        self._dtype = plain_fields(meta.dtype)[0]
        plain = meta.replace(
            dtype=self._dtype,
            fillvalue=_converted(meta.fill, self._dtype)[()],
            storage={},
            origin=None,
            link=None,
        )
        made = zarr3.new_array(plain, checksum=False, dims=dataset.dims)
        del made.storage["zarr"]["dosna"]  # an id, which would be another one each time
        self._described = made
        self._layout = zarr3.layout(made)
        self.most_bytes = self._layout.pipeline.size

    def document(self) -> bytes:
        return zarr3.to_json(self._described)

    def index(self, key: str) -> Shape | None:
        idx = self._layout.index(key)
        meta = self._described
        return idx if idx is not None and in_grid(idx, meta.shape, meta.chunk_size) else None

    def get(
        self, idx: Shape, start: int | None = None, stop: int | None = None
    ) -> ZarrObject | None:
        dataset = self._dataset
        # Before the chunk is read, so that a newer chunk may have the older version.
        version = dataset.versions([idx])[0]
        if not dataset.has_chunk(idx):
            return None
        chunk = dataset.get_chunk_data(idx)
        if np.shape(chunk) != self._described.chunk_size:
            chunk = dataset.padded(idx, chunk)
        # The element of an array without axes has lost its byte order, and text its length.
        chunk = np.asarray(chunk, dataset.metadata.dtype)
        parts = self._layout.pipeline.encode(_converted(chunk, self._dtype))
        data = memoryview(parts[0] if len(parts) == 1 else b"".join(parts)).cast("B")
        # Versions of files are of clocks that move in steps.
        version = version or hashlib.blake2b(data, digest_size=12).hexdigest()
        version = f"{version}.{crc32c(data):08x}"
        return ZarrObject(data[start:stop], len(data), version)

    def stat(self, idx: Shape) -> ZarrObject | None:
        found = self.get(idx)
        return found and found._replace(data=b"")


def in_grid(idx: Shape, shape: Shape, grain: Shape) -> bool:
    """Return True if a chunk or shard of an extent holds elements of an array."""
    return all(i * g < n for i, g, n in zip(idx, grain, shape, strict=True))


def _converted(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return structured values in a dtype without gaps, in which Zarr has them."""
    if dtype.names is None or values.dtype == dtype:
        return values
    packed, view = plain_fields(values.dtype)
    out = np.empty(values.shape, packed)
    seen = np.ascontiguousarray(values).view(view)
    for name in packed.names or ():
        out[name] = seen[name]
    return out
