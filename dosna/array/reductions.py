"""Reductions of a dataset to one value."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from dosna.array.chunked import Chunked
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import is_text
from dosna.engines.base import collective
from dosna.engines.work.boxes import bytes_of
from dosna.engines.work.reducing import Reduce

__all__ = ["Reductions"]

_Op = Literal["sum", "mean", "min", "max"]


class Reductions(Chunked):
    """The sum, mean, minimum and maximum of a dataset."""

    @collective
    def reduce(
        self,
        op: _Op,
        *,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> Any:
        """Reduce the whole array to one value, with NumPy's rules for dtype and NaN.

        The sums of the chunks are added in the order of the chunks, in float64 for smaller floats,
        so that the result is the same for every engine and number of workers.

        Parameters
        ----------
        op : {'sum', 'mean', 'min', 'max'}
            The operation.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        scalar
            The result, of the dtype that NumPy gives.

        Raises
        ------
        ValueError
            `op` is none of the four operations.
        TypeError
            The dataset holds text.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> float(ds.reduce("mean"))
        4.5
        """
        self.connection.check_connected()
        self.note_reading()
        if op not in ("sum", "mean", "min", "max"):
            raise ValueError(f"reduce has no operation {op!r}: use 'sum', 'mean', 'min' or 'max'")
        if is_text(self.dtype):
            raise TypeError(f"{op} of dataset {self.name!r} is impossible: its elements are text")
        model = getattr(np, op)(np.zeros(1, self.dtype))
        if self.size == 0:
            return getattr(np, op)(np.empty(self.shape, self.dtype))
        ufunc, wide = _accumulator(op, self.dtype)
        work = Reduce(self.instance, ufunc, wide)
        block = 2 * bytes_of(self.instance.grain, self.dtype.itemsize)
        parts = self.spread("reduce", work, block, progress, memory_limit)
        pairs = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
        total = ufunc.reduce(np.array([value for _, value in pairs]), dtype=wide)
        if op == "mean":
            total = total / self.size
        return np.asarray(total).astype(np.asarray(model).dtype)[()]

    def sum(self, axis: None = None, dtype: None = None, out: None = None) -> Any:
        """Return the sum of all elements; see `reduce`. ``np.sum(ds)`` calls this method too.

        Parameters
        ----------
        axis, dtype, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The sum of all elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> int(ds.sum())
        36
        """
        return self._reduced("sum", axis, dtype, out)

    def mean(self, axis: None = None, dtype: None = None, out: None = None) -> Any:
        """Return the mean of all elements; see `reduce`. ``np.mean(ds)`` calls this method too.

        Parameters
        ----------
        axis, dtype, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The mean of all elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> float(ds.mean())
        4.5
        """
        return self._reduced("mean", axis, dtype, out)

    def min(self, axis: None = None, out: None = None) -> Any:
        """Return the smallest element; see `reduce`. ``np.min(ds)`` calls this method too.

        Parameters
        ----------
        axis, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The smallest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> int(ds.min())
        1
        """
        return self._reduced("min", axis, out)

    def max(self, axis: None = None, out: None = None) -> Any:
        """Return the largest element; see `reduce`. ``np.max(ds)`` calls this method too.

        Parameters
        ----------
        axis, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The largest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> int(ds.max())
        8
        """
        return self._reduced("max", axis, out)

    def _reduced(self, op: _Op, *of_numpy: None) -> Any:
        if any(argument is not None for argument in of_numpy):
            raise TypeError(
                f"{op} of a dataset takes no axis, dtype or out: it reduces all elements. Use "
                f"np.{op}(ds[...], …) if they fit into memory, or dask.array.from_array(ds)"
            )
        return self.reduce(op)


def _accumulator(op: _Op, dtype: np.dtype[Any]) -> tuple[np.ufunc, np.dtype[Any] | None]:
    """Return the function that adds chunks up, and the dtype of the sum; None for its own."""
    if op in ("min", "max"):
        return (np.minimum if op == "min" else np.maximum), None
    if dtype.kind in "fc":
        return np.add, np.result_type(dtype, np.float64)
    if op == "mean" and dtype.kind in "biu":
        return np.add, np.dtype(np.float64)
    return np.add, None
