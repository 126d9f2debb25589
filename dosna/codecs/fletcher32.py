"""The checksum of HDF5's filter ``fletcher32``, by NumPy: a little faster than libhdf5's own."""

from __future__ import annotations

import numpy as np

from dosna.core.types import Array

__all__ = ["fletcher32"]

_MODULUS = 65535
_ROW = 4096
"""The words of a row: as many columns are summed as rows of them in a chunk of some MiB."""


def fletcher32(data: bytes | memoryview | Array) -> bytes:
    """Return the checksum that HDF5's filter appends: Fletcher-32 of big-endian 16-bit words.

    Source: H5_checksum_fletcher32 of HDF5. Sums are modulo 65535, and 0 only if all words are 0.

    The words are read as little-endian ones. To swap the bytes of a word is to multiply it by 256
    modulo 65535, because ``65536 % 65535 == 1``.
    """
    words = np.frombuffer(data, "<u2", len(data) // 2)
    odd = int(data[-1]) if len(data) % 2 else 0
    count = len(words) + len(data) % 2
    body = len(words) // _ROW * _ROW
    # The second sum is that of all words, each times the number of words from it to the end.
    first, second = _sums(words[:body].reshape(-1, _ROW), count)
    rest = words[body:].astype(np.int64)
    first += int(rest.sum()) + odd
    second += int(rest @ np.arange(count - body, count - len(words), -1)) + odd
    sums = [n * 256 % _MODULUS for n in (first, second)]
    if 0 in sums and (odd or words.any()):
        sums = [n or _MODULUS for n in sums]
    return (sums[1] << 16 | sums[0]).to_bytes(4, "little")


def _sums(rows: Array, count: int) -> tuple[int, int]:
    """Return both sums of rows of words, which `count` words begin with, modulo 65535."""
    kind = np.uint32 if len(rows) <= 1 << 16 else np.uint64
    of_rows = rows.sum(axis=1, dtype=np.uint32).astype(np.int64) % _MODULUS
    of_columns = rows.sum(axis=0, dtype=kind).astype(np.int64) % _MODULUS
    weights = (count - np.arange(len(rows), dtype=np.int64) * _ROW) % _MODULUS
    return int(of_rows.sum()), int(of_rows @ weights - of_columns @ np.arange(_ROW))
