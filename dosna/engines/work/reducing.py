"""The work of reducing a dataset to a value, and of clearing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask
from dosna.core.types import Shape
from dosna.engines.work.boxes import BoxReader, Placed, chunks_of
from dosna.engines.work.flow import HELD, Flow, Overlapping

__all__ = ["Clear", "Reduce"]


@dataclass
class Reduce(Overlapping, Placed):
    """The work of reducing each chunk to one value; it returns ``(chunk index, value)`` pairs."""

    dataset: BackendDataset
    ufunc: np.ufunc
    dtype: np.dtype[Any] | None

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[Shape, Any]]:
        reduce, chunk_size = self.ufunc.reduce, self.dataset.metadata.chunk_size
        found = []
        with Flow(ahead=self.overlaps) as flow:
            for task, block in flow.read(BoxReader(self.dataset, HELD * self.overlaps), tasks):
                for idx, place in chunks_of(task, block.shape, chunk_size):
                    found.append((idx, reduce(block[place], axis=None, dtype=self.dtype)))
        return found


@dataclass
class Clear:
    """The work of deleting stored objects; its tasks are their indices."""

    dataset: BackendDataset

    def __call__(self, tasks: Iterable[Shape]) -> None:
        self.dataset.del_objects(tasks)
