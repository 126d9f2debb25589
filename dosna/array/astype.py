"""A dataset read as another dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.home import IndexedLike
from dosna.core.identity import Identified
from dosna.core.text import converted
from dosna.core.types import Array, Shape

__all__ = ["AsType"]


class AsType(Identified):
    """A dataset read as another dtype; made by `EngineDataset.astype`.

    Parameters
    ----------
    dataset : EngineDataset
        The dataset to read.
    dtype : dtype
        The dtype of what is read.
    """

    def __init__(self, dataset: IndexedLike, dtype: np.dtype[Any]) -> None:
        self.dataset = dataset
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"<{self.dataset!r} as {self.dtype}>"

    @property
    def identity(self) -> tuple[Any, ...]:
        return "astype", self.dataset, self.dtype

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self.dataset.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.dataset.ndim

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        found = self.dataset[key]
        if isinstance(found, np.ndarray):
            return converted(found, self.dtype)
        return converted(np.asarray(found, self.dataset.dtype), self.dtype)[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(converted(self.dataset.__array__(copy=copy), self.dtype), dtype)
