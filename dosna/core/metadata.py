"""The metadata of a dataset, and its JSON form, which is the same for every backend.

The document is plain JSON, so that any language can read it. NumPy values that JSON lacks
(dtypes with fields, NaN, complex numbers, arrays) are written as small tagged objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from dosna.core.text import element_bytes, is_text
from dosna.core.types import Shape
from dosna.core.values import (
    as_dtype,
    check_dtype,
    check_fillvalue,
    decode_dtype,
    decode_value,
    encode_attrs,
    encode_dtype,
    encode_value,
)
from dosna.errors import ConfigurationError, FormatError

FORMAT_VERSION = 1
"""The version of the metadata document. A reader refuses any document with a higher number."""

TARGET_CHUNK_BYTES = 1 << 20
"""The approximate size of automatically chosen chunks, in bytes."""

_MOST_AXES = 64
_MOST = (1 << 63) - 1


class ChunkBounds(NamedTuple):
    """The part of a chunk that lies inside the array, in the coordinates of both."""

    array: tuple[slice, ...]
    chunk: tuple[slice, ...]


@dataclass(frozen=True)
class DatasetMetadata:
    """Shape, type and chunking of a dataset, and further information that is stored with it.

    Parameters
    ----------
    shape : tuple of int
        The extent of each axis; an empty tuple describes a scalar.
    dtype : numpy.dtype
        The type of the elements.
    fillvalue : numpy scalar
        The value of every element of a chunk that was never written; its type is `dtype`.
    chunk_size : tuple of int
        The extent of a chunk on each axis, at least 1.
    attrs : mapping
        The user's attributes in their JSON form; see `encode_value`.
    storage : mapping
        JSON values that say how the backend stores the chunks (compression, checksum, …).
    trimmed : bool
        False while a shrink has published its new shape but may not have deleted the chunks
        that it cut off. The next extension of the array deletes them first.
    incomplete : bool
        True from the creation of a dataset until all of its data have been written, if its
        writing can be interrupted.
    origin : mapping, optional
        The source of the data, in JSON values.
    link : mapping, optional
        The source that a linked dataset shows, in JSON values; see
        `dosna.backends.linked.dataset`. The stored data are then the table of the places of its
        chunks, and all other metadata here describe that table.
    zones : mapping, optional
        The extremes of the chunks, in JSON values; see `dosna.core.zones`.
    """

    shape: Shape
    dtype: np.dtype[Any]
    fillvalue: Any
    chunk_size: Shape
    attrs: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    trimmed: bool = True
    incomplete: bool = False
    origin: Mapping[str, Any] | None = None
    link: Mapping[str, Any] | None = None
    zones: Mapping[str, Any] | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, because another thread may add a cached property while this is pickled.
        return dict(self.__dict__)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @cached_property
    def chunk_grid(self) -> Shape:
        """Number of chunks on each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_size, strict=True))

    @cached_property
    def total_chunks(self) -> int:
        return math.prod(self.chunk_grid)

    @cached_property
    def tiled(self) -> bool:
        """True if all chunks lie inside the array with their full extent."""
        return not any(n % c for n, c in zip(self.shape, self.chunk_size, strict=True))

    @cached_property
    def chunk_nbytes(self) -> int:
        """Size of one whole chunk in bytes, uncompressed."""
        return math.prod(self.chunk_size) * self.dtype.itemsize

    def bounds(self, idx: Shape) -> ChunkBounds:
        """Return the place of chunk `idx` in the array, and the part of it that lies inside."""
        starts = [i * c for i, c in zip(idx, self.chunk_size, strict=True)]
        stops = [
            min(s + c, n) for s, c, n in zip(starts, self.chunk_size, self.shape, strict=True)
        ]
        return ChunkBounds(
            tuple(slice(a, b) for a, b in zip(starts, stops, strict=True)),
            tuple(slice(0, b - a) for a, b in zip(starts, stops, strict=True)),
        )

    def contains(self, idx: Shape) -> bool:
        """Return True if the grid has a chunk `idx`."""
        return len(idx) == self.ndim and all(
            0 <= i < n for i, n in zip(idx, self.chunk_grid, strict=True)
        )

    @property
    def fill(self) -> np.ndarray[Any, Any]:
        """Fill value as an array without axes, of exactly the dtype."""
        return np.asarray(self.fillvalue, self.dtype)

    def fill_chunk(self) -> np.ndarray[Any, Any]:
        """Return a whole chunk of fill values that takes the memory of a single element."""
        return np.broadcast_to(self.fill, self.chunk_size)

    def empty_chunk(self) -> np.ndarray[Any, Any]:
        """Return a new whole chunk of fill values."""
        chunk = np.empty(self.chunk_size, self.dtype)
        chunk[...] = self.fillvalue
        return chunk

    def replace(self, **changes: Any) -> DatasetMetadata:
        return replace(self, **changes)

    def to_json(self) -> str:
        """Return the document that `from_json` reads."""
        return json.dumps(
            {
                "dosna_format": FORMAT_VERSION,
                "shape": list(self.shape),
                "dtype": encode_dtype(self.dtype),
                "fillvalue": encode_value(self.fillvalue),
                "chunk_size": list(self.chunk_size),
                "attrs": dict(self.attrs),
                "storage": dict(self.storage),
                "trimmed": self.trimmed,
                **self.loading,
            }
        )

    @property
    def loading(self) -> dict[str, Any]:
        """The fields of `LOADING` as a document has them, without those that are not set."""
        found: dict[str, Any] = {"incomplete": True} if self.incomplete else {}
        if self.origin is not None:
            found["origin"] = dict(self.origin)
        if self.link is not None:
            found["link"] = dict(self.link)
        if self.zones is not None:
            found["zones"] = dict(self.zones)
        return found

    @classmethod
    def from_json(cls, text: str, where: str = "metadata") -> DatasetMetadata:
        """Read a document of `to_json`.

        Raises
        ------
        FormatError
            The document has a newer format, or is broken. The message names `where`.
        """
        try:
            doc = json.loads(text)
            check_format_version(doc["dosna_format"], where)
            dtype = decode_dtype(doc["dtype"])
            shape = check_extents(doc["shape"], "shape", 0)
            chunk_size = check_extents(doc["chunk_size"], "chunk_size", 1)
            if len(shape) != len(chunk_size):
                raise ValueError(f"shape {shape} and chunk_size {chunk_size} differ in axes")
            return cls(
                shape,
                dtype,
                _scalar(decode_value(doc["fillvalue"]), dtype),
                chunk_size,
                doc["attrs"],
                doc["storage"],
                bool(doc["trimmed"]),
                *loading_of(doc),
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{where} is broken: {error!r}") from error


def _scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Convert a decoded fill value to a scalar of `dtype`."""
    if is_text(dtype):
        return check_fillvalue(value, dtype)
    return np.asarray(value).astype(dtype)[()]


LOADING = ("incomplete", "origin", "link", "zones")
"""The fields of `DatasetMetadata` that `loading_of` returns, in order."""


def loading_of(document: Mapping[str, Any]) -> tuple[bool, *tuple[Mapping[str, Any] | None, ...]]:
    """Read the fields that `DatasetMetadata.loading` put into a document."""
    origin, link, zones = (
        found if isinstance(found, Mapping) else None
        for found in (document.get(name) for name in LOADING[1:])
    )
    return document.get("incomplete") is True, origin, link, zones


def check_format_version(found: Any, where: str) -> None:
    """Raise FormatError if a format is newer than the one that this dosna writes."""
    if not isinstance(found, (int, np.integer)) or found < 1:
        raise FormatError(f"{where} has format version {found!r}, which is not a version")
    if found > FORMAT_VERSION:
        raise FormatError(
            f"{where} has format version {found}, and this dosna reads up to {FORMAT_VERSION}: "
            "update dosna to open it"
        )


def new_metadata(
    shape: int | Sequence[int] | None,
    dtype: DTypeLike | None,
    fillvalue: Any = None,
    chunk_size: int | Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> DatasetMetadata:
    """Check the arguments of a new dataset and choose what was left open.

    Raises
    ------
    ValueError, TypeError
        A shape, chunk size, dtype or fill value that cannot be stored.
    """
    if shape is None:
        raise ValueError("create_dataset needs shape= or data=: give one of them")
    full_shape = check_extents(shape, "shape")
    kind = check_dtype(as_dtype(np.float32 if dtype is None else dtype))
    if chunk_size is None:
        chunks = choose_chunk_size(full_shape, element_bytes(kind))
    else:
        chunks = check_extents(chunk_size, "chunk_size", 1)
        if len(chunks) != len(full_shape):
            raise ValueError(
                f"chunk_size {chunks} has {len(chunks)} axes and shape {full_shape} has "
                f"{len(full_shape)}: give one extent per axis"
            )
    fill = check_fillvalue(fillvalue, kind)
    return DatasetMetadata(full_shape, kind, fill, chunks, encode_attrs(attrs or {}))


def check_extents(value: int | Sequence[int], what: str, least: int = 0) -> Shape:
    """Return an extent for each axis as a tuple of int.

    Raises
    ------
    TypeError
        An extent is not an integer.
    ValueError
        An extent is less than `least`, or there is more than NumPy can count.
    """
    if isinstance(value, (int, np.integer)):
        value = (value,)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{what} must be made of integers, not {value!r}")
    values = tuple(value)
    if len(values) > _MOST_AXES:
        raise ValueError(f"{what} has {len(values)} axes, and NumPy has at most {_MOST_AXES}")
    for extent in values:
        if isinstance(extent, (bool, np.bool_)) or not isinstance(extent, (int, np.integer)):
            raise TypeError(f"{what} must be made of integers, not {extent!r}")
        if extent < least:
            raise ValueError(f"{what} {values} has an extent below {least}")
        if extent > _MOST:
            raise ValueError(f"{what} {values} has an extent above {_MOST}")
    return tuple(map(int, values))


def check_dims(dims: Sequence[str | None] | None, ndim: int) -> tuple[str | None, ...] | None:
    """Check that `dims` has a str or None for each axis, and return it as a tuple.

    Raises
    ------
    ConfigurationError
        The number or the type of the names is wrong.
    """
    if dims is None:
        return None
    names = list(dims)
    if (
        isinstance(dims, str)
        or len(names) != ndim
        or not all(name is None or isinstance(name, str) for name in names)
    ):
        raise ConfigurationError(f"dims names {ndim} axes by str or None, not {dims!r}")
    return tuple(names)


def choose_chunk_size(shape: Shape, itemsize: int, target: int = TARGET_CHUNK_BYTES) -> Shape:
    """Choose chunks of about `target` bytes, by halving the longest axis until they fit.

    The last of equally long axes is halved last, because neighbours on it are neighbours
    in memory. A chunk is therefore as close to a cube as the array allows, and its size is
    between half of `target` and `target`, unless the array is smaller or one element is larger.
    """
    chunks = [max(1, n) for n in shape]
    while math.prod(chunks) * itemsize > target and max(chunks, default=1) > 1:
        longest = chunks.index(max(chunks))
        chunks[longest] = -(-chunks[longest] // 2)
    return tuple(chunks)
