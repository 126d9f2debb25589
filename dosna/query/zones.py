"""Zones of the entries of a branch, as long as they are valid."""

from __future__ import annotations

import math
from typing import Any
from typing import Literal as OneOf

import numpy as np

from dosna.backends.dataset import BackendDataset
from dosna.backends.zones import known_zones, unchanged
from dosna.core.types import Array
from dosna.core.zones import Zones
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound, Zone, bounds
from dosna.query.expressions.nodes import TURNED, Column, Compare, Literal

__all__ = ["OPEN", "OUT", "Judge", "Verdict"]

_TOGETHER = 256

OPEN, _LIKELY, OUT = 0, 1, 2

Verdict = OneOf["all", "some", "none"]


class _Stored:
    """The zones of a dataset, and the chunks for which they are known to be valid."""

    def __init__(self, dataset: BackendDataset, zones: Zones, good: Array) -> None:
        self.dataset, self.zones = dataset, zones
        self.chunk, self.rows = zones.chunk, dataset.metadata.shape[0]
        self._good, self._checked = good, ~good
        self._bad: Array | None = None

    def chunks(self, start: int, stop: int) -> slice | None:
        """Return the chunks of a range of rows; None if the zone of one is unknown."""
        if self._bad is None:
            self._bad = np.concatenate([[0], np.cumsum(~self._good)])
        if start >= stop or start < 0 or stop > self.rows:
            return None
        found = slice(start // self.chunk, (stop - 1) // self.chunk + 1)
        return None if self._bad[found.stop] > self._bad[found.start] else found

    def hold(self, chunks: slice) -> bool:
        """Return whether the zones of chunks are still valid. Those that are not are dropped."""
        if not self._checked[chunks].all():
            # Checking many files costs little more than checking a few.
            around = slice(chunks.start, chunks.stop)
            if not self.dataset.remote:
                around = slice(chunks.start // _TOGETHER * _TOGETHER, chunks.stop + _TOGETHER)
            left = np.flatnonzero(~self._checked[around]) + around.start
            same = unchanged(self.dataset, self.zones, left)
            self._checked[left] = True
            if not same.all():
                self._good[left[~same]] = False
                self._bad = None
        return bool(self._good[chunks].all())

    def rows_of(self, chunks: slice) -> int:
        """Return the number of rows of chunks."""
        start, stop = int(chunks.start), int(chunks.stop)
        return min(stop * self.chunk, self.rows) - start * self.chunk


class ColumnZones:
    """The zones of a branch of numbers, of optional numbers, or of lists of numbers.

    The results describe the whole chunks that contain the requested range.

    Parameters
    ----------
    values : _Stored
        The zones of the numbers.
    offsets : _Stored, optional
        The zones of the offsets, for lists and for optional numbers.
    optional : bool
        Whether the lists, of at most one number, are optional numbers.
    """

    def __init__(
        self, values: _Stored, offsets: _Stored | None = None, optional: bool = False
    ) -> None:
        self._values, self._offsets, self._optional = values, offsets, optional

    def zone(self, start: int, stop: int) -> tuple[Zone, list[tuple[_Stored, slice]]] | None:
        """Return what is known about the entries of a range, and from which chunks."""
        if self._offsets is None:
            chunks = self._values.chunks(start, stop)
            if chunks is None:
                return None
            return Zone(**self._extremes(chunks)), [(self._values, chunks)]
        return self._lists(self._offsets, start, stop)

    def ends(self, starts: Array) -> tuple[Array, Array] | None:
        """Return the approximate minima and maxima from each entry to the next.

        The result is None for lists, and if several entries are in one chunk.
        """
        chunks = starts // self._values.chunk
        if self._offsets is not None or (chunks[1:] <= chunks[:-1]).any():
            return None
        zones = self._values.zones
        inside = chunks[chunks < len(zones.least)]
        if not len(inside):
            return None
        least, most = np.full(len(chunks), np.nan), np.full(len(chunks), np.nan)
        least[: len(inside)] = np.fmin.reduceat(zones.least, inside)
        most[: len(inside)] = np.fmax.reduceat(zones.most, inside)
        return least, most

    def _lists(
        self, offsets: _Stored, start: int, stop: int
    ) -> tuple[Zone, list[tuple[_Stored, slice]]] | None:
        steps = offsets.zones.steps
        around = offsets.chunks(start, stop + 1)
        if around is None or steps is None:
            return None
        least, most = offsets.zones.least[around], offsets.zones.most[around]
        first, last = int(least[0]), int(most[-1])
        # There is also a list between the last row of a chunk and the first row of the next.
        between = least[1:] - most[:-1]
        # A chunk of one row has no steps, and records 0.
        single = offsets.chunk == 1
        lengths = between if single else np.concatenate([steps[around].ravel(), between])
        if not len(lengths) or lengths.min() < 0:
            return None
        shortest, longest = int(lengths.min()), int(lengths.max())
        extremes: dict[str, Any] = {"count": 0, "min": None, "max": None, "nans": 0}
        used = [(offsets, around)]
        if first < last:
            chunks = self._values.chunks(first, last)
            if chunks is None:
                return None
            extremes = self._extremes(chunks)
            used.append((self._values, chunks))
        entries = stop - start
        empty = 0 if shortest else entries if not longest else 1
        if self._optional:
            if longest > 1:
                return None
            extremes["count"] += empty
            return Zone(**extremes, nulls=empty), used
        return Zone(**extremes, min_length=shortest, max_length=longest, empty_lists=empty), used

    def _extremes(self, chunks: slice) -> dict[str, Any]:
        zones = self._values.zones
        # These ignore NaN, which is both minimum and maximum of a chunk that contains only NaN.
        least = np.fmin.reduce(zones.least[chunks])
        most = np.fmax.reduce(zones.most[chunks])
        inner = self._values.dataset.metadata.shape[1:]
        count = self._values.rows_of(chunks) * math.prod(inner)
        nothing = least != least
        return {
            "count": count,
            "min": None if nothing else least.item(),
            "max": None if nothing else most.item(),
            "nans": int(zones.nans[chunks].sum()),
        }


def zones_of(column: BranchColumn) -> ColumnZones | None:
    """Return the zones of a branch; None if it has none, or has another form."""

    def stored(dataset: BackendDataset) -> _Stored | None:
        found = known_zones(dataset)
        return None if found is None else _Stored(dataset, *found)

    if column.flat is not None:
        values = stored(column.flat)
        return None if values is None else ColumnZones(values)
    counted = column.numbers or column.optional
    if counted is not None:
        offsets, values = map(stored, counted)
        if values is not None and offsets is not None:
            return ColumnZones(values, offsets, counted is column.optional)
    return None


def _compared(op: str, least: Array, most: Array, number: Any) -> tuple[Array, Array]:
    """Return where a comparison may be true for values in a range, and where for all of them."""
    if op == ">":
        return most > number, least > number
    if op == ">=":
        return most >= number, least >= number
    if op == "<":
        return least < number, most < number
    if op == "<=":
        return least <= number, most <= number
    return (least <= number) & (most >= number), (least == number) & (most == number)


class Judge:
    """Decides whether conditions are true for all entries of a range, or for none.

    Parameters
    ----------
    columns : mapping of str to BranchColumn
        The branches by their names.
    tests : sequence of Bound
        The conditions.
    """

    def __init__(self, columns: Any, tests: Any) -> None:
        self.tests: list[Bound] = list(tests)
        names = {name for test in tests for name in test.columns}
        found = {name: zones_of(columns[name]) for name in sorted(names)}
        self.zones = {name: zones for name, zones in found.items() if zones is not None}
        self._possible = [
            number for number, t in enumerate(tests) if t.columns & self.zones.keys()
        ]

    def __bool__(self) -> bool:
        return bool(self._possible)

    def guess(self, starts: Array) -> Array:
        """Guess the `verdict` on ranges of entries from their beginnings.

        The guess is useful because it covers all ranges at once. Only `verdict` rules a range out,
        whatever the guess is.

        Returns
        -------
        ndarray
            `OPEN` for ranges that zones cannot decide, and other numbers for ranges to judge.
        """
        out, likely = np.zeros(len(starts), bool), np.zeros(len(starts), bool)
        for test in self.tests:
            spans = self._spans(test, starts)
            if spans is None:
                likely[:] |= bool(test.columns & self.zones.keys())
                continue
            out |= ~spans[0]
            likely |= spans[1]
        return np.where(out, OUT, np.where(likely, _LIKELY, OPEN))

    def _spans(self, test: Bound, starts: Array) -> tuple[Array, Array] | None:
        """Return where a comparison with numbers may be true, and where it may always be true."""
        expr = test.expr
        if not isinstance(expr, Compare) or len(test.columns) != 1:
            return None
        (name,) = test.columns
        ends = None if name not in self.zones else self.zones[name].ends(starts)
        if ends is None:
            return None
        possible, certain = np.ones(len(starts), bool), np.ones(len(starts), bool)
        for op, left, right in zip(expr.ops, expr.operands, expr.operands[1:], strict=False):
            flipped = isinstance(left, Literal)
            column, number = (right, left) if flipped else (left, right)
            if column != Column(name) or not isinstance(number, Literal) or op == "!=":
                return None
            if isinstance(number.value, str):
                return None
            found = _compared(TURNED[op] if flipped else op, *ends, number.value)
            possible &= found[0]
            certain &= found[1]
        return possible, certain

    def verdict(self, start: int, stop: int) -> tuple[Verdict, tuple[int, ...]]:
        """Return whether all conditions are true in a range, and the numbers of the open ones."""
        known: dict[str, Any] = {}
        left = list(range(len(self.tests)))
        for number in self._possible:
            found = self._one(number, start, stop, known)
            if found == "none":
                return "none", ()
            if found == "all":
                left.remove(number)
        return ("some" if left else "all"), tuple(left)

    def _one(self, number: int, start: int, stop: int, known: dict[str, Any]) -> Verdict:
        test = self.tests[number]
        while True:
            zones, used = {}, []
            for name in test.columns & self.zones.keys():
                if name not in known:
                    known[name] = self.zones[name].zone(start, stop)
                if known[name] is not None:
                    zones[name], parts = known[name]
                    used += parts
            if not zones:
                return "some"
            found: Verdict = bounds(test, zones)
            if found == "some" or all(stored.hold(chunks) for stored, chunks in used):
                return found
            # A chunk has been written to. The remaining zones may still be sufficient.
            known.clear()
