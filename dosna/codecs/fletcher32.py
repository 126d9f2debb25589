"""The checksum of HDF5's filter ``fletcher32``.

By NumPy it takes 0.35 ms per MiB, and numcodecs takes 0.2 ms: not enough of a difference for the
extra ``hdf5`` to need numcodecs.
"""

from __future__ import annotations

import numpy as np

__all__ = ["fletcher32"]


def fletcher32(data: bytes | memoryview) -> bytes:
    """Return the checksum that HDF5's filter appends: Fletcher-32 of big-endian 16-bit words.

    Source: H5_checksum_fletcher32 of HDF5. Sums are modulo 65535, and 0 only if all words are 0.
    """
    words = np.frombuffer(data if len(data) % 2 == 0 else bytes(data) + b"\0", ">u2")
    first = second = 0
    step = 1 << 13  # short enough for BLAS to stay in this thread
    weights = np.arange(step, 0, -1, dtype=np.float64)
    for start in range(0, len(words), step):
        block = words[start : start + step].astype(np.float64)  # exact up to 2**53
        second += len(block) * first + int(block @ weights[step - len(block) :])
        first += int(block.sum())
    sums = [(n - 1) % 65535 + 1 if n else 0 for n in (first, second)]
    return (sums[1] << 16 | sums[0]).to_bytes(4, "little")
