"""Compressors and checksums of Zarr, each of which is a step of a pipeline."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from crc32c import crc32c

from dosna.core import text as text
from dosna.core.types import Array
from dosna.errors import FormatError, MissingDependencyError

__all__ = ["Buffer", "CodecError", "named"]


Buffer = Any
"""Any object with a buffer of bytes."""

_CRC = struct.Struct("<I")

_BLOCK = 256 << 10

_WRONG = "the CRC-32C checksum is wrong: bytes were changed"


class CodecError(ValueError):
    """Bytes that no encoder of the codec writes. The message says what is wrong with them."""


def named(spec: Any, what: str, where: str, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the name and the configuration of an extension object.

    Raises
    ------
    FormatError
        The name is not one of `known`, or the object has members that are not in the
        specification.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise FormatError(f"{where} has the {what} {spec!r}, which has no name")
    name, configuration = spec["name"], spec.get("configuration", {})
    unknown = set(spec) - {"name", "configuration", "must_understand"}
    if name not in known:
        raise FormatError(
            f"{where} has the {what} {name!r}, which dosna does not know: it knows "
            f"{', '.join(known)}"
        )
    if unknown or not isinstance(configuration, Mapping):
        raise FormatError(f"{where}: the {what} {name!r} has an unknown part: {dict(spec)!r}")
    return name, dict(configuration)


class _Codec(ABC):
    """A codec from bytes to bytes."""

    def encoded_size(self, size: int | None) -> int | None:
        """Return the encoded length of `size` bytes, or None if it depends on the bytes."""
        return None

    @abstractmethod
    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        """Encode bytes that come in parts."""

    @abstractmethod
    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        """Decode bytes. If `into` is given, write there exactly as many bytes as it has."""


class _Crc32c(_Codec):
    def encoded_size(self, size: int | None) -> int | None:
        return None if size is None else size + _CRC.size

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        data = _joined(parts)
        return [data, _CRC.pack(crc32c(data))]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        if len(data) < _CRC.size:
            raise CodecError(f"{len(data)} bytes are too few for a checksum")
        body = data[: -_CRC.size]
        if _CRC.unpack(data[-_CRC.size :])[0] != crc32c(body):
            raise CodecError(_WRONG)
        return body


class _Gzip(_Codec):
    def __init__(self, level: int) -> None:
        self.level = level

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        return [zlib.compress(_joined(parts), self.level, 31)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        most = (text.MOST_BYTES if into is None else len(into)) + 1
        found = b""
        while True:
            member = zlib.decompressobj(31)
            try:
                found += member.decompress(data, max(0, most - len(found)))
            except zlib.error as error:
                raise CodecError(f"gzip cannot decode it: {error}") from None
            if not member.eof or len(found) >= most:
                raise CodecError("the gzip stream is cut off or too long")
            if not member.unused_data:
                break
            data = memoryview(member.unused_data)
        if into is None:
            return found
        if len(found) != len(into):
            raise CodecError(f"gzip decodes to {len(found)} bytes instead of {len(into)}")
        into[:] = np.frombuffer(found, np.uint8)
        return into


class _Zstd(_Codec):
    def __init__(self, level: int, checksum: bool) -> None:
        self.level, self.checksum = level, checksum
        _numcodecs("zstd")

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        data = _joined(parts)
        return [_numcodecs("zstd").compress(data, self.level, self.checksum)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library accepts content that is shorter than the memory for it.
        size = _zstd_content_size(data)
        if into is None:
            _check_size("zstd", size or 0, data)
            return _decompress("zstd", data, None)
        if size is None:
            found = _decompress("zstd", data, None)
            size = len(found)
            if size == len(into):
                into[:] = np.frombuffer(found, np.uint8)
        elif size == len(into):
            _decompress("zstd", data, into)
        if size != len(into):
            raise CodecError(f"zstd decodes to {size} bytes instead of {len(into)}")
        return into


def _zstd_content_size(data: memoryview) -> int | None:
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


class _Blosc(_Codec):
    def __init__(self, cname: str, clevel: int, shuffle: str, blocksize: int, typesize: int):
        self.options = (cname.encode(), clevel, _SHUFFLES[shuffle], blocksize, typesize)
        _numcodecs("blosc")

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        return [_numcodecs("blosc").compress(_joined(parts), *self.options)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library trusts these lengths, and would read or write beyond the end of the buffers.
        if len(data) < 16:
            raise CodecError(f"{len(data)} bytes are too few for blosc")
        decoded, _, encoded = struct.unpack_from("<III", data, 4)
        if encoded != len(data) or (into is not None and decoded != len(into)):
            raise CodecError(
                f"blosc's header tells of {encoded} bytes that decode to {decoded}, and these are "
                f"{len(data)}" + (f" for {len(into)}" if into is not None else "")
            )
        if into is None:
            _check_size("blosc", decoded, data)
        return _decompress("blosc", data, into)


def _check_size(name: str, decoded: int, data: memoryview) -> None:
    """Raise CodecError if a header gives a length that `data` cannot decode to.

    This bounds the memory for chunks whose right length is not known.
    """
    # Four bytes of zstd decode to at most 128 KiB, and those of the others to less.
    if decoded > min(text.MOST_BYTES, len(data) << 16):
        raise CodecError(f"{name}'s header tells of {decoded} bytes in {len(data)}")


_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

_BLOSC_NAMES = ("lz4", "lz4hc", "blosclz", "zstd", "snappy", "zlib")


@cache
def _numcodecs(name: str) -> Any:
    """Return the module of numcodecs for a compressor."""
    try:
        if name == "zstd":
            from numcodecs import zstd

            return zstd
        from numcodecs import blosc
    except ImportError as error:
        raise MissingDependencyError(
            f"the codec {name!r} needs numcodecs, which cannot be imported ({error}): "
            "pip install 'dosna[zarr]'"
        ) from error
    # The engine's threads are enough, and blosc's own do not survive a fork.
    blosc.use_threads = False
    return blosc


def _decompress(name: str, data: memoryview, into: Array | None) -> Buffer:
    try:
        found = _numcodecs(name).decompress(data, into)
    except (RuntimeError, ValueError) as error:
        raise CodecError(f"{name} cannot decode it: {error}") from None
    return found if into is None else into


def _joined(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _copied(data: memoryview, into: Array | None, checked: bool) -> int:
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
