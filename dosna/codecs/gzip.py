"""The codec ``gzip`` of Zarr v3, by libdeflate or zlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dosna.codecs.base import Buffer, BytesBytesCodec, CodecKind, check_option
from dosna.codecs.deflate import compress_gzip, decompress_gzip
from dosna.core.text import MOST_BYTES
from dosna.core.types import Array

__all__ = ["KIND", "Gzip"]


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
        return [compress_gzip(data, self.level)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        return decompress_gzip(data, MOST_BYTES if into is None else len(into))


KIND = CodecKind("gzip", Gzip)
