"""The chunks of the dataset that an array of a source becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dosna.core.metadata import TARGET_CHUNK_BYTES, choose_chunk_size
from dosna.core.sizes import parse_size
from dosna.core.text import element_bytes
from dosna.core.types import Shape
from dosna.sources.base import ArrayDescription

__all__ = ["ChunkSize", "choose_chunks", "chosen_for"]

_LEAST_CHUNK_BYTES = 256 << 10
_MOST_CHUNK_BYTES = 64 << 20

ChunkSize = int | str | Sequence[int] | None


def chosen_for(shape: Shape, wanted: ChunkSize) -> bool:
    """Return True if the wanted chunks apply to an array of this shape."""
    return isinstance(wanted, (int, str)) or (wanted is not None and len(wanted) == len(shape))


def choose_chunks(description: ArrayDescription, wanted: ChunkSize = None) -> Shape:
    """Return the chunks of the dataset that an array becomes.

    Parameters
    ----------
    description : ArrayDescription
    wanted : None, sequence of int, int or str
        An extent for each axis, for arrays with this number of axes; or an approximate size in
        bytes, such as '4 MiB'. None takes the source's own chunks, and joins several of them if
        they are smaller than 256 KiB.

    Returns
    -------
    tuple of int
        The chunks. For a size that was given or chosen, they are multiples of the source's
        chunks, or equal parts of them unless their extents have no small divisors.
    """
    shape, itemsize = description.shape, element_bytes(description.dtype)
    own = description.chunks
    if not chosen_for(shape, wanted):
        wanted = None
    if wanted is not None and not isinstance(wanted, (int, str)):
        return tuple(wanted)
    target = TARGET_CHUNK_BYTES if wanted is None else parse_size(wanted)
    if own is None:
        return choose_chunk_size(shape, itemsize, target)
    if wanted is None and description.chunks_kept:
        return own
    own = tuple(max(1, min(c, n)) for c, n in zip(own, shape, strict=True))
    size = math.prod(own) * itemsize
    if wanted is None and _LEAST_CHUNK_BYTES <= size <= _MOST_CHUNK_BYTES:
        return own
    if size > target:
        return _divided(own, itemsize, target) or choose_chunk_size(own, itemsize, target)
    # Join whole chunks, along the axis of the smallest extent first.
    chunks = list(own)
    while True:
        grown = [
            axis
            for axis in range(len(shape))
            if chunks[axis] < shape[axis] and 2 * math.prod(chunks) * itemsize <= target
        ]
        if not grown:
            return tuple(chunks)
        axis = min(grown, key=lambda a: (chunks[a], -a))
        most = -(-shape[axis] // own[axis]) * own[axis]
        chunks[axis] = min(2 * chunks[axis], most)


def _divided(own: Shape, itemsize: int, target: int) -> Shape | None:
    """Divide chunks evenly, the longest axis first, until they are not above a size."""
    chunks = list(own)
    while math.prod(chunks) * itemsize > target:
        # By small factors only: otherwise chunks become much smaller than wanted.
        factors = {a: f for a, n in enumerate(chunks) for f in (7, 5, 3, 2) if n % f == 0}
        if not factors:
            return None
        axis = max(factors, key=chunks.__getitem__)
        chunks[axis] //= factors[axis]
    return tuple(chunks)
