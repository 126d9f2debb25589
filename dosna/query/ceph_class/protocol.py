"""The requests of the object class `dosna` and its answers; all numbers are little-endian.

A request is a head of 48 bytes and the arguments of the method. Rows are numbered from the first
one that counts. A set of rows is 16 bytes, the form and the number of rows, and then

- a bitmap: a bit for each row of the chunk that counts, the lowest of a byte first; or
- gaps of 16 bits, each the distance from the row before, the first from row 0; 65535 means that
  the next gap is added to it; or
- nothing if it is all rows, which only an answer has.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from dosna.core.indices import true_places
from dosna.core.types import Array

__all__ = ["STATS", "Head", "pack_rows", "rows_size", "supports", "unpack_rows", "unpack_stats"]

VERSION = 1
_HEAD = struct.Struct("<BcBBIQQQQ8x")
_ROWS = struct.Struct("<B7xQ")
_BITMAP, _GAPS, _ALL = range(3)
_FAR = 0xFFFF
_KINDS = {"f": (4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}

STATS = 24
"""The bytes of the answer of `stats` for a range of rows."""


class Head(NamedTuple):
    """The head of a request: the chunk, and which of its rows count.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the elements.
    checks : int
        The number of checksums behind the elements, 0 or 1.
    width : int
        The bytes of a row.
    rows : int
        The number of rows of the chunk.
    start, stop : int
        The rows that count.
    """

    dtype: np.dtype[Any]
    checks: int
    width: int
    rows: int
    start: int
    stop: int

    def pack(self, most: int) -> bytes:
        """Return the bytes of the head. `most`: the most bytes of an answer."""
        kind, size = self.dtype.kind.encode(), self.dtype.itemsize
        return _HEAD.pack(
            VERSION, kind, size, self.checks, self.width, self.rows, self.start, self.stop, most
        )


def supports(dtype: np.dtype[Any]) -> bool:
    """Return True if the class knows a dtype: little-endian numbers, and bool."""
    return dtype.str[0] in "<|" and dtype.itemsize in _KINDS.get(dtype.kind, ())


def rows_size(count: int) -> int:
    """Return the most bytes of a set of rows, of a chunk of which `count` rows count."""
    return _ROWS.size + -(-count // 8)


def pack_rows(rows: Array, count: int) -> bytes:
    """Return the bytes of a set of rows, in the shorter form.

    Parameters
    ----------
    rows : ndarray of int
        The numbers of the rows, which increase.
    count : int
        The number of rows that count.
    """
    if 2 * (len(rows) + count // _FAR) < count // 8:
        gaps = np.diff(rows, prepend=0)
        if len(gaps) and gaps.max() >= _FAR:
            far = gaps // _FAR
            ends = np.cumsum(far + 1) - 1
            last, gaps = gaps % _FAR, np.full(ends[-1] + 1, _FAR)
            gaps[ends] = last
        return _ROWS.pack(_GAPS, len(rows)) + gaps.astype("<u2").tobytes()
    truth = np.zeros(count, bool)
    truth[rows] = True
    bits = np.packbits(truth, bitorder="little")
    return _ROWS.pack(_BITMAP, len(rows)) + bits.tobytes()


def unpack_rows(answer: bytes, count: int) -> tuple[Array, int]:
    """Return the numbers of a set of rows, and the number of bytes that the set took.

    Parameters
    ----------
    answer : bytes
        The set of rows, and what follows it.
    count : int
        The number of rows that count.

    Raises
    ------
    ValueError
        If these are not the bytes of such a set.
    """
    if len(answer) < _ROWS.size:
        raise ValueError(f"{len(answer)} bytes are too few for a set of rows")
    form, found = _ROWS.unpack_from(answer)
    if form == _ALL:
        rows, size = np.arange(count), 0
    elif form == _BITMAP:
        body = np.frombuffer(answer, np.uint8, -(-count // 8), _ROWS.size)
        truth = np.unpackbits(body, count=count, bitorder="little").view(bool)
        rows, size = true_places(truth), len(body)
    elif form == _GAPS:
        gaps, rows = _gaps(answer, found)
        size = gaps.nbytes
        if len(gaps) != found:
            rows = rows[gaps != _FAR]
        if len(rows) and (rows[-1] >= count or (rows[1:] <= rows[:-1]).any()):
            raise ValueError(f"these are not increasing numbers of {count} rows")
    else:
        raise ValueError(f"a set of rows has the unknown form {form}")
    if len(rows) != found:
        raise ValueError(f"a set of {found} rows has {len(rows)}")
    return rows, _ROWS.size + size


def _gaps(answer: bytes, found: int) -> tuple[Array, Array]:
    """Return the gaps to a number of rows, and the row that is reached by each of them."""
    count = found
    while True:
        gaps = np.frombuffer(answer, "<u2", count, _ROWS.size)
        far = int(np.count_nonzero(gaps == _FAR))
        if count == found + far:
            return gaps, np.cumsum(gaps, dtype=np.int64)
        count = found + far


def unpack_stats(answer: bytes, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Return the least values, the largest values and the numbers of NaN of ranges of rows.

    Raises
    ------
    ValueError
        If these are not the bytes of an answer of `stats`.
    """
    entry = np.dtype(
        {
            "names": ["least", "largest", "nans"],
            "formats": [dtype, dtype, "<u8"],
            "offsets": [0, 8, 16],
            "itemsize": STATS,
        }
    )
    found = np.frombuffer(answer, entry)
    return found["least"], found["largest"], found["nans"].astype(np.int64)
