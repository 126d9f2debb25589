"""Arrays of sources, indexed like NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from dosna.core.metadata import choose_chunk_size
from dosna.core.plan import plan, touched
from dosna.core.selection import select
from dosna.core.types import Array, Box, Shape
from dosna.core.values import plain_fields, same_fill
from dosna.errors import RefusedError
from dosna.sources.description import ArrayDescription

__all__ = ["ConvertedArray", "ReadableSource", "SourceArray"]


class ReadableSource(Protocol):
    """The members of a source that its arrays use; see `dosna.sources.base.Source`."""

    @property
    def picklable(self) -> bool: ...
    def reading(self) -> AbstractContextManager[object]: ...
    def read_into(self, name: str, box: Box, out: Array) -> None: ...
    def stored(self, name: str) -> Array | None: ...


class SourceArray:
    """An array of a source, indexed like a NumPy array. `EngineDataset.load` takes it.

    Parameters
    ----------
    source : Source
    description : ArrayDescription

    Raises
    ------
    RefusedError
        If a dataset cannot represent the array.
    """

    def __init__(self, source: ReadableSource, description: ArrayDescription) -> None:
        if description.refused:
            raise RefusedError(f"{description.name!r} of {source}: {description.refused}")
        self.source = source
        self.description = description

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self.description.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.description.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> Shape | None:
        """Extent that the source reads in one piece; None if it has none."""
        return self.description.pieces or self.description.chunks

    @property
    def picklable(self) -> bool:
        """True if the array can be sent to another process."""
        return self.source.picklable

    def as_stored(self, dtype: np.dtype[Any]) -> SourceArray:
        """Return this array converted to the dtype that a backend stores, if `dtype` is that."""
        packed, view = plain_fields(self.dtype)
        if dtype == self.dtype or dtype != packed:
            return self
        return ConvertedArray(self.source, self.description, packed, view)

    def stored_in(self, block: Shape, fillvalue: Any) -> Array | None:
        """Return the blocks of a grid that have stored elements, if all others are a fill value.

        Parameters
        ----------
        block : tuple of int
            The extent of a block.
        fillvalue : ndarray
            An array without axes, of the dtype that the blocks will have.

        Returns
        -------
        ndarray of int64, or None
            An array of shape (n, axes): the places of the blocks in the grid. None for all.
        """
        found = self.touched_in(block)
        if found is None:
            return None
        own = self.description.fillvalue
        fill = np.zeros((), self.dtype) if own is None else np.asarray(own, self.dtype)
        return found if same_fill(fill, fillvalue) else None

    def touched_in(self, block: Shape) -> Array | None:
        """Return the blocks of a grid that have stored elements; None for all, or if unknown."""
        found = self.description
        stored = self.source.stored(found.name)
        if stored is None or not self.shape:
            return None
        if not len(stored) or found.chunks is None:
            return np.zeros((0, self.ndim), np.int64)
        return touched(stored, found.chunks, self.shape, block)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self.description.name!r} is a scalar and has no len()")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.description.name!r} of {self.source}: {self.shape}, {self.dtype}>"

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box into an array of its shape."""
        with self.source.reading():
            self.source.read_into(self.description.name, box, out)

    def __getitem__(self, key: Any) -> Any:
        selection = select(key, self.shape)
        result, canonical = selection.allocate(self.dtype)
        if selection.points is None and all(r and r[2] == 1 for r in selection.ranges):
            if selection.size:
                box = tuple(slice(r[0], r[0] + r[1]) for r in selection.ranges if r)
                self.read_into(box, canonical)
            return selection.finish(result)
        # Read chunk by chunk, so that scattered points do not read everything between them.
        pieces = self.description.chunks or choose_chunk_size(self.shape, self.dtype.itemsize)
        for task in plan(selection, pieces):
            box, inside = _bounding(task.idx, task.chunk, pieces)
            block = np.empty([s.stop - s.start for s in box], self.dtype)
            self.read_into(box, block)
            canonical[task.out] = block[inside]
        return selection.finish(result)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                f"{self.description.name!r} is not in memory, so that an array of it is a copy: "
                "omit copy=False"
            )
        return np.asarray(self[...], dtype)


def _bounding(idx: Shape, chunk: Sequence[Any], pieces: Shape) -> tuple[Box, tuple[Any, ...]]:
    """Return the box around a part of a chunk, and the place of the part in the box."""
    box: list[slice] = []
    inside: list[Any] = []
    for i, part, size in zip(idx, chunk, pieces, strict=True):
        start = i * size
        if isinstance(part, slice):
            first, last = part.start, part.stop
            inside.append(slice(0, last - first, part.step))
        else:
            first, last = int(part.min()), int(part.max()) + 1
            inside.append(part - first)
        box.append(slice(start + first, start + last))
    return tuple(box), tuple(inside)


class ConvertedArray(SourceArray):
    """An array of a source, converted to a packed dtype with the same fields in the same order.

    Parameters
    ----------
    source : Source
    description : ArrayDescription
    dtype : numpy.dtype
        The packed dtype, see `dosna.core.values.plain_fields`.
    view : numpy.dtype
        The dtype of the source's elements: the same fields at their places in the source.
    """

    def __init__(
        self,
        source: ReadableSource,
        description: ArrayDescription,
        dtype: np.dtype[Any],
        view: np.dtype[Any],
    ) -> None:
        super().__init__(source, description)
        self._dtype, self._view = dtype, view

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def read_into(self, box: Box, out: Array) -> None:
        block = np.empty(out.shape, self.description.dtype)
        super().read_into(box, block)
        out[...] = block.view(self._view)

    def stored_in(self, block: Shape, fillvalue: Any) -> Array | None:
        own = self.description.fillvalue
        if own is None:
            own = np.zeros((), self.description.dtype)
        if not same_fill(self.filled(own), fillvalue):
            return None
        return self.touched_in(block)

    def filled(self, value: Any) -> Array:
        """Return a value of the source as a scalar array of the packed dtype."""
        made = np.zeros((), self._dtype)
        made[...] = np.array(value, self.description.dtype).reshape(1).view(self._view)[0]
        return made
