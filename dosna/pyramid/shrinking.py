"""Blocks of an array, reduced to the mean, the mode or the first element of each cell.

A cell has `factor` elements on each axis, and fewer at the end of an array whose extent is not a
multiple of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dosna.core.types import Array, Shape

__all__ = ["METHODS", "Spans", "shrink"]


_MOST_SWAPPED = 64
"""Elements of a cell that are sorted by swaps."""


class Spans(NamedTuple):
    """The numbers of original elements that the elements along an axis represent.

    Parameters
    ----------
    each : int
        The number for all elements except the last one of the array.
    last : int
        The number for the last one.
    """

    each: int
    last: int


def shrink(
    block: Array, factors: Shape, method: str, spans: Sequence[Spans], at_end: Sequence[bool]
) -> Array:
    """Return a block reduced by a factor on each axis.

    Parameters
    ----------
    block : ndarray
        A part of an array, which begins with a cell on each axis.
    factors : tuple of int
        The extents of a cell.
    method : {'mean', 'mode', 'stride'}
        The value of a cell: the mean of the original elements, which is rounded for integers to
        the nearest, with ties to even; the most frequent value, or the smallest of several; or the
        first element.
    spans : sequence of Spans
        The numbers of original elements along each axis, which are the weights of a mean.
    at_end : sequence of bool
        True for the axes on which the block ends with the array.

    Returns
    -------
    ndarray
        The values of the cells, of the block's dtype.
    """
    return METHODS[method](block, factors, spans, at_end)


def _stride(block: Array, factors: Shape, spans: Sequence[Spans], at_end: Sequence[bool]) -> Array:
    return np.ascontiguousarray(block[tuple(slice(None, None, f) for f in factors)])


def _mode(block: Array, factors: Shape, spans: Sequence[Spans], at_end: Sequence[bool]) -> Array:
    extent = [-(-n // f) for n, f in zip(block.shape, factors, strict=True)]
    out = np.empty(extent, block.dtype)
    for parts in product(*map(_segments, block.shape, factors)):
        cells = _cells(block[tuple(p.block for p in parts)], [p.cell for p in parts])
        _sort(cells)
        found = cells[0].copy()
        # The length of the run of equal elements that ends at each element.
        run = np.ones(found.shape, np.min_scalar_type(len(cells)))
        longest = run.copy()
        for before, element in pairwise(cells):
            run *= element == before
            run += 1
            longer = run > longest
            np.copyto(longest, run, where=longer)
            np.copyto(found, element, where=longer)
        out[tuple(p.out for p in parts)] = found
    return out


def _sort(cells: Array) -> None:
    """Sort the elements of cells, which are along the first axis."""
    if cells.dtype.kind not in "biu" or len(cells) > _MOST_SWAPPED:
        cells.sort(0)  # NaN is sorted last
        return
    # All cells at once, which takes a tenth of the time of many small sorts.
    for a, b in _swaps(len(cells)):
        least = np.minimum(cells[a], cells[b])
        np.maximum(cells[a], cells[b], out=cells[b])
        cells[a] = least


@cache
def _swaps(count: int) -> list[tuple[int, int]]:
    """Return the pairs that sort elements if each is put in order (Knuth, Algorithm 5.2.2M)."""
    found = []
    first = p = 1 << ((count - 1).bit_length() - 1) if count > 1 else 0
    while p:
        q, rest, step = first, 0, p
        while True:
            found += [(n, n + step) for n in range(count - step) if n & p == rest]
            if q == p:
                break
            step, rest, q = q - p, p, q // 2
        p //= 2
    return found


class _Segment(NamedTuple):
    """A part of an axis whose cells have the same extent."""

    block: slice
    out: slice
    cell: int


def _segments(length: int, factor: int) -> Iterator[_Segment]:
    whole, rest = divmod(length, factor)
    if whole:
        yield _Segment(slice(0, whole * factor), slice(0, whole), factor)
    if rest:
        yield _Segment(slice(whole * factor, length), slice(whole, whole + 1), rest)


def _cells(block: Array, cell: Sequence[int]) -> Array:
    """Return a copy with the elements of each cell along a first axis."""
    counts = [n // c for n, c in zip(block.shape, cell, strict=True)]
    split = block.reshape([part for pair in zip(counts, cell, strict=True) for part in pair])
    axes = range(0, 2 * block.ndim, 2)
    moved = split.transpose(*(axis + 1 for axis in axes), *axes)
    return np.array(moved.reshape(prod(cell), *counts), order="C")


def _mean(block: Array, factors: Shape, spans: Sequence[Spans], at_end: Sequence[bool]) -> Array:
    lasts = [
        _last_weights(n, f, s, end)
        for n, f, s, end in zip(block.shape, factors, spans, at_end, strict=True)
    ]
    total, most = _totals(block.shape, factors, lasts)
    dtype = block.dtype
    if dtype.kind in "fc":
        wide = np.result_type(dtype, np.float32)
        sums = _sums(block, factors, lasts, wide)
        means: Array = np.divide(sums, total, dtype=wide, casting="same_kind")
        return means.astype(dtype, copy=False)
    if dtype.itemsize < 8:
        # The smallest type that holds all sums is the fastest.
        sizes = (n for n in (2, 4) if most << 8 * dtype.itemsize < 1 << (8 * n - 1))
        wide = np.dtype(f"i{next(sizes, 8)}")
        return _divided(_sums(block, factors, lasts, wide), total).astype(dtype)
    # In two halves, because the sum of integers of 64 bits may be too large for one.
    wide, half = np.dtype(np.int64), dtype.type(32)
    high = _sums((block >> half).astype(wide), factors, lasts, wide)
    low = _sums((block & dtype.type(0xFFFFFFFF)).astype(wide), factors, lasts, wide)
    quotient = high // total
    # The last digit of the high half of the result is even, so ties are not affected.
    rest = _divided(((high - quotient * total) << 32) + low, total)
    found: Array = (quotient.astype(np.uint64) << np.uint64(32)) + rest.astype(np.uint64)
    return found.astype(dtype)


def _divided(sums: Array, total: Any) -> Array:
    """Divide integers, rounding to the nearest, with ties to even."""
    total = np.asarray(total, sums.dtype)
    quotient: Array = sums // total
    twice = 2 * (sums - quotient * total)
    up: Array = (twice > total) | ((twice == total) & (quotient % 2 == 1))
    return quotient + up


def _last_weights(length: int, factor: int, spans: Spans, at_end: bool) -> list[int] | None:
    """Return the weights of the elements of a block's last cell; None if it is like the others."""
    count = (length - 1) % factor + 1
    if factor == 1 or not length:
        return None
    if at_end and spans.last != spans.each:
        return [spans.each] * (count - 1) + [spans.last]
    return [1] * count if count < factor else None


def _totals(shape: Shape, factors: Shape, lasts: Sequence[list[int] | None]) -> tuple[Any, int]:
    """Return the weights of the cells, as a number if all are equal, and the largest one."""
    total: Any = prod(f for f, last in zip(factors, lasts, strict=True) if last is None)
    most = total
    for axis, (n, f, last) in enumerate(zip(shape, factors, lasts, strict=True)):
        if last is not None:
            counts = np.full(-(-n // f), f, np.int64)
            counts[-1] = sum(last)
            total = total * counts.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            most *= max(f, sum(last))
    return total, most


def _sums(
    block: Array, factors: Shape, lasts: Sequence[list[int] | None], dtype: np.dtype[Any]
) -> Array:
    """Return the weighted sum of each cell.

    It is computed one axis after the other, beginning with the first, so that less is read with a
    stride each time.
    """
    for axis, (factor, last) in enumerate(zip(factors, lasts, strict=True)):
        if factor == 1:
            continue
        shape = list(block.shape)
        shape[axis] = -(-shape[axis] // factor)
        made = np.empty(shape, dtype)
        across: tuple[Any, ...] = (slice(None),) * axis
        alike = shape[axis] - (last is not None)
        parts = [block[(*across, slice(n, alike * factor, factor))] for n in range(factor)]
        into = made[(*across, slice(0, alike))]
        np.add(parts[0], parts[1], out=into, dtype=dtype)
        for part in parts[2:]:
            np.add(into, part, out=into, dtype=dtype)
        if last is not None:
            left = np.moveaxis(block, axis, -1)[..., alike * factor :]
            made[(*across, -1)] = (left.astype(dtype) * np.array(last, dtype)).sum(-1, dtype)
        block = made
    return block.astype(dtype, copy=False)


METHODS: dict[str, Callable[[Array, Shape, Sequence[Spans], Sequence[bool]], Array]] = {
    "mean": _mean,
    "mode": _mode,
    "stride": _stride,
}
