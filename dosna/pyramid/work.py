"""The work of writing one level from the previous one, which can be pickled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape
from dosna.engines.work.boxes import Placed, by_chunk, bytes_of, extent_of, objects_of, read_box
from dosna.engines.work.flow import Flow, Overlapping
from dosna.pyramid.shrinking import Spans, shrink

__all__ = ["Shrink", "piece_of"]

_PIECE_BYTES = 8 << 20
"""Most bytes that are read at a time, unless a chunk needs more: processors have such caches."""

HELD = 5
"""Most times the bytes of a piece that are held while it is made smaller."""


@dataclass
class Shrink(Overlapping, Placed):
    """The work of writing a level.

    Parameters
    ----------
    source : BackendDataset
        The previous level.
    target : BackendDataset
        The level that is written.
    factors : tuple of int
        The extents of a cell.
    method : str
        The method; see `shrink`.
    spans : sequence of Spans
        The numbers of original elements that those of `source` represent, for each axis.
    piece : tuple of int
        The extent of the part of the level that is computed at a time.
    """

    near: ClassVar[str] = "target"

    source: BackendDataset
    target: BackendDataset
    factors: Shape
    method: str
    spans: Sequence[Spans]
    piece: Shape

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        ahead = self.overlaps and self.source.remote
        behind = self.overlaps and self.target.remote
        with Flow(ahead=ahead, behind=behind) as flow:
            for task, box in flow.read(lambda task: self._box(task.out), tasks):
                flow.write(self.target.write_many, box, objects_of(task.out, self.target.grain))

    def _box(self, box: Sequence[slice]) -> Array:
        """Return a box of the level."""

        def one(place: tuple[slice, ...]) -> Array:
            starts = [b.start + (p.start or 0) for b, p in zip(box, place, strict=True)]
            stops = [b.start + p.stop for b, p in zip(box, place, strict=True)]
            return self._piece(starts, stops)

        return by_chunk(extent_of(box), self.piece, self.target.metadata.dtype, one)

    def _piece(self, starts: Sequence[int], stops: Sequence[int]) -> Array:
        shape = self.source.metadata.shape
        box = tuple(
            slice(a * f, min(n, b * f))
            for a, b, f, n in zip(starts, stops, self.factors, shape, strict=True)
        )
        at_end = [s.stop == n for s, n in zip(box, shape, strict=True)]
        block = read_box(self.source, box)
        return shrink(block, self.factors, self.method, self.spans, at_end)


def piece_of(
    chunk_size: Shape, extent: Shape, factors: Shape, itemsize: int, share: int | None
) -> Shape:
    """Return the extent of the part of a level that is computed at a time: whole chunks.

    Chunks along the last axes are combined first, because they are neighbours in memory.

    Parameters
    ----------
    chunk_size, extent : tuple of int
        The extents of a chunk, and of the part that is written at a time.
    factors : tuple of int
        The extents of a cell.
    itemsize : int
        The bytes of an element.
    share : int, optional
        The maximum memory.
    """
    most = _PIECE_BYTES if share is None else min(_PIECE_BYTES, share // (2 * HELD))
    piece = np.array(chunk_size, np.int64)
    for axis in reversed(range(len(piece))):
        while piece[axis] < extent[axis]:
            piece[axis] *= 2
            if bytes_of((piece * factors).tolist(), itemsize) > most:
                piece[axis] //= 2
                break
    return tuple(piece.tolist())
