"""Reductions of a dataset: to one value, or along axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dosna.array.chunked import Chunked, windows
from dosna.core.plan import every_chunk
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import is_text
from dosna.core.types import Array, Shape
from dosna.engines.base import collective
from dosna.engines.work.boxes import Window, box_of, bytes_of
from dosna.engines.work.reducing import Reduce, ReduceAlong, run_of

__all__ = ["Reductions"]

_Op = Literal["sum", "mean", "min", "max"]
_Axis = int | Sequence[int] | None


class Reductions(Chunked):
    """The sum, mean, minimum and maximum of a dataset."""

    @collective
    def reduce(
        self,
        op: _Op,
        axis: _Axis = None,
        *,
        keepdims: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> Any:
        """Reduce the array, or each line along some axes, with NumPy's rules for dtype and NaN.

        Chunks are added in C order, floats in float64 at least, so that the result is the same for
        every engine and number of workers.

        Parameters
        ----------
        op : {'sum', 'mean', 'min', 'max'}
            The operation.
        axis : int or sequence of int, optional
            The axes to reduce; by default all of them.
        keepdims : bool
            True to keep the reduced axes, with the length 1.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'. The result comes on top.

        Returns
        -------
        scalar or ndarray
            The result, of the dtype that NumPy gives; an array in memory if axes are left.

        Raises
        ------
        ValueError
            `op` is none of the four operations, or there is no such axis
            (`numpy.exceptions.AxisError`).
        TypeError
            The dataset holds text.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> float(ds.reduce("mean"))
        4.5
        >>> ds.reduce("max", axis=0)
        array([5, 6, 7, 8])
        """
        self.connection.check_connected()
        self.note_reading()
        if op not in ("sum", "mean", "min", "max"):
            raise ValueError(f"reduce has no operation {op!r}: use 'sum', 'mean', 'min' or 'max'")
        if is_text(self.dtype):
            raise TypeError(f"{op} of dataset {self.name!r} is impossible: its elements are text")
        ndim = len(self.shape)
        axes = range(ndim) if axis is None else normalize_axis_tuple(axis, ndim, "axis")
        model = np.asarray(getattr(np, op)(np.zeros(1, self.dtype)))
        if self.size == 0:
            empty = np.empty(self.shape, self.dtype)
            return getattr(np, op)(empty, axis=tuple(axes), keepdims=keepdims)
        ufunc, wide = _accumulator(op, self.dtype)
        if len(axes) == ndim:
            total = self._to_one(ufunc, wide, progress, memory_limit)
        else:
            total = self._along(ufunc, wide, tuple(sorted(axes)), progress, memory_limit)
        if op == "mean":
            total = total / prod(self.shape[a] for a in axes)
        if keepdims:
            total = total.reshape([1 if a in axes else n for a, n in enumerate(self.shape)])
        return total.astype(model.dtype, copy=False)[()]

    def _to_one(
        self,
        ufunc: np.ufunc,
        wide: np.dtype[Any] | None,
        progress: Progress,
        memory_limit: Limit,
    ) -> Array:
        work = Reduce(self.instance, ufunc, wide)
        block = 2 * bytes_of(self.instance.grain, self.dtype.itemsize)
        parts = self.spread("reduce", work, block, progress, memory_limit)
        pairs = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
        return np.asarray(ufunc.reduce(np.array([value for _, value in pairs]), dtype=wide))

    def _along(
        self,
        ufunc: np.ufunc,
        wide: np.dtype[Any] | None,
        axes: Shape,
        progress: Progress,
        memory_limit: Limit,
    ) -> Array:
        dtype = ufunc.reduce(np.zeros(1, self.dtype), dtype=wide).dtype
        dataset, shape = self.instance, self.shape
        # What is read, what of it is reduced, and the sums.
        block = bytes_of(dataset.grain, 2 * self.dtype.itemsize + dtype.itemsize)
        box, overlaps = Window(dataset.grain, False)
        if dataset.remote:
            held = max(block, dataset.metadata.chunk_nbytes)
            box, overlaps = windows(self, dataset.grain, held, memory_limit)
        run = run_of(shape, dataset.grain, axes, dtype.itemsize)
        region = tuple([run[a] if a in axes else n for a, n in enumerate(box)])
        box = tuple(map(min, box, region))
        work = ReduceAlong(dataset, ufunc, wide, dtype, axes, region, box, overlaps=overlaps)
        regions = every_chunk(shape, region)
        parts = self.spread("reduce", work, block, progress, memory_limit, tasks=regions)
        total = np.empty([n for a, n in enumerate(shape) if a not in axes], dtype)
        for idx, values in sorted((pair for part in parts for pair in part), key=lambda p: p[0]):
            place = box_of(idx, shape, region).out
            into = total[tuple([s for a, s in enumerate(place) if a not in axes])]
            if any(idx[a] for a in axes):
                ufunc(into, values, out=into)
            else:
                into[...] = values
        return total

    def sum(
        self,
        axis: _Axis = None,
        dtype: None = None,
        out: None = None,
        keepdims: bool = False,
        **of_numpy: Any,
    ) -> Any:
        """Return the sum of the elements, of all or along axes.

        ``np.sum(ds)`` calls this method too. See `reduce` for the rules.

        Parameters
        ----------
        axis : int or sequence of int, optional
            The axes to reduce; by default all of them.
        dtype, out : None
            Accepted because NumPy passes them; any other value is an error.
        keepdims : bool
            True to keep the reduced axes, with the length 1.
        **of_numpy
            Other parameters of NumPy, such as `where` and `initial`, which are errors.

        Returns
        -------
        scalar or ndarray
            The sum of the elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            `dtype`, `out` or another parameter of NumPy was given, or the dataset holds text.
        ValueError
            There is no such axis (`numpy.exceptions.AxisError`).

        Examples
        --------
        >>> int(ds.sum())
        36
        >>> ds.sum(axis=0)
        array([ 6,  8, 10, 12])
        """
        return self._reduced("sum", axis, keepdims, dtype=dtype, out=out, **of_numpy)

    def mean(
        self,
        axis: _Axis = None,
        dtype: None = None,
        out: None = None,
        keepdims: bool = False,
        **of_numpy: Any,
    ) -> Any:
        """Return the mean of the elements, of all or along axes.

        ``np.mean(ds)`` calls this method too. See `reduce` for the rules.

        Parameters
        ----------
        axis : int or sequence of int, optional
            The axes to reduce; by default all of them.
        dtype, out : None
            Accepted because NumPy passes them; any other value is an error.
        keepdims : bool
            True to keep the reduced axes, with the length 1.
        **of_numpy
            Other parameters of NumPy, such as `where` and `initial`, which are errors.

        Returns
        -------
        scalar or ndarray
            The mean of the elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            `dtype`, `out` or another parameter of NumPy was given, or the dataset holds text.
        ValueError
            There is no such axis (`numpy.exceptions.AxisError`).

        Examples
        --------
        >>> float(ds.mean())
        4.5
        >>> ds.mean(axis=1)
        array([2.5, 6.5])
        """
        return self._reduced("mean", axis, keepdims, dtype=dtype, out=out, **of_numpy)

    def min(
        self, axis: _Axis = None, out: None = None, keepdims: bool = False, **of_numpy: Any
    ) -> Any:
        """Return the smallest element, of all or along axes.

        ``np.min(ds)`` calls this method too. See `reduce` for the rules.

        Parameters
        ----------
        axis : int or sequence of int, optional
            The axes to reduce; by default all of them.
        out : None
            Accepted because NumPy passes it; any other value is an error.
        keepdims : bool
            True to keep the reduced axes, with the length 1.
        **of_numpy
            Other parameters of NumPy, such as `where` and `initial`, which are errors.

        Returns
        -------
        scalar or ndarray
            The smallest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            `out` or another parameter of NumPy was given, or the dataset holds text.
        ValueError
            There is no such axis (`numpy.exceptions.AxisError`).

        Examples
        --------
        >>> int(ds.min())
        1
        >>> ds.min(axis=1)
        array([1, 5])
        """
        return self._reduced("min", axis, keepdims, out=out, **of_numpy)

    def max(
        self, axis: _Axis = None, out: None = None, keepdims: bool = False, **of_numpy: Any
    ) -> Any:
        """Return the largest element, of all or along axes.

        ``np.max(ds)`` calls this method too. See `reduce` for the rules.

        Parameters
        ----------
        axis : int or sequence of int, optional
            The axes to reduce; by default all of them.
        out : None
            Accepted because NumPy passes it; any other value is an error.
        keepdims : bool
            True to keep the reduced axes, with the length 1.
        **of_numpy
            Other parameters of NumPy, such as `where` and `initial`, which are errors.

        Returns
        -------
        scalar or ndarray
            The largest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            `out` or another parameter of NumPy was given, or the dataset holds text.
        ValueError
            There is no such axis (`numpy.exceptions.AxisError`).

        Examples
        --------
        >>> int(ds.max())
        8
        >>> ds.max(axis=1)
        array([4, 8])
        """
        return self._reduced("max", axis, keepdims, out=out, **of_numpy)

    def _reduced(self, op: _Op, axis: _Axis, keepdims: bool, **of_numpy: Any) -> Any:
        for name, value in of_numpy.items():
            if value is not None:
                raise TypeError(
                    f"{op} of a dataset takes no {name}. Convert the result, or use "
                    f"np.{op}(ds[...], {name}=…) if the elements fit into memory"
                )
        return self.reduce(op, axis, keepdims=keepdims)


def _accumulator(op: _Op, dtype: np.dtype[Any]) -> tuple[np.ufunc, np.dtype[Any] | None]:
    """Return the function that adds chunks up, and the dtype of the sum; None for its own."""
    if op in ("min", "max"):
        return (np.minimum if op == "min" else np.maximum), None
    if dtype.kind in "fc":
        return np.add, np.result_type(dtype, np.float64)
    if op == "mean" and dtype.kind in "biu":
        return np.add, np.dtype(np.float64)
    return np.add, None
