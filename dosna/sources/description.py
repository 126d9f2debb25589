"""Descriptions of the arrays of sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from dosna.core.types import Shape

__all__ = ["ArrayDescription"]


@dataclass(frozen=True)
class ArrayDescription:
    """The description of an array of a source. It may be sent to other processes.

    Parameters
    ----------
    name : str
        The name: parts joined by '/', as in names of datasets.
    shape : tuple of int
        The extent of each axis; an empty tuple is a scalar.
    dtype : numpy.dtype
        The dtype of the elements that are read, which a dataset can have.
    attrs : mapping
        The attributes: None, bool, int, float, str, lists, mappings, NumPy scalars and arrays.
    chunks : tuple of int, optional
        The extent that the source stores or sends in one piece; None if it reads any part
        equally well.
    chunks_kept : bool
        Whether datasets take these chunks as they are, even if larger ones would be faster.
    pieces : tuple of int, optional
        The extent that is best read together, if that is not `chunks`: rows of a file without
        chunks.
    dims : tuple of str or None, optional
        The names of the axes.
    fillvalue : scalar, optional
        The value of elements that were never written; the dtype's zero by default.
    links : tuple of str
        Other names of the same array.
    notes : tuple of str
        Conversions, and anything else that users of the array should know.
    refused : str
        The reason why a dataset cannot represent the array; empty for an array that can be read.
    """

    name: str
    shape: Shape = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("V1"))
    attrs: Mapping[str, Any] = field(default_factory=dict)
    chunks: Shape | None = None
    chunks_kept: bool = False
    pieces: Shape | None = None
    dims: tuple[str | None, ...] | None = None
    fillvalue: Any = None
    links: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory."""
        return prod(map(int, self.shape)) * self.dtype.itemsize
