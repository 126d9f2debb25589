"""Memory that each thread uses again and again."""

from __future__ import annotations

import threading
from sys import getrefcount
from typing import Any

import numpy as np

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

__all__ = ["bytes_like", "owned", "scratch"]


def bytes_like(array: Array) -> Array:
    """Return a view that the system reads and writes: M, m and V have no buffers."""
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.kind in "MmV" else array


def owned(part: Any) -> Any:
    """Return a part of a chunk in memory of its own.

    Of what indexing gives, arrays and records (`numpy.void`) are views; other scalars are not.
    """
    return part.copy() if isinstance(part, (np.ndarray, np.void)) else part


class _Scratch(threading.local):
    """Memory per thread, for a chunk: fresh memory costs more than reading into it.

    It is used again only when nothing refers to it any more, be it an array, a record, a buffer
    or a caller further up: what somebody keeps never changes under their hands.
    """

    memory: Array = np.empty(0, np.uint8)
    # References to `memory` when nobody uses it: how many is the interpreter's affair.
    idle = 0

    def raw(self, size: int) -> Array:
        """Return bytes, which nobody else uses as long as they or a view of them are kept."""
        if len(self.memory) < size or getrefcount(self.memory) != self.idle:
            self.memory = np.empty(size, np.uint8)
            self.idle = getrefcount(self.memory)
        return self.memory[:size]

    def chunk(self, metadata: DatasetMetadata) -> tuple[Array, Array]:
        """Return an array of a chunk and its bytes, as `raw` does; of text, a new one and none."""
        if metadata.dtype.hasobject:
            return np.empty(metadata.chunk_size, metadata.dtype), self.raw(0)
        raw = self.raw(metadata.chunk_nbytes)
        return raw.view(metadata.dtype).reshape(metadata.chunk_size), raw


scratch = _Scratch()
