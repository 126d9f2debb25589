"""Values that are appended to a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna.array.indexing import ArrayAccess
from dosna.array.values import is_source
from dosna.backends.resizing import fits
from dosna.core.casting import check_values
from dosna.core.types import Array, Shape
from dosna.engines.work.boxes import plain, read_source

__all__ = ["values_to_append"]


class _Appended:
    """A source that is appended, which may be the dataset itself, or a view of it.

    It keeps the extent that it had before the append. A value that `dtype` would change is an
    error.

    Parameters
    ----------
    source : object
        The source of the values.
    shape : tuple of int
        The shape of the source before the append.
    dtype : dtype
        The dtype of the dataset.
    """

    def __init__(self, source: Any, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.source = source.instance if isinstance(source, ArrayAccess) else source
        self.shape, self.dtype = shape, np.dtype(source.dtype)
        self._target = dtype

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        return check_values(read_source(self.source, key), self._target, "data to append")


def values_to_append(dataset: ArrayAccess, data: Any, axis: int) -> Any:
    """Return data as an array or a source of the dataset's values.

    Raises
    ------
    ValueError
        The data have another shape, or values that the dataset's dtype does not have.
    """
    values = data if is_source(data) else plain(data)
    given = tuple(values.shape)
    if not fits(given, dataset.shape, axis):
        raise ValueError(
            f"cannot append data of shape {given} to dataset {dataset.name!r} of shape "
            f"{dataset.shape}: all axes but {axis} must have the same extents"
        )
    if isinstance(values, np.ndarray):
        return check_values(values, dataset.dtype, "data to append")
    return _Appended(values, given, dataset.dtype)
