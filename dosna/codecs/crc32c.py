"""The checksum CRC-32C (Castagnoli, RFC 3720), and the codec ``crc32c`` of Zarr v3."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from crc32c import crc32c

from dosna.codecs.base import Buffer, BytesBytesCodec, CodecError, CodecKind
from dosna.core.types import Array

__all__ = ["CRC", "KIND", "WRONG", "Crc32c", "copy_checked"]

CRC = struct.Struct("<I")

WRONG = "the CRC-32C checksum is wrong: bytes were changed"

_BLOCK = 256 << 10


class Crc32c(BytesBytesCodec):
    """A CRC-32C behind the bytes."""

    def encoded_size(self, size: int | None) -> int | None:
        return None if size is None else size + CRC.size

    def encode(self, data: Buffer) -> list[Buffer]:
        return [data, CRC.pack(crc32c(data))]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        if len(data) < CRC.size:
            raise CodecError(f"{len(data)} bytes are too few for a checksum")
        body = data[: -CRC.size]
        if CRC.unpack(data[-CRC.size :])[0] != crc32c(body):
            raise CodecError(WRONG)
        return body


def copy_checked(data: memoryview, into: Array | None, checked: bool) -> int:
    """Copy bytes if `into` is given, and return their CRC-32C if `checked`, otherwise 0."""
    if into is None:
        return crc32c(data) if checked else 0
    source: Any = np.frombuffer(data, np.uint8)
    found = 0
    # The second pass over a block reads from the processor's cache.
    step = _BLOCK if checked else len(data)
    for start in range(0, len(data), step or 1):
        block = source[start : start + step]
        if checked:
            found = crc32c(block, found)
        into[start : start + step] = block
    return found


KIND = CodecKind("crc32c", Crc32c)
