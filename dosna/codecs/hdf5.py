"""Filters of HDF5, undone without libhdf5."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dosna.codecs import bitshuffle
from dosna.codecs.deflate import DeflateError, decompress_zlib
from dosna.codecs.fletcher32 import fletcher32
from dosna.core.types import Array

__all__ = [
    "BITSHUFFLE",
    "DEFLATE",
    "FLETCHER32",
    "SHUFFLE",
    "UNFILTERED",
    "Decoder",
    "Filter",
    "UndecodableError",
    "check_fletcher32",
    "decoder_of",
    "decoders_of",
    "memory",
    "undone",
]


DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""Numbers of HDF5's own filters."""

BITSHUFFLE = 32008

UNFILTERED = 0xFFFFFFFF
"""The mask of a chunk to which no filter was applied."""

Decoder = Callable[[Any, int], Any]

Filter = tuple[int, tuple[int, ...]]
"""The number of a filter, and its parameters."""


class UndecodableError(Exception):
    """The error of a chunk that is damaged or of unexpected form; libhdf5 may still read it."""


class _Memory(threading.local):
    """The memory of a thread, which is used again for the next chunk."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def get(self, use: str, nbytes: int) -> Array:
        found = self._arrays.get(use)
        if found is None or found.size < nbytes:
            found = self._arrays[use] = np.empty(nbytes, np.uint8)
        return found[:nbytes]

    def beside(self, data: Array, use: str) -> Array:
        """Return memory of the size of `data` that does not overlap it."""
        found = self.get(use, len(data))
        # A filter may occur twice in a pipeline.
        return self.get(f"{use} again", len(data)) if np.may_share_memory(found, data) else found


memory = _Memory()


def undone(data: Any, active: Sequence[Decoder], nbytes: int) -> Any:
    """Return a chunk of `nbytes` bytes without its filters.

    Parameters
    ----------
    data : bytes-like
        The chunk as it is stored.
    active : sequence of callable
        The decoders of the filters that were applied to it, in the order of reading.
    nbytes : int
        The size of the chunk without filters.

    Returns
    -------
    bytes-like
        The decoded chunk.

    Raises
    ------
    UndecodableError
        The data cannot be the output of a filter.
    """
    # Each checksum adds 4 bytes to a chunk for the filters that are applied after it.
    longer = 4 * active.count(check_fletcher32)
    for decode in active:
        if decode is check_fletcher32:
            longer -= 4
        data = decode(data, nbytes + longer)
    return data


def decoders_of(filters: Sequence[Filter], itemsize: int) -> list[tuple[int, Decoder]] | None:
    """Return the decoders of filters, in the order of reading; None if one is not available.

    Each comes after the bit of its filter in a chunk's mask.
    """
    decoders: list[tuple[int, Decoder]] = []
    compressed = False
    for number, (code, values) in enumerate(filters):
        decoder = decoder_of(code, values, itemsize)
        compresses = _compresses(code, values)
        # Decoders other than these three need the length of their output, which is unknown if
        # that is compressed data.
        if decoder is None or (compressed and code not in (DEFLATE, SHUFFLE, FLETCHER32)):
            return None
        compressed = compressed or compresses
        decoders.insert(0, (1 << number, decoder))
    return decoders


def _compresses(code: int, values: Sequence[int]) -> bool:
    if code == BITSHUFFLE:
        return (*values, 0, 0, 0, 0, 0)[4] != bitshuffle.PLAIN
    return code == DEFLATE or code in _CODECS


def decoder_of(code: int, values: Sequence[int], itemsize: int) -> Decoder | None:
    """Return the decoder of a filter; None if it is not available."""
    if code == DEFLATE:
        return _inflate
    if code == SHUFFLE:
        size = values[0] if values else itemsize
        return lambda data, nbytes: _unshuffle(data, size)
    if code == FLETCHER32:
        return check_fletcher32
    if code == BITSHUFFLE:
        return _bitshuffle_decoder(values)
    decompress = _decompressor(_CODECS.get(code))
    if decompress is None:
        return None
    if code == _LZ4:
        return lambda data, nbytes: _unlz4(data, nbytes, decompress)
    if code == _BLOSC:
        return lambda data, nbytes: _unblosc(data, nbytes, decompress)
    return lambda data, nbytes: _unzstd(data, nbytes, decompress)


def _decompressor(name: str | None) -> Callable[..., Any] | None:
    if name is None:
        return None
    try:
        library = importlib.import_module(f"numcodecs.{name}")
    except ImportError:
        return None
    if name == "blosc":
        # The reader's threads are enough, and blosc's own do not survive a fork.
        vars(library)["use_threads"] = False
    found: Callable[..., Any] = library.decompress
    return found


# Registered filters:
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_BLOSC, _LZ4, _ZSTD = 32001, 32004, 32015

_CODECS = {_BLOSC: "blosc", _LZ4: "lz4", _ZSTD: "zstd"}


def _decoded(decompress: Callable[..., Any], *data: Any) -> Any:
    try:
        return decompress(*data)
    except (RuntimeError, ValueError) as error:
        raise UndecodableError(str(error)) from None


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def _unzstd(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    # The library allocates as much memory as a frame says that it needs (RFC 8878, 3.1.1.1).
    header = bytes(memoryview(data)[:18])
    flags = header[4] if len(header) > 5 else 0
    alone = flags >> 5 & 1
    size = (alone, 2, 4, 8)[flags >> 6]
    at = 6 - alone + (0, 1, 2, 4)[flags & 3]
    found = int.from_bytes(header[at : at + size], "little") + 256 * (size == 2)
    if header[:4] != _ZSTD_MAGIC or len(header) < at + size or (size and found != nbytes):
        raise UndecodableError(f"it does not begin with a Zstandard frame of {nbytes} bytes")
    return _decoded(decompress, data, *([] if size else [np.zeros(nbytes, np.uint8)]))


def _unblosc(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    # The library trusts these lengths, and would read or write beyond the buffers if they are
    # wrong.
    header = bytes(memoryview(data)[:16])
    found, _, stored = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    if len(header) < 16 or (found, stored) != (nbytes, len(data)):
        raise UndecodableError(
            f"its header says {stored} bytes, which decode to {found}, and there are {len(data)}"
        )
    return _decoded(decompress, data)


def _unlz4(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    """Decode the blocks of HDF5's lz4 filter, each after its size in big-endian order."""
    raw = bytes(data)
    total, block = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")
    if total != nbytes or not block:
        raise UndecodableError(f"it has {total} bytes in blocks of {block}")
    out, at = bytearray(), 12
    while len(out) < total:
        size, length = int.from_bytes(raw[at : at + 4], "big"), min(block, total - len(out))
        part = raw[at + 4 : at + 4 + size]
        # A block that would not become smaller is stored as it is.
        out += part if size == length else _lz4_block(decompress, part, length)
        at += 4 + size
        if not size:
            raise UndecodableError("its blocks end too early")
    return out


def _lz4_block(decompress: Callable[[Any], Any], block: Any, length: int) -> Any:
    # numcodecs expects the decompressed length at the beginning of a block.
    return _decoded(decompress, length.to_bytes(4, "little") + bytes(block))


def _bitshuffle_decoder(values: Sequence[int]) -> Decoder | None:
    itemsize, elements, how = (*values[2:5], 0, 0, 0)[:3]
    decompress = _decompressor({bitshuffle.LZ4: "lz4", bitshuffle.ZSTD: "zstd"}.get(how))
    if not itemsize or elements % 8 or (decompress is None and how != bitshuffle.PLAIN):
        return None
    # c-blosc has bitshuffle's own code, which is several times as fast as NumPy.
    blosc = _decompressor("blosc") if itemsize < 256 else None
    if how == bitshuffle.PLAIN:
        count = elements or bitshuffle.block_elements(itemsize)
        return lambda data, nbytes: _bitunshuffled(data, itemsize, count, blosc)

    def block(data: Any, length: int) -> Any:
        assert decompress is not None
        if how == bitshuffle.LZ4:
            return _lz4_block(decompress, data, length)
        return _unzstd(data, length, decompress)

    def undo(data: Any, nbytes: int) -> Any:
        try:
            size, blocks, end = bitshuffle.stored_blocks(data, nbytes, itemsize)
        except ValueError as error:
            raise UndecodableError(str(error)) from None
        raw, out = memoryview(data), memory.get("bits", nbytes)
        if np.may_share_memory(out, np.frombuffer(data, np.uint8)):
            out = memory.get("bits again", nbytes)
        count = done = 0
        if blosc is not None and nbytes >= size:
            count = nbytes // size
            done = count * size
            frame = bitshuffle.blosc_frame(raw, blocks[:count], size, itemsize, how, block)
            _decoded(blosc, frame, out[:done])
        found = bytearray()
        for start, stored in blocks[count:]:
            length = min(size, (nbytes - done - len(found)) // (8 * itemsize) * (8 * itemsize))
            part = block(raw[start : start + stored], length)
            if len(part) != length:
                raise UndecodableError(f"a block decodes to {len(part)} bytes instead of {length}")
            found += part
        found += raw[end : end + nbytes - done - len(found)]
        bitshuffle.bitunshuffle(found, itemsize, size // itemsize, out[done:])
        return out

    return undo


def _bitunshuffled(
    data: Any, itemsize: int, elements: int, blosc: Callable[..., Any] | None
) -> Array:
    raw = np.frombuffer(data, np.uint8)
    out = memory.beside(raw, "bits")
    size = elements * itemsize
    done = 0 if blosc is None else len(raw) // size * size
    if blosc is not None and done:
        _decoded(blosc, bitshuffle.blosc_frame_of(raw[:done], size, itemsize), out[:done])
    bitshuffle.bitunshuffle(raw[done:], itemsize, elements, out[done:])
    return out


def _inflate(data: Any, nbytes: int) -> Any:
    try:
        # At most the size of a chunk, with a margin for data that was compressed before.
        return decompress_zlib(data, nbytes + (nbytes >> 3) + 1024)
    except DeflateError as error:
        raise UndecodableError(str(error)) from None


def _unshuffle(data: Any, size: int) -> Any:
    if size <= 1:
        return data
    raw = np.frombuffer(data, np.uint8)
    count = len(raw) // size
    out = memory.beside(raw, "shuffled")
    elements = out[: count * size].reshape(count, size)
    # Byte by byte: a transposed copy takes up to five times as long.
    for byte in range(size):
        elements[:, byte] = raw[byte * count : (byte + 1) * count]
    out[count * size :] = raw[count * size :]
    return out


def check_fletcher32(data: Any, nbytes: int) -> Any:
    """Return a chunk without the checksum at its end, or raise UndecodableError."""
    found, checksum = memoryview(data)[:-4], bytes(memoryview(data)[-4:])
    if checksum != fletcher32(found):
        raise UndecodableError("its Fletcher-32 checksum is wrong")
    return found
