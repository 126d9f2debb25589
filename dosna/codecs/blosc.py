"""The codec ``blosc`` of Zarr v3, by numcodecs, which zarr-python uses too."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numcodecs import blosc

from dosna.codecs.base import (
    Buffer,
    BytesBytesCodec,
    CodecError,
    CodecKind,
    check_option,
    check_size,
)
from dosna.core.text import is_text
from dosna.core.types import Array

__all__ = ["KIND", "Blosc"]

# The engine's threads are enough, and blosc's own do not survive a fork.
blosc.use_threads = False

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

_COMPRESSORS = ("lz4", "lz4hc", "blosclz", "zstd", "snappy", "zlib")


class Blosc(BytesBytesCodec):
    """Compression by Blosc.

    Parameters
    ----------
    cname : str
        The compressor: 'lz4', 'lz4hc', 'blosclz', 'zstd', 'snappy' or 'zlib'.
    clevel : int
        The level of the compression, 0 (none) to 9 (small).
    shuffle : {'noshuffle', 'shuffle', 'bitshuffle'}
        The bytes or bits of the elements are put together before they are compressed.
    blocksize : int
        The size of a block in bytes; 0 leaves it to Blosc.
    typesize : int
        The size of an element in bytes, 1 to 255. It is needed if anything is shuffled.
    """

    def __init__(
        self,
        cname: str,
        clevel: int,
        shuffle: str = "noshuffle",
        blocksize: int = 0,
        typesize: int | None = None,
    ) -> None:
        check_option("shuffle", shuffle, tuple(_SHUFFLES))
        if typesize is None and shuffle == "noshuffle":
            typesize = 1
        self.arguments = (
            check_option("cname", cname, _COMPRESSORS).encode(),
            check_option("clevel", clevel, range(10)),
            _SHUFFLES[shuffle],
            check_option("blocksize", blocksize, range(1 << 31)),
            check_option("typesize", typesize, range(1, 256)),
        )

    @classmethod
    def configuration(cls, options: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
        shuffle, typesize = "shuffle" if dtype.itemsize > 1 else "bitshuffle", dtype.itemsize
        if is_text(dtype):
            shuffle = "noshuffle"
        if is_text(dtype) or typesize > 255:  # the field in blosc's format has one byte
            typesize = 1
        found = {"cname": "lz4", "clevel": 5, "shuffle": shuffle, "blocksize": 0}
        return {**found, "typesize": typesize, **options}

    @classmethod
    def options(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        # It depends on the dtype, which may be another in the new array.
        return {name: value for name, value in configuration.items() if name != "typesize"}

    def encode(self, data: Buffer) -> list[Buffer]:
        return [blosc.compress(data, *self.arguments)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library trusts these lengths, and would read or write beyond the end of the buffers.
        if len(data) < 16:
            raise CodecError(f"{len(data)} bytes are too few for blosc")
        decoded, _, encoded = struct.unpack_from("<III", data, 4)
        if encoded != len(data) or (into is not None and decoded != len(into)):
            raise CodecError(
                f"blosc's header claims {encoded} bytes that decode to {decoded}, and there are "
                f"{len(data)}" + (f" for {len(into)}" if into is not None else "")
            )
        if into is None:
            check_size("blosc", decoded, data)
            return blosc.decompress(data)
        blosc.decompress(data, into)
        return into


KIND = CodecKind("blosc", Blosc)
