"""The parts of an index, as NumPy understands them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from dosna.core.types import Array

__all__ = ["in_range", "parts_of", "points_along", "true_places"]

_INVALID = (
    "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or "
    "boolean arrays are valid indices"
)


def parts_of(key: Any, ndim: int) -> tuple[list[Any], int, bool, bool]:
    """Return the parts of an index: integers, slices, arrays, None, and one ellipsis at most.

    Returns
    -------
    parts : list
        The parts. An ellipsis is appended if the index leaves out axes and has none.
    hidden : int
        The number of axes that the ellipsis stands for.
    has_arrays, has_ellipsis : bool
        True if the index has arrays, or an ellipsis of its own.

    Raises
    ------
    IndexError
        A part is of another kind, or there are too many.
    """
    parts: list[Any] = []
    used = 0
    has_arrays = has_ellipsis = False
    for given in key if isinstance(key, tuple) else (key,):
        item = given
        if type(item) is int or type(item) is slice:
            used += 1
        elif item is Ellipsis:
            if has_ellipsis:
                raise IndexError("an index can only have a single ellipsis ('...')")
            has_ellipsis = True
        elif item is not None:
            item = _integers(given)
            if type(item) is int:
                used += 1
            else:
                used += item.ndim if item.dtype.kind == "b" else 1
                has_arrays = True
        parts.append(item)
    if used > ndim:
        raise IndexError(
            f"too many indices for array: array is {ndim}-dimensional, but {used} were indexed"
        )
    if not has_ellipsis and used < ndim:
        parts.append(Ellipsis)
    return parts, ndim - used, has_arrays, has_ellipsis


def _integers(item: Any) -> Any:
    """Convert any other kind of index to an int, an integer array or a mask."""
    if isinstance(item, (bool, np.bool_)):
        raise _zero_dim(item)
    if isinstance(item, (str, bytes)):
        raise IndexError(
            f"{_INVALID}, not {item!r}; to take a field of a structured array, read first: "
            f"array[...][{item!r}]"
        )
    if isinstance(item, np.ndarray):
        array = item
    else:
        try:
            return operator.index(item)
        except TypeError:
            pass
        try:
            array = np.asarray(item)
        except ValueError as error:
            raise IndexError(f"{_INVALID}: {error}") from None
        if array.size == 0 and array.ndim:
            array = array.astype(np.int64)
    kind = array.dtype.kind
    if kind not in "biu":
        if kind in "SU" and array.ndim == 1:
            raise IndexError(
                f"{_INVALID}, not names; to take fields of a structured array, read first: "
                f"array[...][{array.tolist()!r}]"
            )
        if isinstance(item, np.ndarray) and array.ndim:
            raise IndexError(
                f"arrays used as indices must be of integer (or boolean) type, not {array.dtype}"
            )
        raise IndexError(f"{_INVALID}, not {type(item).__name__}")
    if array.ndim:
        return array
    if kind == "b":
        raise _zero_dim(array)
    return int(array)


def _zero_dim(item: Any) -> IndexError:
    return IndexError(
        f"a boolean without dimensions ({item!r}) is not an index here; use `...` for everything, "
        "or a mask with the shape of the axes that it selects from"
    )


def true_places(mask: Array) -> Array:
    """Return the places of the true elements of a mask with one axis, in order.

    Parameters
    ----------
    mask : ndarray of bool
        The mask.

    Returns
    -------
    ndarray of int64
        The same as of `numpy.flatnonzero`.
    """
    count, length = int(np.count_nonzero(mask)), len(mask)
    first = int(mask.argmax()) if count else 0
    if mask[first : first + count].all():  # as of a range of what is sorted
        return np.arange(first, first + count)
    if not 0.05 * length < count <= 0.1 * length:
        return np.flatnonzero(mask)
    # Up to a tenth of true elements, NumPy looks for each with a loop of its own, beyond that it
    # writes places without branches: at 9 % in 0.8 of 1.5 ns an element. More true ones at the end
    # lead there (row `flat, 10 %` of benchmarks/query.py).
    longer = np.ones(length + length // 8 + 1, bool)
    longer[:length] = mask
    return np.flatnonzero(longer)[:count]


def points_along(item: Any, shape: tuple[int, ...], axis: int) -> list[Array]:
    """Return the points along the axes that one integer, integer array or mask uses up."""
    if type(item) is int:
        return [np.array(in_range(item, shape[axis], axis), np.int64)]
    if item.dtype.kind == "b":
        for i, (n, m) in enumerate(zip(shape[axis:], item.shape, strict=False), axis):
            if n != m:
                raise IndexError(
                    f"boolean index did not match indexed array along axis {i}; size of axis is "
                    f"{n} but size of corresponding boolean axis is {m}"
                )
        found = (true_places(item),) if item.ndim == 1 else item.nonzero()
        return [p.astype(np.int64, copy=False) for p in found]
    n = shape[axis]
    low = 0
    if item.size:
        low, high = int(item.min()), int(item.max())
        in_range(low, n, axis)
        in_range(high, n, axis)
    points: npt.NDArray[np.int64] = item.astype(np.int64, copy=False)
    return [np.where(points < 0, points + n, points) if low < 0 else points]


def in_range(index: int, n: int, axis: int) -> int:
    """Return an index counted from the beginning of an axis, or raise IndexError."""
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of bounds for axis {axis} with size {n}")
    return index + n if index < 0 else index
