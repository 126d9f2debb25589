"""Selections: the meaning of an index on an array of a given shape, exactly as in NumPy.

A :class:`Selection` describes two arrays. The *result* is the one that NumPy would return. The
*canonical* array is the one that chunks are copied into and out of: all steps are positive, no
axis is dropped or added, and everything indexed by arrays is one flat list of points. Only views
lie between the two, so that no data is moved twice.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dosna.core.types import Array

__all__ = ["Range", "Selection", "select"]

Points = npt.NDArray[np.int64]
Range = tuple[int, int, int]
"""``(start, count, step)`` along one axis, with ``step > 0``."""

_INVALID = (
    "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or "
    "boolean arrays are valid indices"
)
_ALIGN = 64
_ALIGN_FROM = 64 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A part of an array of shape `shape`; made by :func:`select`.

    Attributes
    ----------
    shape : tuple of int
        The shape of the array that is indexed.
    out_shape : tuple of int
        The shape of NumPy's result.
    ranges : tuple of (start, count, step) or None
        A range for each axis of the array, with ``step > 0``; None for an axis indexed by an
        array.
    points : tuple of int64 arrays or None
        The points along each axis indexed by an array, in the order of the axes. The arrays are
        flat, equally long and not negative, and include the integers that stand beside arrays in
        the index. None if the index has no arrays.
    point_axis : int
        The axis of the canonical array along which the points lie; 0 without points.
    canonical_shape : tuple of int
        The shape of ``array[tuple(slice or points of each axis)]``.
    """

    shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    ranges: tuple[Range | None, ...]
    points: tuple[Points, ...] | None
    point_axis: int
    canonical_shape: tuple[int, ...]
    _flip: tuple[slice, ...] | None
    _is_scalar: bool
    _point_ndim: int
    # The place of the points in the result: their first axis, and the number of source axes
    # before it.
    _out_axis: int
    _kept_before: int

    @property
    def is_all(self) -> bool:
        """True if this selects the whole array, in order and in its own shape."""
        return (
            self.out_shape == self.shape
            and self.points is None
            and self._flip is None
            and all(r == (0, n, 1) for r, n in zip(self.ranges, self.shape, strict=True))
        )

    @property
    def in_order(self) -> bool:
        """True if the canonical array is the result itself: the same axes, none reversed."""
        return (
            self.points is None and self._flip is None and self.out_shape == self.canonical_shape
        )

    @property
    def size(self) -> int:
        """Number of elements selected."""
        return prod(self.out_shape)

    def allocate(self, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """Make an array for the result.

        Parameters
        ----------
        dtype : dtype
            The type of the elements: not Python objects, but text of variable length is allowed.

        Returns
        -------
        result : ndarray of shape `out_shape`
            An uninitialised, C-contiguous array. A large one starts at a multiple of 64 bytes.
        canonical : ndarray of shape `canonical_shape`
            A view of `result`, to be filled.
        """
        result = _empty(self.out_shape, np.dtype(dtype))
        return result, self._canonical(result)

    def finish(self, result: Array) -> Any:
        """Return what NumPy would return: `result`, or a scalar if the index has only integers."""
        return result[()] if self._is_scalar else result

    def view(self, out: Array) -> Array | None:
        """View an array of shape `out_shape` as a canonical one.

        Parameters
        ----------
        out : ndarray of shape `out_shape`
            The array to view.

        Returns
        -------
        ndarray of shape `canonical_shape`, or None
            A view of `out`. None if its memory layout does not allow a view, which happens only
            with points that were given as arrays of several dimensions.

        Raises
        ------
        ValueError
            `out` has another shape.
        """
        if out.shape != self.out_shape:
            raise ValueError(
                f"out has shape {out.shape}, but the selection has shape {self.out_shape}; "
                f"give an array of shape {self.out_shape}"
            )
        canonical = self._canonical(out)
        if canonical is out or out.size == 0 or np.may_share_memory(canonical, out):
            return canonical
        return None

    def spread(self, values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
        """Broadcast values that are assigned to this selection.

        Parameters
        ----------
        values : array_like
            The values, which are broadcast to `out_shape`. Surplus leading axes of length 1 are
            allowed, as in NumPy.
        dtype : dtype, optional
            The type to convert to, as NumPy's assignment does. The default is the values' own.

        Returns
        -------
        ndarray of shape `canonical_shape`
            The values, read-only if they were broadcast. Nothing is repeated in memory, but points
            in several dimensions may need a copy with one element for each point.

        Raises
        ------
        ValueError
            The values cannot be broadcast.
        """
        array = np.asarray(values, dtype=dtype)
        if array.shape != self.out_shape:
            if self._is_scalar:
                raise ValueError(
                    f"setting an array element with a sequence: one element is selected, but the "
                    f"values have shape {array.shape}"
                )
            array = self._broadcast(array)
        return self._canonical(array)

    def _broadcast(self, values: Array) -> Array:
        array = values
        out_shape = self.out_shape
        extra = array.ndim - len(out_shape)
        if extra > 0 and array.shape[:extra] == (1,) * extra:
            array = array.reshape(array.shape[extra:])
        try:
            if self._point_ndim > 1:
                # Merging the points may copy, so it is done before other axes are repeated.
                np.broadcast_to(array, out_shape)
                shape = [1] * (len(out_shape) - array.ndim) + list(array.shape)
                block = slice(self._out_axis, self._out_axis + self._point_ndim)
                shape[block] = out_shape[block]
                array = np.broadcast_to(array, shape)
                shape[block] = [prod(out_shape[block])]
                flat = [*out_shape[: block.start], shape[block.start], *out_shape[block.stop :]]
                return np.broadcast_to(array.reshape(shape), flat)
            return np.broadcast_to(array, out_shape)
        except ValueError:
            raise ValueError(
                f"could not broadcast input array from shape {_join(values.shape)} "
                f"into shape {_join(out_shape)}"
            ) from None

    def _canonical(self, out: Array) -> Array:
        """Return `out`, of shape `out_shape` (its points may be merged), in canonical form."""
        shape, to = self.canonical_shape, self.point_axis
        if self._kept_before == to:
            canonical = out if out.shape == shape else out.reshape(shape)
        else:
            # NumPy has put the points in front, although their axes are adjacent.
            canonical = out.reshape((shape[to], *shape[:to], *shape[to + 1 :]))
            canonical = canonical.transpose((*range(1, to + 1), 0, *range(to + 1, len(shape))))
        return canonical if self._flip is None else canonical[self._flip]


def select(key: Any, shape: Sequence[int]) -> Selection:
    """Interpret an index as NumPy does.

    Parameters
    ----------
    key : index
        The index between the brackets: integers, slices of any step, ``...``, ``None``,
        boolean masks of any number of dimensions, integer arrays and lists, or a tuple of them.
    shape : sequence of int
        The shape of the array that is indexed.

    Returns
    -------
    Selection
        The selected part of the array.

    Raises
    ------
    IndexError
        NumPy raises it too; or the index has a boolean without dimensions, a field name, or masks
        and points out of range that NumPy ignores because nothing is selected.
    TypeError
        A slice has ends or a step that are not integers.
    ValueError
        The step of a slice is zero.
    """
    shape = tuple(shape)
    ndim = len(shape)
    items: list[Any] = []
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
        items.append(item)
    if used > ndim:
        raise IndexError(
            f"too many indices for array: array is {ndim}-dimensional, but {used} were indexed"
        )
    if not has_ellipsis and used < ndim:
        items.append(Ellipsis)

    ranges: list[Range | None] = []
    out_shape: list[int] = []
    backward: list[bool] = []  # along the canonical axes other than the points'
    arrays: list[Array] = []
    out_axis = kept_before = 0
    placed = ended = False
    for item in items:
        axis = len(ranges)
        is_array = has_arrays and (type(item) is int or isinstance(item, np.ndarray))
        if is_array:
            if not placed:
                out_axis, kept_before, placed = len(out_shape), len(backward), True
            elif ended:
                out_axis = kept_before = 0
            new = _points(item, shape, axis)
            arrays += new
            ranges += [None] * len(new)
            continue
        ended = placed
        if type(item) is slice:
            steps = range(*item.indices(shape[axis]))
            count = len(steps)
            start, step = (steps[0], steps.step) if count > 1 else (steps[0] if count else 0, 1)
            if step < 0:
                start, step = steps[-1], -step
                backward.append(True)
            else:
                backward.append(False)
            ranges.append((start, count, step))
            out_shape.append(count)
        elif type(item) is int:
            ranges.append((_in_range(item, shape[axis], axis), 1, 1))
            backward.append(False)
        elif item is None:
            out_shape.append(1)
        else:
            rest = shape[axis : axis + ndim - used]
            ranges += [(0, n, 1) for n in rest]
            out_shape += rest
            backward += [False] * len(rest)

    canonical_shape = [r[1] for r in ranges if r is not None]
    points: tuple[Points, ...] | None = None
    point_axis = point_ndim = 0
    if has_arrays:
        point_shape = _broadcast_shape(arrays)
        point_ndim = len(point_shape)
        points = tuple(np.broadcast_to(a, point_shape).reshape(-1) for a in arrays)
        out_shape[out_axis:out_axis] = point_shape
        first = ranges.index(None)
        adjacent = all(r is None for r in ranges[first : first + len(points)])
        point_axis = first if adjacent else 0
        canonical_shape.insert(point_axis, len(points[0]))
        backward.insert(point_axis, False)
    flip = None
    if True in backward:
        flip = tuple(slice(None, None, -1) if b else slice(None) for b in backward)
    return Selection(
        shape,
        tuple(out_shape),
        tuple(ranges),
        points,
        point_axis,
        tuple(canonical_shape),
        flip,
        not has_arrays and not has_ellipsis and not out_shape,
        point_ndim,
        out_axis,
        kept_before,
    )


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
        f"a boolean without dimensions ({item!r}) is no index here; use `...` for everything, "
        "or a mask with the shape of the axes that it selects from"
    )


def _points(item: Any, shape: tuple[int, ...], axis: int) -> list[Array]:
    """Return the points along the axes that one integer, integer array or mask uses up."""
    if type(item) is int:
        return [np.array(_in_range(item, shape[axis], axis), np.int64)]
    if item.dtype.kind == "b":
        for i, (n, m) in enumerate(zip(shape[axis:], item.shape, strict=False), axis):
            if n != m:
                raise IndexError(
                    f"boolean index did not match indexed array along axis {i}; size of axis is "
                    f"{n} but size of corresponding boolean axis is {m}"
                )
        return [p.astype(np.int64, copy=False) for p in item.nonzero()]
    n = shape[axis]
    low = 0
    if item.size:
        low, high = int(item.min()), int(item.max())
        _in_range(low, n, axis)
        _in_range(high, n, axis)
    points: Points = item.astype(np.int64, copy=False)
    return [np.where(points < 0, points + n, points) if low < 0 else points]


def _in_range(index: int, n: int, axis: int) -> int:
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of bounds for axis {axis} with size {n}")
    return index + n if index < 0 else index


def _broadcast_shape(arrays: Sequence[Array]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " ".join(_join(a.shape) for a in compress(arrays, (a.ndim for a in arrays)))
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together with shapes {shapes}"
        ) from None


def _join(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _ALIGN_FROM or dtype.hasobject:
        return np.empty(shape, dtype)
    buffer = np.empty(nbytes + _ALIGN, np.uint8)
    skip = -buffer.__array_interface__["data"][0] % _ALIGN
    return buffer[skip : skip + nbytes].view(dtype).reshape(shape)
