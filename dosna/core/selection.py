"""Selections: the meaning of an index on an array of a given shape, exactly as in NumPy.

A :class:`Selection` describes two arrays. The *result* is the one that NumPy would return. The
*canonical* array is the one that chunks are copied into and out of: all steps are positive, no
axis is dropped or added, and everything indexed by arrays is one flat list of points. Only views
lie between the two, so that no data is moved twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dosna.core.indices import in_range, parts_of, points_along
from dosna.core.types import Array

__all__ = ["Range", "Selection", "select"]

Points = npt.NDArray[np.int64]
Range = tuple[int, int, int]
"""``(start, count, step)`` along one axis, with ``step > 0``."""

_ALIGN = 64
_ALIGN_FROM = 64 * 1024


# Not frozen, and yet never changed: a frozen one takes a quarter longer to select.
@dataclass(slots=True, eq=False)
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
            # NumPy takes an array of one element for a boolean, and for what has no number.
            if self._is_scalar and not (array.size == 1 and array.dtype.kind in "bV"):
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
    parts, hidden, has_arrays, has_ellipsis = parts_of(key, len(shape))
    ranges, out_shape, backward, arrays, out_axis, kept_before = _walk(
        parts, shape, hidden, has_arrays
    )
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


def _walk(
    parts: Sequence[Any], shape: tuple[int, ...], hidden: int, has_arrays: bool
) -> tuple[list[Range | None], list[int], list[bool], list[Array], int, int]:
    """Go through the parts of an index, axis by axis.

    Returns
    -------
    ranges : list
        A range for each axis of the array; None for an axis indexed by an array.
    out_shape : list of int
        The extents of the result, without the points.
    backward : list of bool
        Whether each axis of the canonical array is reversed, without that of the points.
    arrays : list of ndarray
        The points along each axis that is indexed by an array, not yet broadcast.
    out_axis, kept_before : int
        The place of the points in the result; see `Selection`.
    """
    ranges: list[Range | None] = []
    out_shape: list[int] = []
    backward: list[bool] = []
    arrays: list[Array] = []
    out_axis = kept_before = 0
    placed = ended = False
    for item in parts:
        axis = len(ranges)
        if has_arrays and (type(item) is int or isinstance(item, np.ndarray)):
            if not placed:
                out_axis, kept_before, placed = len(out_shape), len(backward), True
            elif ended:
                out_axis = kept_before = 0
            new = points_along(item, shape, axis)
            arrays += new
            ranges += [None] * len(new)
            continue
        ended = placed
        if type(item) is slice:
            steps = range(*item.indices(shape[axis]))
            count, step = len(steps), steps.step
            reverse = count > 1 and step < 0
            first = steps[-1 if reverse else 0] if count else 0
            ranges.append((first, count, abs(step) if count > 1 else 1))
            backward.append(reverse)
            out_shape.append(count)
        elif type(item) is int:
            ranges.append((in_range(item, shape[axis], axis), 1, 1))
            backward.append(False)
        elif item is None:
            out_shape.append(1)
        else:
            rest = shape[axis : axis + hidden]
            ranges += [(0, n, 1) for n in rest]
            out_shape += rest
            backward += [False] * len(rest)
    return ranges, out_shape, backward, arrays, out_axis, kept_before


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
