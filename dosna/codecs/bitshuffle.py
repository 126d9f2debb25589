"""Decoding of HDF5's bitshuffle filter (https://github.com/kiyo-masui/bitshuffle)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = [
    "LZ4",
    "PLAIN",
    "ZSTD",
    "bitunshuffle",
    "block_elements",
    "blosc_frame",
    "blosc_frame_of",
    "stored_blocks",
]

PLAIN, LZ4, ZSTD = 0, 2, 3
"""The compressor of the blocks, in the filter's fifth parameter."""

_HEADER, _SIZE, _BLOSC = struct.Struct(">QI"), struct.Struct(">I"), struct.Struct("<4B3I")
_BITSHUFFLED, _UNSPLIT = 0x4, 0x10
_FORMATS = {LZ4: 1, ZSTD: 4}
"""Numbers of the compressors in c-blosc."""

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


def stored_blocks(data: Any, nbytes: int, itemsize: int) -> tuple[int, list[tuple[int, int]], int]:
    """Find the compressed blocks of a chunk.

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

    Returns
    -------
    size : int
        The decompressed size of a block; the last one may be smaller.
    blocks : list of tuple
        The start and the length of each block.
    end : int
        The position of what follows the blocks.

    Raises
    ------
    ValueError
        The filter does not write such bytes.
    """
    if len(data) < 12:
        raise ValueError("it is empty")
    total, size = _HEADER.unpack_from(data)
    if total != nbytes or not size or size % (8 * itemsize):
        raise ValueError(f"it has {total} bytes in blocks of {size}")
    count = nbytes // size + (nbytes % size >= 8 * itemsize)
    blocks, at, last = [], 12, len(data) - 4
    unpack = _SIZE.unpack_from
    for _ in range(count):
        if at > last:
            raise ValueError("its blocks end too early")
        (stored,) = unpack(data, at)
        blocks.append((at + 4, stored))
        at += 4 + stored
    if at + nbytes % size % (8 * itemsize) > len(data):
        raise ValueError("its blocks end too early")
    return size, blocks, at


def blosc_frame(
    data: Any,
    blocks: list[tuple[int, int]],
    size: int,
    itemsize: int,
    how: int,
    decompress: Callable[[Any, int], Any],
) -> Array:
    """Return whole blocks as a frame of c-blosc, which decompresses and unshuffles them.

    Parameters
    ----------
    data : bytes-like
        The stored bytes of the chunk.
    blocks : list of tuple
        The start and the length of each block; at least one.
    size, itemsize, how : int
        The decompressed size of a block and of an element, and the compressor.
    decompress : callable
        A function that takes a compressed block and its decompressed size.

    Returns
    -------
    ndarray of uint8
        The frame.
    """
    # https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    first, stop = blocks[0][0] - 4, sum(blocks[-1])
    body = 16 + 4 * len(blocks)
    frame = np.empty(body + stop - first, np.uint8)
    frame[body:] = np.frombuffer(data, np.uint8)[first:stop]
    starts = np.array([start for start, _ in blocks]) + (body - first - 4)
    _begin(frame, starts, size, itemsize, how)
    # The sizes of the blocks are big-endian in the one format and little-endian in the other.
    places = starts[:, None] + np.arange(4)
    frame[places] = frame[places[:, ::-1]]
    for (start, stored), at in zip(blocks, starts.tolist(), strict=True):
        if stored == size:  # c-blosc takes such a block as not compressed
            block = decompress(memoryview(data)[start : start + stored], size)
            frame[at + 4 : at + 4 + size] = np.frombuffer(block, np.uint8)
    return frame


def blosc_frame_of(raw: Array, size: int, itemsize: int) -> Array:
    """Return whole blocks that are not compressed as a frame of c-blosc.

    Parameters
    ----------
    raw : ndarray of uint8
        The blocks; at least one.
    size, itemsize : int
        The size of a block and of an element.
    """
    blocks = raw.reshape(-1, size)
    body = 16 + 4 * len(blocks)
    frame = np.empty(body + len(blocks) * (4 + size), np.uint8)
    parts = frame[body:].reshape(len(blocks), 4 + size)
    parts[:, :4] = np.frombuffer(size.to_bytes(4, "little"), np.uint8)
    parts[:, 4:] = blocks
    _begin(frame, body + np.arange(len(blocks)) * (4 + size), size, itemsize, LZ4)
    return frame


def _begin(frame: Array, starts: Array, size: int, itemsize: int, how: int) -> None:
    """Write what comes before the blocks of a frame."""
    count = len(starts)
    flags = _BITSHUFFLED | _UNSPLIT | _FORMATS[how] << 5
    header = _BLOSC.pack(2, 1, flags, itemsize, count * size, size, len(frame))
    frame[:16] = np.frombuffer(header, np.uint8)
    frame[16 : 16 + 4 * count].view("<u4")[:] = starts


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
