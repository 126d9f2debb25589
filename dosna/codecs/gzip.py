"""The codec ``gzip`` of Zarr v3, by Python's own zlib."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dosna.codecs.base import Buffer, BytesBytesCodec, CodecError, CodecKind, check_option
from dosna.core.text import MOST_BYTES
from dosna.core.types import Array

__all__ = ["KIND", "Gzip"]

_WBITS = 31  # of zlib: a header and a trailer of gzip around 32 KiB of window


class Gzip(BytesBytesCodec):
    """Compression by gzip.

    Parameters
    ----------
    level : int
        The level of the compression, 0 (none) to 9 (small).
    """

    def __init__(self, level: int) -> None:
        self.level = check_option("level", level, range(10))

    @classmethod
    def configuration(cls, options: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
        return {"level": 5, **options}

    def encode(self, data: Buffer) -> list[Buffer]:
        return [zlib.compress(data, self.level, _WBITS)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # One byte more than is wanted is enough to tell that there are too many.
        most = (MOST_BYTES if into is None else len(into)) + 1
        found = b""
        while True:
            member = zlib.decompressobj(_WBITS)
            found += member.decompress(data, most - len(found))
            if not member.eof or len(found) >= most:
                raise CodecError("the gzip stream is cut off or too long")
            if not member.unused_data:
                return found
            data = memoryview(member.unused_data)


KIND = CodecKind("gzip", Gzip)
