"""The plan of a query: ranges of entries along the chunks, without those that zones rule out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dosna.columns.description import Tree
from dosna.core.sizes import Limit, parse_size
from dosna.core.types import Array
from dosna.engines.work.boxes import WINDOW_BYTES
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound
from dosna.query.scan import Piece
from dosna.query.zones import OPEN, OUT, Judge

__all__ = ["LEAST_ROWS", "Ranges", "plan_pieces", "step_of"]

LEAST_ROWS = 1 << 19
"""Entries of a range, at least, if their columns are no longer than `_MOST_BYTES`."""

_MOST_BYTES = 16 << 20

_FANOUT = 8
_REQUESTS = 32
"""Chunks of a branch to read together where requests take long: twice those under way."""


@dataclass(frozen=True)
class Ranges:
    """The entries from `start` to `stop`, divided at multiples of `step`."""

    start: int
    stop: int
    step: int
    chunk: int = 0
    """Entries of a chunk of the tree, of which a range may have several; 0 if it is not known."""

    def __len__(self) -> int:
        return max(0, -(-self.stop // self.step) - self.start // self.step)

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """Return the entries of the ranges of the numbers from `first` to before `last`."""
        begin = self.start // self.step
        return (
            max(self.start, (begin + first) * self.step),
            min(self.stop, (begin + last) * self.step),
        )


def plan_pieces(ranges: Ranges, judge: Judge, tests: Sequence[Bound]) -> Iterator[Piece]:
    """Yield the ranges that may have entries which satisfy all tests.

    Those that are likely to be judged alike are judged together first. Of a range of several
    chunks, those at its ends are left out that have no such entries.
    """
    every = tuple(range(len(tests)))
    narrow = _Narrow(ranges, judge)
    for first, last, is_open in _runs(ranges, judge):
        if not is_open:
            yield from _judged(ranges, judge, narrow, first, last)
            continue
        for number in range(first, last):
            yield Piece(*narrow(*ranges.bounds(number, number + 1)), every)


def _runs(ranges: Ranges, judge: Judge) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of ranges that are likely to be judged alike, and True for those left open."""
    count = len(ranges)
    if not judge or count < 2:
        yield 0, count, not judge
        return
    numbers = np.arange(count) + ranges.start // ranges.step
    guess = judge.guess(np.maximum(numbers * ranges.step, ranges.start))
    edges = np.flatnonzero(guess[1:] != guess[:-1]) + 1
    for first, last in pairwise([0, *edges.tolist(), count]):
        yield first, last, guess[first] == OPEN


def _judged(
    ranges: Ranges, judge: Judge, narrow: _Narrow, first: int, last: int
) -> Iterator[Piece]:
    if first >= last:
        return
    verdict, left = judge.verdict(*ranges.bounds(first, last))
    if verdict == "none":
        return
    if verdict == "all" or last - first == 1:
        for number in range(first, last):
            bounds = ranges.bounds(number, number + 1)
            yield Piece(*(bounds if verdict == "all" else narrow(*bounds)), left)
        return
    size = max(1, -(-(last - first) // _FANOUT))
    for begin in range(first, last, size):
        yield from _judged(ranges, judge, narrow, begin, min(begin + size, last))


class _Narrow:
    """Leaves out of ranges the chunks at their ends that zones rule out."""

    def __init__(self, ranges: Ranges, judge: Judge) -> None:
        self._judge, self._chunk = judge, ranges.chunk
        self._out: Array | None = None
        if judge and 0 < ranges.chunk < ranges.step and len(ranges):
            self._first = ranges.start // ranges.chunk
            numbers = np.arange(self._first, -(-ranges.stop // ranges.chunk) + 1)
            self._out = judge.guess(np.maximum(numbers * ranges.chunk, ranges.start)) == OUT

    def __call__(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range that is left of one."""
        if self._out is None:
            return start, stop
        begin = start // self._chunk
        out = self._out[begin - self._first : -(-stop // self._chunk) - self._first]
        if not (out[0] or out[-1]) or out.all():
            return start, stop
        left = np.flatnonzero(~out)
        first = max(start, (begin + int(left[0])) * self._chunk)
        last = min(stop, (begin + int(left[-1]) + 1) * self._chunk)
        # A guess rules nothing out.
        if first > start and self._judge.verdict(start, first)[0] != "none":
            first = start
        if last < stop and self._judge.verdict(last, stop)[0] != "none":
            last = stop
        return first, last


def step_of(columns: Mapping[str, BranchColumn], tree: Tree, memory_limit: Limit) -> int:
    """Return the number of entries in a range: those of a chunk, or of several small ones.

    If requests take long, a range has as many chunks as the store reads at a time.
    """
    step = max(1, tree.chunk_entries)
    entry = sum(column.nbytes for column in columns.values()) / max(1, tree.entries)
    together = min(-(-LEAST_ROWS // step), int(_MOST_BYTES // max(1, entry * step)))
    together = max(together, 1)
    datasets = [ds for column in columns.values() for ds in column.datasets.values()]
    if any(dataset.remote for dataset in datasets):
        most = WINDOW_BYTES if memory_limit is None else parse_size(memory_limit) // 4
        together = max(together, min(_REQUESTS, int(most // max(1, 2 * entry * step))))
    return step * together
