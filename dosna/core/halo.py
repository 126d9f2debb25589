"""Blocks with their neighbourhood: what to read so that a filter sees past a chunk's edge.

This module only plans; it reads nothing. The modes have the names and meanings of `scipy.ndimage`
(https://docs.scipy.org/doc/scipy/tutorial/ndimage.html#interpolation-boundary-handling):

========== =============================
mode       extension of ``a b c d``
========== =============================
reflect    ``d c b a | a b c d | d c b a``
mirror     ``d c b | a b c d | c b a``
nearest    ``a a a | a b c d | d d d``
wrap       ``b c d | a b c d | a b c``
constant   ``k k k | a b c d | k k k``
========== =============================
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MODES = ("reflect", "mirror", "nearest", "wrap", "constant")


Coordinates = npt.NDArray[np.int64]


class Run(NamedTuple):
    """A run of neighbouring elements of a source axis, and its place in the extended block."""

    start: int
    length: int
    reverse: bool
    out: int


class Piece(NamedTuple):
    """A box to read: its source, its destination, and how its axes are flipped."""

    source: tuple[slice, ...]
    flip: tuple[slice, ...]
    out: tuple[slice, ...]


def check_halo(halo: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return one halo width per axis.

    Raises
    ------
    ValueError, TypeError
        The number of axes is wrong, or a width is negative or fractional.
    """
    widths = (halo,) * ndim if isinstance(halo, (int, np.integer)) else tuple(halo)
    if len(widths) != ndim:
        raise ValueError(f"halo must have a width for each of {ndim} axes, not {widths}")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
            raise TypeError(f"halo must be made of integers, not {width!r}")
        if width < 0:
            raise ValueError(f"halo must not be negative on any axis: {widths}")
    return tuple(map(int, widths))


def check_mode(mode: str) -> str:
    """Return the mode, or raise ValueError if scipy.ndimage does not have it."""
    if mode not in MODES:
        raise ValueError(f"boundary must be one of {', '.join(MODES)}, not {mode!r}")
    return mode


def axis_runs(start: int, stop: int, halo: int, length: int, mode: str) -> list[Run]:
    """Cut the coordinates ``start - halo .. stop + halo`` into runs of existing elements.

    Parameters
    ----------
    start, stop : int
        The ends of the block, within ``0 .. length``.
    halo : int
        The width of the halo.
    length : int
        The length of the axis, at least 1.
    mode : str
        The boundary mode.

    Returns
    -------
    list of Run
        The runs, in order. With mode 'constant', coordinates outside of the axis are in none.
    """
    wanted = np.arange(start - halo, stop + halo)
    if mode == "constant":
        inside = (wanted >= 0) & (wanted < length)
        at, real = np.flatnonzero(inside), wanted[inside]
    else:
        at, real = np.arange(len(wanted)), _fold(wanted, length, mode)
    steps = np.diff(real)
    turns = [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    runs = []
    i = 0
    while i < len(real):
        step = int(steps[i]) if i < len(steps) else 0
        # The steps are the same up to the next turn.
        j = turns[bisect_right(turns, i)] + 1 if step in (-1, 1) else i + 1
        low, high = sorted((int(real[i]), int(real[j - 1])))
        runs.append(Run(low, high - low + 1, step == -1 and j - i > 1, int(at[i])))
        i = j
    return runs


def _fold(index: Coordinates, length: int, mode: str) -> Coordinates:
    """Map coordinates outside of ``0 .. length`` to those that stand in for them."""
    if mode == "nearest" or length == 1:
        return np.minimum(np.maximum(index, 0), length - 1)
    if mode == "wrap":
        return index % length
    period = 2 * length if mode == "reflect" else 2 * length - 2
    folded = index % period
    last = period - 1 if mode == "reflect" else period
    return np.where(folded >= length, last - folded, folded)


def pieces(
    block: Sequence[slice], halo: Sequence[int], shape: Sequence[int], mode: str
) -> list[Piece]:
    """List the boxes that make up a block with its halo.

    Parameters
    ----------
    block : sequence of slice
        The place of the block in the array.
    halo, shape : sequence of int
        The width of the halo and the extent of the array on each axis.
    mode : str
        The boundary mode.

    Returns
    -------
    list of Piece
        ``extended[out] = array[source][flip]`` for each piece fills the extended block, except
        for the part that mode 'constant' fills with its constant.
    """
    axes = [
        axis_runs(s.start, s.stop, h, n, mode) for s, h, n in zip(block, halo, shape, strict=True)
    ]
    return [
        Piece(
            tuple(slice(r.start, r.start + r.length) for r in runs),
            tuple(slice(None, None, -1 if r.reverse else 1) for r in runs),
            tuple(slice(r.out, r.out + r.length) for r in runs),
        )
        for runs in product(*axes)
    ]
