"""Blocks with their neighbourhood: what to read so that a filter sees past a chunk's edge.

Pure planning. The modes are those of `scipy.ndimage`, named and meant as there
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

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MODES = ("reflect", "mirror", "nearest", "wrap", "constant")


Coordinates = npt.NDArray[np.int64]


class Run(NamedTuple):
    """Neighbouring elements of a source axis, and where they go in the extended block."""

    start: int
    length: int
    reverse: bool
    out: int


class Piece(NamedTuple):
    """A box to read: from where, to where, and how its axes are flipped."""

    source: tuple[slice, ...]
    flip: tuple[slice, ...]
    out: tuple[slice, ...]


def check_halo(halo: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Give one halo per axis.

    Raises
    ------
    ValueError, TypeError
        Wrong number of axes, or a negative or fractional width.
    """
    widths = (halo,) * ndim if isinstance(halo, (int, np.integer)) else tuple(halo)
    if len(widths) != ndim:
        raise ValueError(f"halo {widths} has {len(widths)} axes and the dataset has {ndim}")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
            raise TypeError(f"halo takes whole numbers of elements, not {width!r}")
        if width < 0:
            raise ValueError(f"halo {widths} is negative on an axis")
    return tuple(map(int, widths))


def check_mode(mode: str) -> str:
    """Give the mode, or raise ValueError for one that scipy.ndimage has not."""
    if mode not in MODES:
        raise ValueError(f"boundary is one of {', '.join(MODES)}, and {mode!r} was given")
    return mode


def axis_runs(start: int, stop: int, halo: int, length: int, mode: str) -> list[Run]:
    """Cut the coordinates ``start - halo .. stop + halo`` into runs of real ones.

    Parameters
    ----------
    start, stop : int
        The block, within ``0 .. length``.
    halo : int
    length : int
        Of the axis, at least 1.
    mode : str

    Returns
    -------
    list of Run
        In order; with mode 'constant' what lies outside is in none of them.
    """
    wanted = np.arange(start - halo, stop + halo)
    if mode == "constant":
        inside = (wanted >= 0) & (wanted < length)
        at, real = np.flatnonzero(inside), wanted[inside]
    else:
        at, real = np.arange(len(wanted)), _fold(wanted, length, mode)
    runs = []
    i = 0
    while i < len(real):
        j = i + 1
        step = int(real[j] - real[i]) if j < len(real) else 0
        if step in (-1, 1):
            while j < len(real) and real[j] - real[j - 1] == step:
                j += 1
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
        Where the block lies in the array.
    halo, shape : sequence of int
    mode : str

    Returns
    -------
    list of Piece
        ``extended[out] = array[source][flip]`` for each fills the extended block, save for
        what mode 'constant' leaves to its constant.
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
