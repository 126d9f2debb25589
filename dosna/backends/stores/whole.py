"""Creation of a dataset together with the values of its only chunk, by three requests to a store.

A look into its folder tells that nothing is in its place. Then the chunk is written, and after it
the document, both on condition that they do not exist. So the dataset is complete as soon as it
exists, and what an interruption leaves is a chunk without a document, which the next creation of
that name removes. If another client creates the dataset at the same time, and writes nothing to
it, the chunk may remain in that dataset. Its mark tells then that it does not belong there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dosna.backends.stores.store import ABSENT, VersionConflict
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

if TYPE_CHECKING:
    from dosna.backends.stores.connection import StoreConnection
    from dosna.backends.stores.dataset import StoreDataset

__all__ = ["create_whole"]


def create_whole(
    con: StoreConnection, name: str, metadata: DatasetMetadata, values: Array
) -> StoreDataset | None:
    """Create a dataset; see `BackendConnection.create_whole`. `metadata` are complete."""
    made = con.open_dataset(name, metadata)
    if (
        zarr3.is_sharded(metadata)
        or not all(0 < n <= c for n, c in zip(metadata.shape, metadata.chunk_size, strict=True))
        or not con.store.conditional_puts
    ):
        return None
    if not con.is_vacant(name):
        return None
    began = time.monotonic()
    try:
        made.put_first(values)
        con.await_groups(name)
        version = con.store.put(con.document(name), zarr3.to_json(metadata), ABSENT)
    except VersionConflict:
        return None
    made.note_look(began, version)
    return made
