"""Baskets of numbers and of lists of numbers, decoded without objects of uproot for each.

A list is that of a leaf with a counter, or a ``std::vector``.

Whatever is not as usual is left to uproot: it reads more kinds, and says what is wrong with bytes.
"""

from __future__ import annotations

import queue
import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import cramjam
import numpy as np
import xxhash
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype

from dosna.codecs.deflate import DeflateError, decompress_zlib
from dosna.core.types import Array

__all__ = ["VECTOR_HEADER", "Header", "basket_place", "plain_rows"]

VECTOR_HEADER = 10
"""Bytes before the elements of a std::vector: its length, its version, and at last its count."""

_COUNT = np.dtype(">u4")

_KEY = struct.Struct(">ihiIhh")
_BASKET = struct.Struct(">hiiii")
_FLAG = 1
_BLOCK = 9
"""Bytes before each compressed block: the algorithm, its method, and two sizes of 3 bytes."""

_CHECKSUM = 8


@dataclass(frozen=True)
class Header:
    """The header of a basket, from its first bytes.

    Parameters
    ----------
    nbytes, keylen, objlen : int
        The bytes of the basket in the file, of its header, and of what follows, decompressed.
    entries : int
        The number of entries.
    border : int
        The bytes of the entries. After them come the entries' places, if their sizes differ.
    """

    nbytes: int
    keylen: int
    objlen: int
    entries: int
    border: int

    @classmethod
    def parsed(cls, data: Any) -> Header | None:
        """Return the header at the beginning of some bytes; None if there are too few."""
        if len(data) < _KEY.size:
            return None
        nbytes, _, objlen, _, keylen, _ = _KEY.unpack_from(data)
        at = keylen - _BASKET.size - _FLAG
        if at < _KEY.size or len(data) < keylen:
            return None
        _, _, _, entries, last = _BASKET.unpack_from(data, at)
        return cls(nbytes, keylen, objlen, entries, last - keylen)


def plain_rows(branch: Any, interpretation: Any, start: int, stop: int) -> dict[str, Array] | None:
    """Decode the entries of a branch of numbers, or of lists of numbers.

    Parameters
    ----------
    branch : uproot.TBranch
    interpretation : uproot.interpretation.Interpretation
        The interpretation of the branch.
    start, stop : int
        The entries, which begin and end where baskets do.

    Returns
    -------
    dict of str to ndarray, or None
        The rows of each column by path, in the byte order of the file; offsets count from `start`.
        None if something is unusual.
    """
    kind = _numbers(interpretation)
    baskets = None if kind is None else _baskets(branch, start, stop)
    if kind is None or baskets is None:
        return None
    read, headers = baskets
    is_list = type(interpretation) is AsJagged
    prefix = interpretation.header_bytes if is_list else 0
    itemsize = kind.from_dtype.itemsize
    borders = [0, *accumulate(header.border for header in headers)]
    total, rest = divmod(borders[-1] - prefix * (stop - start), itemsize)
    if rest or total < 0 or not (is_list or total == stop - start):
        return None
    offsets = np.zeros(stop - start + 1, np.int32 if total < 1 << 31 else np.int64)
    # Each basket is decompressed to where its elements belong, over what came after the elements
    # of the one before.
    ends = [at + header.objlen for at, header in zip(borders, headers, strict=False)]
    memory = np.empty(max(ends, default=0), np.uint8)
    entry = 0
    for raw, header, at, end in zip(read, headers, borders, ends, strict=False):
        found = memory[at:end]
        if not _decompress(raw[header.keylen : header.nbytes], found):
            return None
        if is_list:
            counted = _ends(found, header, itemsize, prefix)
            if counted is None:
                return None
            into = offsets[entry + 1 : entry + 1 + header.entries]
            np.add(counted, offsets[entry], out=into)
        elif header.border != header.entries * itemsize:
            return None
        entry += header.entries
    data = memory[: borders[-1]]
    content = (
        _of_vectors(data, offsets[1:], kind.from_dtype) if prefix else data.view(kind.from_dtype)
    )
    if content is None:
        return None
    return {"offsets": offsets, "content": content} if is_list else {"": content}


def basket_place(branch: Any, number: int) -> tuple[int, int]:
    """Return where a basket begins in the file, and its bytes there."""
    return int(branch.member("fBasketSeek")[number]), branch.basket_compressed_bytes(number)


def _numbers(interpretation: Any) -> AsDtype | None:
    """Return how the numbers of a branch are stored; None if there is anything else in it."""
    if type(interpretation) is AsJagged:
        if interpretation.header_bytes not in (0, VECTOR_HEADER):
            return None
        interpretation = interpretation.content
    if type(interpretation) is not AsDtype:
        return None
    stored, made = interpretation.from_dtype, interpretation.to_dtype
    plain = stored.kind in "biuf" and made == stored.newbyteorder("=")
    return interpretation if plain else None


def _baskets(branch: Any, start: int, stop: int) -> tuple[list[Array], list[Header]] | None:
    """Read the baskets of some entries."""
    edges = branch.entry_offsets
    first, last = bisect_left(edges, start), bisect_left(edges, stop)
    free = branch.num_baskets - len(branch.embedded_baskets)
    if edges[first] != start or edges[last] != stop or last > free:
        return None
    places = [basket_place(branch, number) for number in range(first, last)]
    ranges = [(begin, begin + nbytes) for begin, nbytes in places]
    chunks = branch.file.source.chunks(ranges, notifications=queue.SimpleQueue())
    read = [np.asarray(chunk.detach_memmap().raw_data) for chunk in chunks]
    headers = []
    for number, data in zip(range(first, last), read, strict=True):
        header = Header.parsed(data)
        if (
            header is None
            or header.nbytes != len(data)
            or header.entries != edges[number + 1] - edges[number]
            or not 0 <= header.border <= header.objlen
        ):
            return None
        headers.append(header)
    return read, headers


def _ends(found: Array, header: Header, itemsize: int, prefix: int) -> Array | None:
    """Return at which element each list of a basket ends; before each list is a prefix."""
    if (header.objlen - header.border) != 4 * (header.entries + 2):
        return None
    places = found[header.border :].view(">i4")[1:] - np.int32(header.keylen)
    places[-1] = header.border
    if prefix:
        places -= prefix * np.arange(len(places), dtype=np.int32)
    bits = itemsize - 1  # of a power of two
    if places[0] or np.bitwise_or.reduce(places) & bits or (places[1:] < places[:-1]).any():
        return None
    places >>= bits.bit_length()
    return places[1:]


def _of_vectors(data: Array, ends: Array, dtype: np.dtype[Any]) -> Array | None:
    """Return the elements of vectors, without headers; None if a header has another count."""
    counts = np.diff(ends, prepend=np.int32(0))
    headers = VECTOR_HEADER * np.arange(1, len(ends) + 1)  # bytes of them before each element
    begins = (ends - counts) * dtype.itemsize + headers
    if (_from_any_byte(data, _COUNT)[begins - _COUNT.itemsize] != counts).any():
        return None
    number = np.arange(counts.sum())
    places = number * dtype.itemsize + np.repeat(headers, counts)
    found: Array = _from_any_byte(data, dtype)[places]
    return found


def _from_any_byte(data: Array, dtype: np.dtype[Any]) -> Array:
    """View the elements that begin at each of some bytes."""
    count = max(0, len(data) - dtype.itemsize + 1)
    return np.ndarray((count,), dtype, data.data, strides=(1,))


def _decompress(data: Array, out: Array) -> bool:
    """Decompress the bytes of a basket after its header. Return False if something is unusual."""
    if len(data) == len(out):
        out[:] = data
        return True
    blocks, at, total = [], 0, 0
    while at + _BLOCK <= len(data):
        packed = int.from_bytes(data[at + 3 : at + 6].tobytes(), "little")
        length = int.from_bytes(data[at + 6 : at + 9].tobytes(), "little")
        work = _ALGORITHMS.get(data[at : at + 2].tobytes())
        at += _BLOCK
        if work is None or at + packed > len(data):
            return False
        blocks.append((work, data[at : at + packed], slice(total, total + length)))
        at, total = at + packed, total + length
    if at != len(data) or total != len(out):
        return False
    return all(work(block, out[where]) for work, block, where in blocks)


def _from_lz4(data: Any, out: Any) -> bool:
    packed = data[_CHECKSUM:]
    if len(data) < _CHECKSUM or xxhash.xxh64(packed).digest() != data[:_CHECKSUM].tobytes():
        return False
    try:
        return int(cramjam.lz4.decompress_block_into(packed, out, output_len=len(out))) == len(out)
    except cramjam.DecompressionError:
        return False


def _from_zlib(data: Any, out: Any) -> bool:
    try:
        found = decompress_zlib(data, len(out))
    except DeflateError:
        return False
    if len(found) != len(out):
        return False
    out[:] = np.frombuffer(found, np.uint8)
    return True


def _from_zstd(data: Any, out: Any) -> bool:
    try:
        return int(cramjam.zstd.decompress_into(data, out)) == len(out)
    except cramjam.DecompressionError:
        return False


_ALGORITHMS: dict[bytes, Callable[[Any, Any], bool]] = {
    b"L4": _from_lz4,
    b"ZL": _from_zlib,
    b"ZS": _from_zstd,
}
