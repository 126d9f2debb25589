"""The work that a format writer is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.request import ExportRequest
from dosna.core.types import Array, Shape

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset
    from dosna.engines.base import Runner

__all__ = ["Job", "array_of_list", "file_chunks"]


@dataclass(frozen=True)
class Job:
    """The work that a format writer is asked to do.

    Parameters
    ----------
    datasets : sequence of EngineDataset
        The datasets to write, all of one connection.
    request : ExportRequest
        The options of the export.
    """

    datasets: Sequence[EngineDataset]
    request: ExportRequest

    @property
    def runner(self) -> Runner:
        """The runner that does the work."""
        return self.datasets[0].runner


def file_chunks(metadata: DatasetMetadata, chunk_size: int | Sequence[int] | None) -> Shape:
    """Return the chunks of a dataset in a file of HDF5: not larger than the array."""
    chunks = metadata.chunk_size
    if chunk_size is not None:
        chunks = new_metadata(metadata.shape, metadata.dtype, None, chunk_size).chunk_size
    return tuple(max(1, min(c, n)) for c, n in zip(chunks, metadata.shape, strict=True))


def array_of_list(value: list[Any]) -> Array:
    """Return the array that HDF5 keeps for an attribute that is a list.

    Raises
    ------
    TypeError
        If its values are not of one kind: something else would be read back.
    """
    array = np.asarray(value)
    flat = np.asarray(value, object).ravel().tolist()
    kinds = {type(v) for v in flat}
    if kinds == {str}:
        # NumPy drops NULs at the end.
        alike = array.ndim == 1 and array.tolist() == flat
    else:
        # Of integers that no dtype has together, NumPy makes floats.
        alike = len(kinds) == 1 and array.dtype.kind in ("iu" if kinds == {int} else "bfciu")
    if not alike:
        raise TypeError("an array of something else would be read back")
    return array
