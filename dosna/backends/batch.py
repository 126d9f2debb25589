"""Datasets that are created, filled and completed together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from dosna.backends.dataset import BackendDataset
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

__all__ = ["Batch", "Change", "Description"]

Change = Callable[[DatasetMetadata], DatasetMetadata]

Description = tuple[str, DatasetMetadata, Mapping[str, Any]]
"""The name of a new dataset, its metadata, and the options of `create_dataset`."""


class Home(Protocol):
    """The members of a connection that a batch uses."""

    @property
    def create_dataset(self) -> Any: ...

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None: ...


class Batch(ABC):
    """Datasets that are created, filled and completed together.

    The methods here do each step at once. Where each step waits for the disk, a subclass puts
    steps off until `commit`, and then waits once for all of them. A process that dies before
    that leaves datasets that are whole, marked as incomplete, or absent.

    Parameters
    ----------
    connection : BackendConnection
        The connection that the datasets belong to.
    """

    def __init__(self, connection: Home) -> None:
        self.connection = connection

    @property
    def due(self) -> bool:
        """True if so much has been put off that `commit` should be called now."""
        return False

    @abstractmethod
    def create_whole(
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        values: Array | None,
    ) -> None:
        """Create a complete dataset of at most one chunk, in one step.

        Errors of a name that is taken may come from `commit`.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The metadata of the dataset.
        options : mapping
            The options of `create_dataset`.
        values : ndarray or None
            All elements; None for a dataset of which nothing is stored.
        """

    def prepare(self, descriptions: Iterable[Description]) -> None:  # noqa: B027
        """Prepare datasets that `create` will be called for, so that each call is fast."""

    def create(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> BackendDataset:
        """Create a dataset at once, as `create_dataset` of the connection does."""
        made: BackendDataset = self.connection.create_dataset(name, metadata, **options)
        return made

    def complete(self, dataset: BackendDataset, completed: Change) -> None:
        """Mark a dataset as complete. The handle must not be used afterwards.

        Parameters
        ----------
        dataset : BackendDataset
            The dataset.
        completed : callable
            A function that returns the metadata of the complete dataset for those before.
        """
        dataset.update(completed)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        """Replace the attributes of a group that holds datasets by a function of what they are."""
        self.connection.change_group_attrs(name, change)

    def commit(self) -> dict[str, Exception]:
        """Do all that was put off, and return the errors by the names of datasets."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Remove what was prepared and is not needed."""
