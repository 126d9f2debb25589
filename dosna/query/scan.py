"""The work of a query: ranges of entries are tested, and read if any entry is selected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dosna.core.indices import true_places
from dosna.core.types import Array
from dosna.engines.base import Reported
from dosna.query.branches import BranchColumn, chosen
from dosna.query.expressions import Bound, evaluate, evaluate_mask
from dosna.query.expressions.nodes import Column
from dosna.query.pushdown import Pushed, pushed, take_together
from dosna.query.remote import Reads
from dosna.query.rows import Known

__all__ = ["Piece", "Rows", "Scan"]


class Piece(NamedTuple):
    """A range of entries, and the numbers of the tests that zones have not decided for it."""

    start: int
    stop: int
    tests: tuple[int, ...] = ()


class Rows(NamedTuple):
    """The entries of a range that satisfy the predicate.

    Parameters
    ----------
    start : int
        The first entry of the range.
    kept : int
        The number of entries that satisfy it.
    values : object
        The columns, as converted by the scan's `convert`; None if no entry satisfies it.
    """

    start: int
    kept: int
    values: Any


Convert = Callable[[dict[str, Any], int], Any]
"""A function of the columns by their names, and of their length."""


@dataclass
class Scan:
    """The work of a query on ranges of entries. It can be pickled.

    Parameters
    ----------
    columns : mapping of str to BranchColumn
        The branches that are needed, by their names.
    tests : sequence of Bound
        The predicates; a selected entry satisfies all of them.
    outputs : sequence of Bound
        The columns of the result.
    convert : callable, optional
        The conversion of the columns of a range. Without it, entries are only counted.
    nbytes : int
        The bytes of the columns of a range, of which stores that have many requests under way
        work on several; 0 for one after the other.
    """

    columns: Mapping[str, BranchColumn]
    tests: Sequence[Bound]
    outputs: Sequence[Bound]
    convert: Convert | None = None
    nbytes: int = 0

    def __post_init__(self) -> None:
        after = frozenset[str]()
        if self.convert is not None:
            after = after.union(*(output.columns for output in self.outputs))
        # The columns that are needed after each test.
        self._needed = [after]
        for test in reversed(self.tests[1:]):
            self._needed.insert(0, self._needed[0] | test.columns)

    def __call__(self, pieces: Iterable[Piece]) -> list[Rows]:
        datasets = [ds for column in self.columns.values() for ds in column.datasets.values()]
        found: list[Rows] = []
        reads = Reads()

        def scan(piece: Piece) -> None:
            found.append(self.one(piece, reads))

        if self.nbytes and datasets and datasets[0].schedules_requests:
            # The few requests for a range are under way together with those for the next ones.
            datasets[0].for_each(scan, _watched(pieces, found), self.nbytes)
        else:
            for piece in pieces:
                scan(piece)
        reads.settle()
        return found

    def one(self, piece: Piece, reads: Reads) -> Rows:
        """Return the entries of a range that satisfy the predicate."""
        window = Window(self.columns, piece.start, piece.stop, reads)
        for number in piece.tests:
            window.test(self.tests[number], self._needed[number])
            if not window.length:
                return Rows(piece.start, 0, None)
        if self.convert is None:
            return Rows(piece.start, window.length, None)
        values = self.convert(window.outputs(self.outputs), window.length)
        return Rows(piece.start, window.length, values)


def _watched(pieces: Iterable[Piece], done: Sequence[Rows]) -> Iterator[Piece]:
    """Yield ranges, of which those in `done` are reported as done when the next is asked for."""
    for asked, piece in enumerate(pieces, 1):
        yield piece
        if isinstance(pieces, Reported):
            pieces.ahead = asked - len(done)


@dataclass
class Window:
    """The remaining entries of a range, and their columns as far as they have been read."""

    columns: Mapping[str, BranchColumn]
    start: int
    stop: int
    reads: Reads
    rows: Array | None = None
    """The numbers of the entries that are left, from `start`; None for all."""
    _held: dict[str, Any] = field(default_factory=dict)
    _known: Known = field(default_factory=dict)
    """The parts of the remaining entries in stored objects, which are alike in many columns."""

    @property
    def length(self) -> int:
        """Number of remaining entries."""
        return self.stop - self.start if self.rows is None else len(self.rows)

    def held(self, names: Iterable[str], kept: bool = False) -> dict[str, Any]:
        """Return columns, reading those that were not needed until now."""
        missing = [name for name in names if name not in self._held]
        if self.rows is not None:
            self._held |= take_together(self.columns, missing, self.start, self.rows, self.reads)
            missing = [name for name in missing if name not in self._held]

        def read(name: str) -> None:
            column = self.columns[name]
            self._held[name] = (
                column.read(self.start, self.stop, kept)
                if self.rows is None
                else column.take(self.start, self.rows, self._known)
            )

        # The requests for a column may be few: those for several are then under way together.
        datasets = [ds for name in missing for ds in self.columns[name].datasets.values()]
        if len(missing) > 1 and datasets and datasets[0].schedules_requests:
            nbytes = max(self.columns[name].nbytes_of(self.stop - self.start) for name in missing)
            datasets[0].for_each(read, missing, nbytes)
        else:
            for name in missing:
                read(name)
        return {name: self._held[name] for name in names}

    def test(self, test: Bound, needed: frozenset[str]) -> None:
        """Drop the entries that fail a test, and the columns that are no longer needed."""
        there, own = None, {}
        if self.rows is None and self._held.keys().isdisjoint(test.columns):
            there = pushed(test, self.columns, self.reads)
        if there is None:
            mask = evaluate_mask(test.expr, self.held(test.columns), self.length)
            every = int(np.count_nonzero(mask)) == len(mask)
            left = None if every else true_places(mask)
        elif there.name in needed and isinstance(there, Pushed):
            left, own[there.name] = there.filter(self.start, self.stop)
        else:
            left = there.rows(self.start, self.stop)
        held = {name: values for name, values in self._held.items() if name in needed}
        if left is not None and len(left) < self.length:
            self.rows = left if self.rows is None else self.rows[left]
            self._known = {}
            held = {name: chosen(value, left) for name, value in held.items()}
        self._held = held | own

    def outputs(self, wanted: Sequence[Bound]) -> dict[str, Any]:
        """Return the columns of the result."""
        held = self.held(frozenset[str]().union(*(output.columns for output in wanted)), kept=True)
        found = {}
        for output in wanted:
            expr = output.expr
            value = held.get(expr.name) if isinstance(expr, Column) else None
            if not isinstance(value, np.ndarray):  # which is just a column
                value = evaluate(expr, held, self.length)
            found[output.name] = value
        return found
