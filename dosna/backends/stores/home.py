"""What a dataset of a store of bytes uses of its connection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from dosna.backends.base import BackendConnection
from dosna.backends.stores.store import Blob, Store
from dosna.core.metadata import DatasetMetadata

__all__ = ["StoreHome"]


class StoreHome(BackendConnection):
    """A connection as its datasets see it."""

    notes: ClassVar[tuple[str, ...]] = ()
    """What the guarantees of every dataset say in their small print."""

    @property
    @abstractmethod
    def store(self) -> Store:
        """The open store, which refuses every change in mode 'r'."""

    @abstractmethod
    def root(self, name: str) -> str:
        """Return what keys of a dataset begin with."""

    @abstractmethod
    def document(self, name: str) -> str:
        """Return the key of a dataset's metadata."""

    @abstractmethod
    def read_metadata(self, name: str) -> tuple[DatasetMetadata, str]:
        """Read a dataset's metadata, and the version of the document."""

    @abstractmethod
    def metadata_in(self, name: str, found: Blob | None) -> DatasetMetadata:
        """Return the metadata in a document, or raise DatasetNotFoundError."""

    @abstractmethod
    def remember(self, name: str, *described: DatasetMetadata) -> None:
        """Note what keys a dataset may have, before it has them."""

    @abstractmethod
    def object_keys(self, name: str) -> Iterator[str]:
        """Yield the keys of a dataset's stored objects, without what precedes them."""

    @abstractmethod
    def warn_of_lost_writes(self) -> None:
        """Warn, once, where two writers of one chunk may undo each other's work."""

    @abstractmethod
    def drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above what is about to be changed."""
