"""Arrays whose elements are stored in a file in the same order and form as in memory."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dosna.core.types import Array, Box, Shape
from dosna.io.bytefile import ByteFile

__all__ = ["ContiguousReader", "bytes_of", "rows"]

_PIECE_BYTES = 1 << 16
_GAP = 4096
"""Reading this many unused bytes costs less than another request."""
_MOST_SPAN = 4 << 20


class ContiguousReader:
    """A reader of boxes of an array.

    Parameters
    ----------
    file : ByteFile
        The file of the array.
    offset : int
        The position of the first element in the file.
    shape : tuple of int
        The shape of the array.
    dtype : numpy.dtype
        The type of the elements.
    """

    def __init__(self, file: ByteFile, offset: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.file, self.offset, self.shape, self.dtype = file, offset, shape, dtype
        self._strides = tuple(
            prod(shape[axis + 1 :]) * dtype.itemsize for axis in range(len(shape))
        )

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box into an array of its shape."""
        if not out.size:
            return
        extent, strides = out.shape, self._strides
        # Elements close to each other are read by one request, with the gaps between them.
        axis, span, gapless = len(extent), self.dtype.itemsize, True
        while axis:
            stride, count = strides[axis - 1], extent[axis - 1]
            longer = (count - 1) * stride + span
            gap = stride - span if count > 1 else 0
            if gap > max(_GAP, span) or (gap and longer > _MOST_SPAN):
                break
            gapless = gapless and not gap
            axis, span = axis - 1, longer
        start = self.offset + sum(b.start * s for b, s in zip(box, strides, strict=True))
        straight = gapless and out.flags.c_contiguous and out.dtype == self.dtype
        kind = self.dtype
        if kind.names is not None and out.dtype == kind:
            # NumPy copies field by field, and would leave the bytes between fields uninitialised.
            kind = np.dtype(f"V{kind.itemsize}")
            out = out.view(kind)

        spare: list[Array] = []  # fresh memory takes as long as reading into it

        def read(idx: Shape) -> None:
            place = start + sum(i * s for i, s in zip(idx, strides, strict=False))
            where: Any = (*idx, ...)
            if straight:
                self.file.read_into(place, bytes_of(out[where]))
                return
            try:
                raw = spare.pop()
            except IndexError:  # of the first in each thread
                raw = np.empty(span, np.uint8)
            self.file.read_into(place, bytes_of(raw))
            first = raw[: kind.itemsize].view(kind)
            out[where] = as_strided(first, extent[axis:], strides[axis:])
            spare.append(raw)

        requests = product(*map(range, extent[:axis]))
        if axis:
            self.file.for_each(read, requests)
        else:
            read(())


def bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def rows(shape: Shape, itemsize: int, nbytes: int = _PIECE_BYTES) -> Shape | None:
    """Return the extent of contiguous rows of about `nbytes`, or None without axes."""
    pieces = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        inner = prod(shape[axis + 1 :]) * itemsize
        pieces[axis] = max(1, min(shape[axis], nbytes // max(1, inner)))
        if pieces[axis] < shape[axis]:
            break
    return tuple(pieces) if pieces else None
