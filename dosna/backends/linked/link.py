"""The link of a dataset to an array in a file, and the table of its chunks.

For a linked dataset, a connection stores a table. This is a dataset of int64 and shape (3, n): the
offset in the file, the number of bytes stored (0 for a chunk that was never written) and the
filter mask of each of the n chunks of the grid, in C order. `DatasetMetadata.link` of its metadata
says which array it stands for, in the form of `Link.to_json`. If there are few records, they are
kept in that link, and an array that is contiguous in its file has none. Then n is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.backends.linked.reader import Records
from dosna.codecs.hdf5 import Filter
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape
from dosna.core.values import decode_dtype, decode_value, encode_dtype, encode_value
from dosna.errors import FormatError
from dosna.io.bytefile import ByteFile
from dosna.io.cache import Cache
from dosna.io.opening import open_bytes
from dosna.io.s3.options import S3Options

__all__ = ["MOST_KEPT", "RECORDS_PER_CHUNK", "Link", "new_table", "write_records"]


MOST_KEPT = 64
"""The most chunks whose records are kept in the metadata, which saves the requests of a table."""

RECORDS_PER_CHUNK = 1 << 14

_BLOCKS_WRITTEN = 64

_MOST_FILES = 128


@dataclass(frozen=True)
class Link:
    """The place and the form of the elements of an array in a file.

    Parameters
    ----------
    url : str
        The address of the file: an absolute path, or ``s3://bucket/key``.
    name : str
        The name of the array in the file.
    fingerprint : str
        The state of the file in which the places are right.
    shape, dtype, fillvalue, chunk_size
        The properties of the array. Its chunks are the file's own, or rows that lie together.
    filters : tuple
        The numbers and parameters of HDF5's filters, in the order of writing.
    offset : int, optional
        The position of the first element, if all lie together in C order.
    records : tuple of int, optional
        The records of all chunks, one after the other, if there are few chunks.
    dims : tuple of str or None, optional
        The names of the axes.
    options : mapping
        The options to reach a server, see `dosna.io.s3file.S3Options`; they hold no secrets.
    """

    url: str
    name: str
    fingerprint: str
    shape: Shape
    dtype: np.dtype[Any]
    fillvalue: Any
    chunk_size: Shape
    filters: tuple[Filter, ...] = ()
    offset: int | None = None
    records: tuple[int, ...] | None = None
    dims: tuple[str | None, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the value for `DatasetMetadata.link`."""
        return {
            "url": self.url,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "shape": list(self.shape),
            "dtype": encode_dtype(self.dtype),
            "fillvalue": encode_value(self.fillvalue),
            "chunk_size": list(self.chunk_size),
            "filters": [[code, list(values)] for code, values in self.filters],
            "offset": self.offset,
            "records": None if self.records is None else list(self.records),
            "dims": None if self.dims is None else list(self.dims),
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str) -> Link:
        """Return the link of a value of `to_json`, or raise FormatError."""
        try:
            dtype = decode_dtype(found["dtype"])
            return cls(
                found["url"],
                found["name"],
                found["fingerprint"],
                tuple(found["shape"]),
                dtype,
                np.asarray(decode_value(found["fillvalue"])).astype(dtype)[()],
                tuple(found["chunk_size"]),
                tuple((code, tuple(values)) for code, values in found["filters"]),
                found["offset"],
                None if found["records"] is None else tuple(found["records"]),
                None if found["dims"] is None else tuple(found["dims"]),
                dict(found["options"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the link of dataset {where} is damaged: {error!r}. Delete and link it again"
            ) from error

    def metadata(self, stored: DatasetMetadata) -> DatasetMetadata:
        """Return the metadata of the array, whose table has the metadata `stored`."""
        return stored.replace(
            shape=self.shape,
            dtype=self.dtype,
            fillvalue=self.fillvalue,
            chunk_size=self.chunk_size,
            storage={},
        )

    @property
    def tabled(self) -> bool:
        """True if the records are in a table."""
        return self.offset is None and self.records is None

    def open(self, keys: tuple[str, str] | None = None) -> ByteFile:
        """Open the file, pinned to its fingerprint; the whole process shares it.

        `keys`: the access key and the secret key of S3, where boto3 does not find them.
        """
        key = (self._key, keys)
        return _files.find(key) or _files.get(key, lambda: self._open(keys))

    def _open(self, keys: tuple[str, str] | None) -> ByteFile:
        found = open_bytes(self.url, S3Options(**self.options, keys=keys))
        found.pin(self.fingerprint)
        return found

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        return (self.url, self.fingerprint, *sorted(self.options.items()))


_files: Cache[ByteFile] = Cache(_MOST_FILES)


def new_table(link: Link, attrs: Mapping[str, Any]) -> DatasetMetadata:
    """Return the metadata of the table to store for a link; its records are written later."""
    grid = link.metadata(new_metadata((), "u1")).total_chunks
    count = grid if link.tabled else 0
    records = max(1, min(count, RECORDS_PER_CHUNK))
    made = new_metadata((3, count), "<i8", chunk_size=(3, records), attrs=attrs)
    return made.replace(link=link.to_json())


def write_records(table: BackendDataset, numbers: Array, records: Records) -> None:
    """Write the records of the chunks with the given numbers to a table that is still empty."""
    size = table.metadata.chunk_size[1]
    order = np.argsort(numbers)
    numbers, records = numbers[order], records[:, order]
    blocks = np.unique(numbers // size)
    for some in np.array_split(blocks, -(-len(blocks) // _BLOCKS_WRITTEN)) if len(blocks) else ():
        values = np.zeros((3, len(some) * size), np.int64)
        tasks = []
        for place, block in enumerate(some.tolist()):
            first, last = np.searchsorted(numbers, (block * size, (block + 1) * size))
            columns = numbers[first:last] - block * size + place * size
            values[:, columns] = records[:, first:last]
            inside = table.metadata.bounds((0, block)).chunk
            out = slice(place * size, place * size + inside[1].stop)
            tasks.append(ChunkTask((0, block), inside, (slice(0, 3), out), True))
        table.write_many(values, tasks)
