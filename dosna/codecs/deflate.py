"""Deflate, the compression of gzip and zlib: by libdeflate where its binding is installed.

libdeflate takes whole buffers, as chunks are, and is two to five times as fast as zlib at the same
size. What one of the two writes the other reads: the formats are RFC 1950 (zlib) and RFC 1952
(gzip). Both release Python's global lock.
"""

from __future__ import annotations

import zlib
from typing import Any

libdeflate: Any
try:
    import deflate as libdeflate
except ImportError:
    libdeflate = None

__all__ = ["DeflateError", "compress_gzip", "compress_zlib", "decompress_gzip", "decompress_zlib"]

Buffer = Any

# For each level of zlib the fastest one of libdeflate that makes data at most 8 % larger.
_LEVELS = (0, 1, 1, 1, 1, 2, 6, 7, 8, 9)
_MOST_RATIO = 1032
"""The most bytes that a byte of deflate decompresses to."""

_GZIP = 31
"""Argument of zlib that stands for the gzip format."""


class DeflateError(ValueError):
    """The error for bytes that are not a whole stream, or are one that is longer than expected."""


def compress_zlib(data: Buffer, level: int) -> Buffer:
    """Compress bytes to the zlib format, which HDF5's deflate filter has.

    Parameters
    ----------
    data : buffer
        The bytes.
    level : int
        The level of zlib, from 0 to 9, or -1 for its default. libdeflate takes the level of its
        own that compresses about as well.

    Returns
    -------
    bytes or bytearray
        The stream.
    """
    if libdeflate is None:
        return zlib.compress(data, level)
    return libdeflate.zlib_compress(data, _LEVELS[6 if level < 0 else level])


def compress_gzip(data: Buffer, level: int) -> Buffer:
    """Compress bytes to the gzip format; see `compress_zlib`."""
    if libdeflate is None:
        return zlib.compress(data, level, _GZIP)
    return libdeflate.gzip_compress(data, _LEVELS[6 if level < 0 else level])


def decompress_zlib(data: Buffer, most: int) -> Buffer:
    """Decompress a stream of the zlib format, and pass over bytes after it, as libhdf5 does.

    Parameters
    ----------
    data : buffer
        The stream.
    most : int
        The most bytes that it may decompress to.

    Returns
    -------
    bytes or bytearray
        The decompressed bytes, whose checksum is right.

    Raises
    ------
    DeflateError
        The stream is damaged, cut off, or decompresses to more than `most` bytes.
    """
    if libdeflate is not None and most > 0:
        try:
            return libdeflate.zlib_decompress(data, most)
        except libdeflate.DeflateError:
            pass  # zlib says what is wrong
    return _members(data, most, zlib.MAX_WBITS, 1)


def decompress_gzip(data: Buffer, most: int) -> Buffer:
    """Decompress all members of a gzip stream; see `decompress_zlib`.

    Raises
    ------
    DeflateError
        The stream is damaged, cut off, decompresses to more than `most` bytes, or something that
        is not a member of gzip follows.
    """
    # The last bytes of a stream are the length of its last member, which mostly is the only one.
    length = int.from_bytes(data[-4:], "little")
    if libdeflate is not None and 0 < length <= min(most, _MOST_RATIO * len(data)):
        try:
            found = libdeflate.gzip_decompress(data, length)
        except libdeflate.DeflateError:
            pass  # several members, or damage; zlib says what is wrong
        else:
            if len(found) == length:
                return found
    return _members(data, most, _GZIP, None)


def _members(data: Buffer, most: int, wbits: int, count: int | None) -> Buffer:
    found = b""
    while True:
        member = zlib.decompressobj(wbits)
        try:
            # One byte more than allowed tells a stream that is too long from one that ends.
            found += member.decompress(data, most + 1 - len(found))
        except zlib.error as error:
            raise DeflateError(str(error)) from None
        if not member.eof or len(found) > most:
            raise DeflateError(f"the stream is cut off, or longer than {most} bytes")
        if count == 1 or not member.unused_data:
            return found
        data = member.unused_data
