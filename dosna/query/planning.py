"""The plan of a query: ranges of entries along the chunks, without those that zones rule out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dosna.columns.description import Tree
from dosna.core.sizes import Limit, parse_size
from dosna.engines.work.boxes import WINDOW_BYTES
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound
from dosna.query.scan import Piece
from dosna.query.zones import OPEN, OUT, Judge

__all__ = ["LEAST_ROWS", "Ranges", "plan_pieces", "step_of"]

LEAST_ROWS = 1 << 19
"""Entries of a range, at least, if their columns are no longer than `_MOST_BYTES`.

Ranges are twice as long where a tree has enough of them, because the time for each range without
its entries (0.2 ms) is spent under the interpreter's lock, where threads wait for each other.
"""

_ENOUGH = 8
"""Ranges that keep a few threads busy to the end."""

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
        if self.start >= self.stop:
            return 0
        return -(-self.stop // self.step) - self.start // self.step

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """Return the entries of the ranges of the numbers from `first` to before `last`."""
        begin = self.start // self.step
        return (
            max(self.start, (begin + first) * self.step),
            min(self.stop, (begin + last) * self.step),
        )


def plan_pieces(ranges: Ranges, judge: Judge, tests: Sequence[Bound]) -> Iterator[Piece]:
    """Yield the ranges that may have entries which satisfy all tests.

    Of a range of several chunks, those at its ends are left out that have no such entries.
    """
    every = tuple(range(len(tests)))
    held: Piece | None = None
    for start, stop, left in _spans(ranges, judge, every):
        while start < stop:
            number = start // ranges.step
            end = min(stop, (number + 1) * ranges.step)
            if held is not None and held.start // ranges.step == number:
                # If there are others between the two, these were ruled out by a test.
                alike = held.stop == start and held.tests == left
                held = Piece(held.start, end, left if alike else every)
            else:
                if held is not None:
                    yield held
                held = Piece(start, end, left)
            start = end
    if held is not None:
        yield held


def _spans(ranges: Ranges, judge: Judge, every: tuple[int, ...]) -> Iterator[Piece]:
    """Yield what is left of the entries, of as many chunks as could be judged together."""
    if not judge or not len(ranges):
        yield Piece(ranges.start, ranges.stop, every)
        return
    together = ranges.step // ranges.chunk if 0 < ranges.chunk < ranges.step else 1
    chunks = replace(ranges, step=ranges.step // together)
    begin, count = ranges.start // chunks.step, len(chunks)
    numbers = np.arange(begin, begin + count + 1)
    guess = judge.guess(np.maximum(numbers * chunks.step, ranges.start))[:-1]
    edges = np.flatnonzero(guess[1:] != guess[:-1]) + 1
    for first, last in pairwise([0, *edges.tolist(), count]):
        # Ruling out some within a range would divide it.
        at = (begin + first) % together
        inside = first > 0 and last < count and 0 < at < together - (last - first)
        if inside or guess[first] == OPEN:
            yield Piece(*chunks.bounds(first, last), every)
        else:
            least = 1 if guess[first] == OUT else together
            yield from _judged(chunks, judge, first, last, least)


def _judged(chunks: Ranges, judge: Judge, first: int, last: int, least: int) -> Iterator[Piece]:
    """Yield what zones leave of some chunks, judging at least so many of them together."""
    start, stop = chunks.bounds(first, last)
    verdict, left = judge.verdict(start, stop)
    if verdict == "none":
        return
    if verdict == "all" or last - first <= least:
        yield Piece(start, stop, left)
        return
    size = max(least, -(-(last - first) // _FANOUT))
    for begin in range(first, last, size):
        yield from _judged(chunks, judge, begin, min(begin + size, last), least)


def step_of(columns: Mapping[str, BranchColumn], tree: Tree, memory_limit: Limit) -> int:
    """Return the number of entries in a range: those of a chunk, or of several small ones.

    If requests take long, a range has as many chunks as the store reads at a time.
    """
    step = max(1, tree.chunk_entries)
    entry = sum(column.nbytes for column in columns.values()) / max(1, tree.entries)
    least = min(2 * LEAST_ROWS, max(LEAST_ROWS, tree.entries // _ENOUGH))
    together = min(-(-least // step), int(_MOST_BYTES // max(1, entry * step)))
    together = max(together, 1)
    datasets = [ds for column in columns.values() for ds in column.datasets.values()]
    if any(dataset.remote for dataset in datasets):
        most = WINDOW_BYTES if memory_limit is None else parse_size(memory_limit) // 4
        together = max(together, min(_REQUESTS, int(most // max(1, 2 * entry * step))))
    return step * together
