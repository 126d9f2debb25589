"""Objects that hold many chunks: the codec ``sharding_indexed`` of Zarr v3.

https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from dosna.codecs.arrays import byte_order
from dosna.codecs.base import Buffer, CodecError
from dosna.codecs.kinds import name_of
from dosna.codecs.pipeline import Pipeline
from dosna.core.types import Shape
from dosna.errors import FormatError

__all__ = ["NO_CHUNK", "Shards"]

NO_CHUNK = 2**64 - 1
"""The offset and the length of a chunk that a shard does not hold."""


class Shards:
    """Objects that hold many chunks each, and an index of them.

    Parameters
    ----------
    specs : mapping
        The configuration of ``sharding_indexed``.
    grain : tuple of int
        The extent of a shard.
    dtype : dtype
        The type of the elements; its byte order is that of the codec ``bytes``.
    where : str
        The name of the document in errors.

    Attributes
    ----------
    chunk_size : tuple of int
        The extent of a chunk in a shard.
    counts : tuple of int
        The number of chunks of a shard along each axis.
    total : int
        The number of chunks of a shard.
    index_range : tuple
        The byte range of the index: ``(0, n)``, or ``(-n, None)`` at the end.
    pipeline : Pipeline
        The codecs of the chunks.
    """

    def __init__(
        self, specs: Mapping[str, Any], grain: Shape, dtype: np.dtype[Any], where: str
    ) -> None:
        unknown = set(specs) - {"chunk_shape", "codecs", "index_codecs", "index_location"}
        if unknown:
            raise FormatError(f"{where}: sharding_indexed has unknown options: {sorted(unknown)}")
        size = tuple(specs.get("chunk_shape", ()))
        if len(size) != len(grain) or any(
            type(c) is not int or c < 1 or g % c for g, c in zip(grain, size, strict=True)
        ):
            raise FormatError(f"{where}: shards of {grain} cannot be cut into chunks of {size}")
        location = specs.get("index_location", "end")
        if location not in ("start", "end"):
            raise FormatError(f"{where}: sharding_indexed has index_location {location!r}")
        inner = specs.get("codecs", [])
        if any(name_of(spec) == "sharding_indexed" for spec in inner):
            raise FormatError(f"{where}: shards within shards are not supported")
        self.grain, self.chunk_size = grain, size
        self.counts = tuple(g // c for g, c in zip(grain, size, strict=True))
        self.pipeline = Pipeline(inner, dtype, size, where)
        self.total = math.prod(self.counts)
        self._at_start = location == "start"
        codecs = specs.get("index_codecs", [])
        kind = np.dtype("u8").newbyteorder(byte_order(codecs))
        self._index = Pipeline(codecs, kind, (*self.counts, 2), where)
        if not self._index.plain or self._index.size is None:
            raise FormatError(
                f"{where}: index_codecs must be bytes and crc32c, and are {codecs!r}"
            )
        self.index_size = self._index.size
        self.index_range = (0, self.index_size) if self._at_start else (-self.index_size, None)

    def index(self, data: Buffer) -> list[list[int]]:
        """Decode an index: the offset and the length of each chunk, in C order.

        Raises
        ------
        CodecError
            The bytes are not those of an index.
        """
        if len(data) != self.index_size:
            raise CodecError(f"an index has {self.index_size} bytes, and there are {len(data)}")
        found = self._index.decode(data, None).reshape(-1, 2)
        listed: list[list[int]] = found.tolist()
        for start, size in listed:
            if start != NO_CHUNK and (size == 0 or start + size >= 1 << 63):
                raise CodecError(f"the index has a chunk of {size} bytes at {start}")
        return listed

    def index_of(self, shard: memoryview) -> list[list[int]]:
        """Read the index of a whole shard."""
        if len(shard) < self.index_size:
            raise CodecError(f"{len(shard)} bytes are too few for a shard")
        return self.index(
            shard[: self.index_size] if self._at_start else shard[-self.index_size :]
        )

    def split(self, shard: Buffer) -> list[memoryview | None]:
        """Return the encoded chunks of a whole shard, in C order, with None for missing ones."""
        view = memoryview(shard)
        index = self.index_of(view)
        if any(start + size > len(view) for start, size in index if start != NO_CHUNK):
            raise CodecError("the index of the shard points beyond its end")
        return [None if start == NO_CHUNK else view[start : start + size] for start, size in index]

    def join(self, chunks: Sequence[list[Buffer] | None]) -> list[Buffer]:
        """Return the parts of a shard for its encoded chunks, each in parts, in C order."""
        index = np.empty((len(chunks), 2), self._index.dtype)
        place = self.index_size if self._at_start else 0
        parts: list[Buffer] = []
        for number, chunk in enumerate(chunks):
            if chunk is None:
                index[number] = NO_CHUNK
                continue
            size = sum(len(part) for part in chunk)
            index[number] = place, size
            place += size
            parts += chunk
        head = self._index.encode(index.reshape(self._index.shape))
        return [*head, *parts] if self._at_start else [*parts, *head]

    def number(self, local: Shape) -> int:
        """Return the place of a chunk of a shard in the shard's index."""
        place = 0
        for i, n in zip(local, self.counts, strict=True):
            place = place * n + i
        return place

    def chunk(self, shard: Shape, local: Shape) -> Shape:
        """Return the index of a chunk of a shard in the chunk grid of the array."""
        return tuple([s * n + i for s, n, i in zip(shard, self.counts, local, strict=True)])

    def locals(self) -> Iterator[Shape]:
        """Return an iterator over the chunks of a shard, in the order of the index."""
        return product(*map(range, self.counts))
