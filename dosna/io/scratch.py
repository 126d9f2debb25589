"""Memory that each thread reuses."""

from __future__ import annotations

import threading
from sys import getrefcount
from typing import Any

import numpy as np

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

__all__ = ["bytes_like", "owned", "scratch"]


def bytes_like(array: Array) -> Array:
    """Return a view that system calls can read and write, also for the kinds M, m and V."""
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.kind in "MmV" else array


def owned(part: Any) -> Any:
    """Return a part of a chunk in memory of its own.

    Arrays and records (`numpy.void`) that indexing returns are views; other scalars are not.
    """
    return part.copy() if isinstance(part, (np.ndarray, np.void)) else part


class _Scratch(threading.local):
    """Memory per thread for a chunk, because new memory costs more than reading into it.

    It is reused only if nothing refers to it any more: no array, record or buffer, and no caller
    further up. Data that are still referred to never change.
    """

    memory: Array = np.empty(0, np.uint8)
    # The references to `memory` when it is not in use; their number depends on the interpreter.
    idle = 0

    def raw(self, size: int) -> Array:
        """Return memory that is not used otherwise as long as it or a view of it is kept."""
        if len(self.memory) < size or getrefcount(self.memory) != self.idle:
            self.memory = np.empty(size, np.uint8)
            self.idle = getrefcount(self.memory)
        return self.memory[:size]

    def chunk(self, metadata: DatasetMetadata) -> tuple[Array, Array]:
        """Return an array for a chunk and its bytes, in the memory of `raw`.

        For text, the array is a new one and there are no bytes.
        """
        if metadata.dtype.hasobject:
            return np.empty(metadata.chunk_size, metadata.dtype), self.raw(0)
        raw = self.raw(metadata.chunk_nbytes)
        return raw.view(metadata.dtype).reshape(metadata.chunk_size), raw


scratch = _Scratch()
