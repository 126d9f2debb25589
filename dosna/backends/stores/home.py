"""The interface through which a dataset of a store of bytes uses its connection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from dosna.backends.stores.arrays import ArrayConnection
from dosna.backends.stores.chunkcache import ChunkCache, Recheck
from dosna.backends.stores.store import Blob, Store
from dosna.core.metadata import DatasetMetadata

__all__ = ["StoreHome"]


class StoreHome(ArrayConnection):
    """A connection to a store of bytes as its datasets see it."""

    notes: ClassVar[tuple[str, ...]] = ()
    """Notes that are part of the guarantees of every dataset."""

    chunk_cache: ChunkCache | None = None
    """Cache of decoded chunks, or None."""

    def use_cache(self, limit: int, recheck: Recheck) -> None:
        self.chunk_cache = ChunkCache(limit, recheck)

    @property
    @abstractmethod
    def store(self) -> Store:
        """Open store, which refuses every change in mode 'r'."""

    @abstractmethod
    def root(self, name: str) -> str:
        """Return the prefix of a dataset's keys, without the '/' that follows it."""

    @abstractmethod
    def document(self, name: str) -> str:
        """Return the key of a dataset's metadata."""

    @abstractmethod
    def read_metadata(self, name: str) -> tuple[DatasetMetadata, str]:
        """Read the metadata of a dataset, with the version of the document that holds them."""

    @abstractmethod
    def metadata_in(self, name: str, found: Blob | None) -> DatasetMetadata:
        """Return the metadata in a document that was read, or raise DatasetNotFoundError."""

    @abstractmethod
    def remember(self, name: str, *described: DatasetMetadata) -> str | None:
        """Record which keys a dataset may have, before it has them."""

    @abstractmethod
    def object_keys(self, name: str) -> Iterator[str]:
        """Yield the keys of all objects of a dataset, including its document."""

    @abstractmethod
    def warn_of_lost_writes(self) -> None:
        """Warn, once, if two writers of one chunk may undo each other's work."""
