"""Arrays of a source whose elements a backend stores in another form."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna.metadata import Shape, same_fill
from dosna.sources.base import Array, ArrayDescription, Box, Source, SourceArray

__all__ = ["ConvertedArray"]


class ConvertedArray(SourceArray):
    """An array of a source, given as a dtype whose fields are in the order of its own.

    Parameters
    ----------
    source : Source
    description : ArrayDescription
    dtype : numpy.dtype
        See `dosna.metadata.plain_fields`.
    view : numpy.dtype
        Of the source's elements: the same fields at their places there.
    """

    def __init__(
        self,
        source: Source,
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
        """Return a value of the source's as a scalar array of the dtype."""
        made = np.zeros((), self._dtype)
        made[...] = np.array(value, self.description.dtype).reshape(1).view(self._view)[0]
        return made
