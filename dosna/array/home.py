"""The interface of a connection that its datasets use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from dosna.backends.base import BackendConnection, BackendDataset
from dosna.core.identity import Identified
from dosna.core.types import Array, Shape
from dosna.engines.base import Runner

__all__ = ["ArrayHome", "ChunkedLike", "DatasetLike", "IndexedLike"]

R = TypeVar("R")


class ArrayHome(Identified, ABC):
    """A connection as its datasets see it."""

    instance: BackendConnection
    runner: Runner

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the connection."""

    @abstractmethod
    def check_connected(self) -> None:
        """Raise NotConnectedError unless the connection is open."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise ReadOnlyError unless the connection is open for writing."""

    @abstractmethod
    def check_free(self, name: str) -> None:
        """Raise DatasetExistsError if there is a dataset of that name."""

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Return True if there is a dataset of that name."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Iterate over the sorted names of the datasets."""

    @abstractmethod
    def __getitem__(self, name: str) -> Any:
        """Open a dataset."""

    @abstractmethod
    def names_in(self, group: str) -> list[str]:
        """List the names of datasets in a group."""

    @abstractmethod
    def get_group_attrs(self, name: str = "") -> dict[str, Any]:
        """Return the attributes of a group."""

    @abstractmethod
    def beside(self, instance: BackendConnection) -> Any:
        """Return a connection under the same engine to another place."""

    @abstractmethod
    def create_dataset(self, name: str, *args: Any, **options: Any) -> Any:
        """Create a dataset."""

    @abstractmethod
    def create_like(self, model: Any, name: str, dtype: Any, *, incomplete: bool = False) -> Any:
        """Create an empty dataset chunked and stored as `model` is, with its attributes."""

    @abstractmethod
    def create_filled(
        self, create: Callable[[], Any], data: Any, progress: Any, memory_limit: Any
    ) -> Any:
        """Create a dataset and load it. If loading fails, delete the dataset again."""

    @abstractmethod
    def discard(self, made: Any) -> None:
        """Delete a dataset that could not be completed, unless it was replaced since."""


class DatasetLike(Protocol):
    """A dataset as its attributes see it."""

    connection: ArrayHome
    instance: BackendDataset
    runner: Runner

    @property
    def identity(self) -> tuple[Any, ...]: ...

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def ndim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def fillvalue(self) -> Any: ...

    @property
    def chunk_size(self) -> Shape: ...

    def __len__(self) -> int: ...

    def check_writable(self) -> None: ...

    def change(self, make: Callable[[], R]) -> R: ...


class IndexedLike(DatasetLike, Protocol):
    """A dataset as its views see it."""

    def __getitem__(self, key: Any) -> Any: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array: ...


class ChunkedLike(DatasetLike, Protocol):
    """A dataset as its chunks see it."""

    def read_chunk(self, idx: Shape, key: Any, extent: Shape) -> Any: ...

    def write_chunk(self, idx: Shape, values: Any, key: Any, extent: Shape) -> None: ...
