"""Connections whose datasets are Zarr arrays: the options of a new dataset."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from dosna.backends.base import BackendConnection, BackendDataset
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape
from dosna.core.values import plain_fields

__all__ = ["ArrayConnection"]


class ArrayConnection(BackendConnection):
    """A connection whose datasets are Zarr arrays."""

    def create_dataset(
        self,
        name: str,
        metadata: DatasetMetadata,
        *,
        compression: Any = None,
        checksum: bool = True,
        shards: Shape | None = None,
        dims: Sequence[str | None] | None = None,
    ) -> BackendDataset:
        """Create a dataset, or raise DatasetExistsError. Of several concurrent calls, one wins.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        compression : None, {'gzip', 'zstd', 'blosc'}, mapping or list
            The codec, or a list of several. A mapping has the codec's ``name`` and its options:
            ``{'name': 'blosc', 'cname': 'zstd', 'clevel': 3}``.
        checksum : bool
            True if each chunk ends with a CRC-32C, which is checked whenever the chunk is read.
        shards : tuple of int, optional
            The extent of a shard in elements, on each axis a multiple of the chunk's. All chunks
            within a shard are stored as one object.
        dims : sequence of str or None, optional
            The names of the axes.
        """
        self.check_writable()
        new = zarr3.new_array(metadata, compression, checksum, shards, dims)
        return self.create_array(name, self.describe(name, new))

    @abstractmethod
    def create_array(self, name: str, metadata: DatasetMetadata) -> BackendDataset:
        """Create a dataset whose metadata are complete; see `create_dataset`."""

    def describe(self, name: str, metadata: DatasetMetadata) -> DatasetMetadata:
        """Return the metadata of a new dataset with what this backend has to add to them."""
        return metadata

    def check_dataset(self, name: str, metadata: DatasetMetadata, **options: Any) -> None:
        zarr3.check_json(self.describe(name, zarr3.new_array(metadata, **options)))

    def storable(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return plain_fields(dtype)[0]

    @abstractmethod
    def drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above a dataset or group about to change."""
