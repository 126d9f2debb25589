"""Handles on single chunks."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape, Slices

__all__ = ["BackendDataChunk"]


class _Dataset(Protocol):
    """The members of a dataset that a handle uses."""

    @property
    def metadata(self) -> DatasetMetadata: ...

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any: ...

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None: ...


class BackendDataChunk:
    """A handle on one block of an array, which is one object of the store.

    Creating a handle neither reads nor writes. A dataset has either `get_chunk_data` and
    `set_chunk_data` of its own, which this class calls, or a subclass of it that reads and writes.
    """

    def __init__(self, dataset: _Dataset, idx: Shape) -> None:
        self.dataset: Any = dataset
        self.idx = idx

    @property
    def name(self) -> str:
        """Name of the chunk, unique within its dataset."""
        return "chunk_" + "_".join(map(str, self.idx))

    def get_data(self, slices: Slices | None = None) -> Any:
        """Read part of the chunk, or its full extent; fill if it was never written.

        Raises
        ------
        ChunkCorruptError
            The stored object is not a chunk of this dataset, or its checksum is wrong.
        """
        if slices is None:
            slices = tuple(map(slice, self.dataset.metadata.chunk_size))
        return self.dataset.get_chunk_data(self.idx, slices)

    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        """Write part of the chunk, or its full extent.

        `values` is broadcast and cast as in a NumPy assignment. The rest of the chunk keeps
        its values (fill, if it was never written), also if others write to it at the same time.
        The part outside of the array stays fill.
        """
        if slices is None:
            metadata = self.dataset.metadata
            values = np.broadcast_to(values, metadata.chunk_size)
            values = values[metadata.bounds(self.idx).chunk]
        self.dataset.set_chunk_data(self.idx, values, slices)
