"""The work of checking chunks, and of comparing them with a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset, ChunkState
from dosna.core.compare import other_bytes, unequal
from dosna.core.plan import ChunkTask
from dosna.core.types import Shape
from dosna.engines.work.boxes import (
    BoxReader,
    Placed,
    chunks_of,
    extent_of,
    is_remote,
    read_source,
)
from dosna.engines.work.flow import HELD, Flow, Overlapping

__all__ = ["Compare", "Verify"]


@dataclass
class Verify(Overlapping, Placed):
    """The work of checking each chunk; it returns ``(chunk index, state)`` pairs."""

    dataset: BackendDataset

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, ChunkState]]:
        dataset = self.dataset
        found: list[tuple[Shape, ChunkState]] = []
        chunk_size, nbytes = dataset.metadata.chunk_size, dataset.metadata.chunk_nbytes

        def verify(idx: Shape) -> None:
            found.append((idx, dataset.verify_chunk(idx)))

        def verify_all(task: ChunkTask) -> None:
            chunks = chunks_of(task, extent_of(task.out), chunk_size)
            dataset.for_each(verify, [idx for idx, _ in chunks], nbytes)

        with Flow(ahead=self.overlaps and dataset.remote) as flow:
            for _ in flow.read(verify_all, tasks):
                pass
        return found


@dataclass
class Compare(Overlapping, Placed):
    """The work of comparing chunks with an array of the same shape, which should be equal.

    It returns ``(chunk index, number of elements that differ, index of the first)`` for the chunks
    that differ.
    """

    dataset: BackendDataset
    other: Any
    exact: bool = False

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, int, Shape]]:
        chunk_size = self.dataset.metadata.chunk_size
        found = []
        held, both = HELD * self.overlaps, is_remote(self.other)
        read = BoxReader(self.dataset, held)
        other_read = BoxReader(self.other, held) if both else lambda task: None
        with Flow(ahead=self.overlaps) as flow:
            for task, (block, other) in flow.read(lambda t: (read(t), other_read(t)), tasks):
                if other is None:
                    other = read_source(self.other, task.out)
                for idx, place in chunks_of(task, block.shape, chunk_size):
                    differ = (other_bytes if self.exact else unequal)(block[place], other[place])
                    count = int(np.count_nonzero(differ))
                    if count:
                        at = np.unravel_index(int(np.argmax(differ)), differ.shape)
                        start = (i * c for i, c in zip(idx, chunk_size, strict=True))
                        first = tuple(int(s + a) for s, a in zip(start, at, strict=True))
                        found.append((idx, count, first))
        return found
