"""The axes of a selection, cut along chunks: the columns of which plans are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dosna.core.selection import Points, Range

__all__ = ["Axis", "Groups", "cut", "group"]


class Axis(NamedTuple):
    """An axis, cut along its chunks."""

    idx: Sequence[int]
    chunk: tuple[slice, ...]
    out: tuple[slice, ...]
    whole: tuple[bool, ...]
    any_whole: bool
    all_whole: bool
    # A field, because plans ask for it often and axes are cached.
    length: int

    def part(self, start: int, stop: int) -> Axis:
        if stop - start == self.length:
            return self
        ends = slice(start, stop)
        return _axis(self.idx[ends], self.chunk[ends], self.out[ends], self.whole[ends])


def _axis(
    idx: Sequence[int],
    chunk: tuple[slice, ...],
    out: tuple[slice, ...],
    whole: tuple[bool, ...],
) -> Axis:
    return Axis(idx, chunk, out, whole, True in whole, False not in whole, len(idx))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Points grouped by the chunk that they lie in. The columns are computed on request."""

    chunks: tuple[list[int], ...]  # per axis: the chunk of each group
    bounds: list[int]  # group i is bounds[i]:bounds[i + 1] of ...
    local: tuple[Points, ...]  # ... these points in their chunk, per axis
    order: Points | None  # ... and of these places among the points; None if as given
    offset: int  # place of the first point if as given

    @property
    def length(self) -> int:
        return len(self.bounds) - 1

    @property
    def idx(self) -> Iterable[Any]:
        return self.chunks[0] if len(self.chunks) == 1 else zip(*self.chunks, strict=True)

    @property
    def chunk(self) -> Iterable[Any]:
        columns = [map(points.__getitem__, self._slices(0)) for points in self.local]
        return columns[0] if len(columns) == 1 else zip(*columns, strict=True)

    @property
    def out(self) -> Iterable[Any]:
        if self.order is None:
            return self._slices(self.offset)
        return map(self.order.__getitem__, self._slices(0))

    def part(self, start: int, stop: int) -> Groups:
        if stop - start == self.length:
            return self
        first, last = self.bounds[start], self.bounds[stop]
        return Groups(
            tuple(chunks[start:stop] for chunks in self.chunks),
            [b - first for b in self.bounds[start : stop + 1]],
            tuple(points[first:last] for points in self.local),
            None if self.order is None else self.order[first:last],
            self.offset + first,
        )

    def _slices(self, offset: int) -> Iterator[slice]:
        bounds = [b + offset for b in self.bounds] if offset else self.bounds
        return map(slice, bounds, bounds[1:])


def cut(r: Range, n: int, c: int) -> Axis:
    """Cut a range along chunks of `c` on an axis of length `n`."""
    # A long axis takes a quarter of a kilobyte for each chunk, so only a few of them are cached.
    return _cut_short(r, n, c) if r[1] * r[2] <= 1024 * c else _cut_long(r, n, c)


def _cut_anew(r: Range, n: int, c: int) -> Axis:
    start, count, step = r
    if count == 0:
        return _axis((), (), (), ())
    last = start + (count - 1) * step
    idx: Sequence[int]
    if step <= c:
        idx = range(start // c, last // c + 1)
        # The number of elements of the range before the end of each chunk except the last.
        ends = [-((start - e) // step) for e in range((idx[0] + 1) * c, idx[-1] * c + 1, c)]
        ends.append(count)
    else:
        idx = [i // c for i in range(start, last + 1, step)]
        ends = list(range(1, count + 1))
    begins = [0, *ends[:-1]]
    out = tuple(map(slice, begins, ends))

    def part(at: int) -> tuple[slice, bool]:
        first = idx[at] * c
        begin = start + begins[at] * step - first
        end = start + (ends[at] - 1) * step - first + 1
        size = ends[at] - begins[at]
        return slice(begin, end, step if size > 1 else 1), size == min(c, n - first)

    if step == 1:
        # All are alike except the first and the last.
        cuts = [(slice(0, c, 1), True)] * len(idx)
        cuts[0], cuts[-1] = part(0), part(-1)
    else:
        cuts = [part(at) for at in range(len(idx))]
    chunk, whole = zip(*cuts, strict=True)
    return _axis(idx, chunk, out, whole)


_cut_short = lru_cache(maxsize=128)(_cut_anew)
_cut_long = lru_cache(maxsize=4)(_cut_anew)


def group(points: Sequence[Points], chunk_size: Sequence[int], grid: Sequence[int]) -> Groups:
    """Group points by chunk, in the order of the chunks. Each group keeps the points' order."""
    count = prod(grid)
    kinds = ((16, np.uint16), (32, np.uint32), (63, np.int64))
    dtype = next((kind for bits, kind in kinds if count < 1 << bits), object)
    number: npt.NDArray[Any] = np.zeros(len(points[0]), dtype)
    local = []
    for p, c, g in zip(points, chunk_size, grid, strict=True):
        i = p // c
        number *= g
        number += i.astype(dtype)
        i *= c
        local.append(np.subtract(p, i, out=i))
    order = None
    if np.any(number[1:] < number[:-1]):
        order = _stable_order(number)
        number = number.take(order)
        # Moving narrow numbers costs half as much.
        narrow = [p.astype(np.min_scalar_type(c)) for p, c in zip(local, chunk_size, strict=True)]
        local = [p.take(order).astype(np.int64) for p in narrow]
    starts = np.flatnonzero(number[1:] != number[:-1]) + 1
    bounds = [0, *starts.tolist(), len(number)] if len(number) else [0]
    firsts = number[bounds[:-1]]
    chunks: list[list[int]] = []
    for g in reversed(grid):
        chunks.insert(0, (firsts % g).tolist())
        firsts = firsts // g
    return Groups(tuple(chunks), bounds, tuple(local), order, 0)


def _stable_order(number: npt.NDArray[Any]) -> Points:
    """Return a stable argsort.

    NumPy's radix sort takes at most 16 bits, so numbers of 32 bits are sorted by their halves.
    """
    if number.dtype != np.uint32:
        return np.argsort(number, kind="stable")
    order = np.argsort((number & 0xFFFF).astype(np.uint16), kind="stable")
    high = (number >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")]
