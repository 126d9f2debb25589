"""Decoding of HDF5's bitshuffle filter (https://github.com/kiyo-masui/bitshuffle)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = ["LZ4", "PLAIN", "ZSTD", "bitunshuffle", "block_elements", "bytes_in_blocks"]

PLAIN, LZ4, ZSTD = 0, 2, 3
"""The compressor of the blocks, in the filter's fifth parameter."""

_AT_ONCE = 1 << 17
"""The number of bytes that stay in the processor's cache from one step to the next."""

_STEPS = (
    (np.uint64(7), np.uint64(0x00AA00AA00AA00AA)),
    (np.uint64(14), np.uint64(0x0000CCCC0000CCCC)),
    (np.uint64(28), np.uint64(0x00000000F0F0F0F0)),
)


def block_elements(itemsize: int) -> int:
    """Return the number of elements of a block if the filter's parameters do not give it."""
    return max(8192 // itemsize // 8 * 8, 128)


def bytes_in_blocks(
    data: Any, nbytes: int, itemsize: int, decompress: Callable[[Any, int], Any]
) -> tuple[bytearray, int]:
    """Decompress the blocks of a chunk.

    Each block has its size before it. The rest of the chunk, which is too short for a block,
    follows uncompressed.

    Parameters
    ----------
    data : bytes-like
        The stored bytes of the chunk.
    nbytes : int
        The size of the decoded chunk in bytes.
    itemsize : int
        The size of an element in bytes.
    decompress : callable
        A function that takes a compressed block and its decompressed size.

    Returns
    -------
    found : bytearray
        The decompressed bytes, still shuffled.
    elements : int
        The number of elements of a block.

    Raises
    ------
    ValueError
        The filter does not write such bytes.
    """
    raw = memoryview(data)
    total, size = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")
    if total != nbytes or not size or size % (8 * itemsize):
        raise ValueError(f"it has {total} bytes in blocks of {size}")
    found, at = bytearray(), 12
    while nbytes - len(found) >= 8 * itemsize:
        length = min(size, (nbytes - len(found)) // (8 * itemsize) * (8 * itemsize))
        stored = int.from_bytes(raw[at : at + 4], "big")
        block = decompress(raw[at + 4 : at + 4 + stored], length)
        if len(block) != length:
            raise ValueError(f"a block decodes to {len(block)} bytes, and not to {length}")
        found += block
        at += 4 + stored
    found += raw[at : at + nbytes - len(found)]
    return found, size // itemsize


def bitunshuffle(data: Any, itemsize: int, elements: int, out: Array) -> None:
    """Put the bits of each element together.

    Parameters
    ----------
    data : bytes-like
        The shuffled bytes.
    itemsize : int
        The size of an element in bytes.
    elements : int
        The number of elements of a block, a multiple of 8.
    out : ndarray of uint8
        The array to write to, as long as `data`.
    """
    raw = np.frombuffer(data, np.uint8)
    size = elements * itemsize
    whole = len(raw) // size * size
    step = max(1, _AT_ONCE // size) * size
    for start in range(0, whole, step):
        part = slice(start, min(start + step, whole))
        _blocks(raw[part].reshape(-1, size), itemsize, out[part])
    rest = (len(raw) - whole) // (8 * itemsize) * (8 * itemsize)
    if rest:
        _blocks(raw[whole : whole + rest].reshape(1, rest), itemsize, out[whole : whole + rest])
    out[whole + rest :] = raw[whole + rest :]


def _blocks(raw: Array, itemsize: int, out: Array) -> None:
    """Unshuffle whole blocks: eight rows of bits for each byte of an element."""
    count, size = raw.shape
    eighths = size // itemsize // 8
    rows = raw.reshape(count, itemsize, 8, eighths)
    squares = np.empty((count, itemsize, eighths, 8), np.uint8)
    for row in range(8):
        squares[..., row] = rows[:, :, row]
    # Eight bytes are a matrix of 8 by 8 bits, which is transposed.
    bits = squares.view("<u8")
    for shift, mask in _STEPS:
        moved = bits >> shift
        moved ^= bits
        moved &= mask
        bits ^= moved
        moved <<= shift
        bits ^= moved
    found = squares.reshape(count, itemsize, 8 * eighths)
    elements = out.reshape(count, 8 * eighths, itemsize)
    for byte in range(itemsize):
        elements[:, :, byte] = found[:, byte]
