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
    kinds, array = {type(v) for v in value}, np.asarray(value)
    if len(kinds) != 1 or array.dtype.kind not in ("U" if kinds == {str} else "biufc"):
        raise TypeError("an array of something else would be read back")
    return array
