"""The codec ``zstd`` of Zarr v3, by numcodecs, which zarr-python uses too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numcodecs import zstd

from dosna.codecs.base import (
    Buffer,
    BytesBytesCodec,
    CodecError,
    CodecKind,
    check_option,
    check_size,
)
from dosna.core.types import Array

__all__ = ["KIND", "Zstd"]


class Zstd(BytesBytesCodec):
    """Compression by Zstandard.

    Parameters
    ----------
    level : int
        The level of the compression, up to 22 (small). Negative ones are faster.
    checksum : bool
        True to write a checksum of the contents.
    """

    def __init__(self, level: int, checksum: bool = False) -> None:
        self.level = check_option("level", level, range(-131072, 23))
        self.checksum = check_option("checksum", checksum, (False, True))

    @classmethod
    def configuration(cls, options: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
        return {"level": 3, "checksum": False, **options}

    def encode(self, data: Buffer) -> list[Buffer]:
        return [zstd.compress(data, self.level, self.checksum)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library accepts content that is shorter than the memory for it.
        size = _content_size(data)
        if into is None:
            check_size("zstd", size or 0, data)
        elif size == len(into):
            zstd.decompress(data, into)
            return into
        elif size is not None:
            raise CodecError(f"zstd decodes to {size} bytes instead of {len(into)}")
        return zstd.decompress(data)


def _content_size(data: memoryview) -> int | None:
    """Read the content size of a frame, or return None if it has none (RFC 8878, 3.1.1.1)."""
    if len(data) < 6 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise CodecError("it does not begin as zstd does")
    flags = data[4]
    single = flags >> 5 & 1
    place = 6 - single + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        return None
    return int.from_bytes(data[place : place + width], "little") + 256 * (width == 2)


KIND = CodecKind("zstd", Zstd)
