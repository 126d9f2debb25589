"""The parts of a query that stores evaluate where the chunks are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dosna.core.indices import true_places
from dosna.core.types import Array
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound
from dosna.query.expressions.nodes import Call
from dosna.query.programs import Program, program_of
from dosna.query.remote import Reads, Remote, remote_of, take_all
from dosna.query.rows import check_rows

__all__ = ["Pushed", "PushedLists", "pushed", "take_together"]


class PushedLists(NamedTuple):
    """A test of the elements of lists, for their store: ``any(…)`` or ``all(…)`` of one column.

    Parameters
    ----------
    name : str
        The name of the column.
    column : BranchColumn
        The column. Its offsets are read, and its elements are not.
    remote : Remote
        The dataset of the elements.
    program : Program
        The test of an element.
    passing : bool
        True if lists pass that have an element which passes; False if those that have none.
    """

    name: str
    column: BranchColumn
    remote: Remote
    program: Program
    passing: bool

    def rows(self, start: int, stop: int) -> Array:
        """Return the entries of a range that pass, counted from its start."""
        offsets = self.column.counted(start, stop)
        first, last = int(offsets[0]), int(offsets[-1])
        check_rows(self.remote.dataset, last)
        found = self.remote.rows(first, last, self.program) if first < last else offsets[:0]
        has = np.zeros(stop - start, bool)
        has[np.searchsorted(offsets, found + first, "right") - 1] = True
        return true_places(has if self.passing else ~has)


class Pushed(NamedTuple):
    """A test of one column, to be evaluated by its store.

    Parameters
    ----------
    name : str
        The name of the column.
    remote : Remote
        The dataset of the column.
    program : Program
        The test.
    """

    name: str
    remote: Remote
    program: Program

    def rows(self, start: int, stop: int) -> Array:
        """Return the entries of a range that pass, counted from its start."""
        check_rows(self.remote.dataset, stop)
        return self.remote.rows(start, stop, self.program)

    def filter(self, start: int, stop: int) -> tuple[Array, Array]:
        """Return the entries of a range that pass, and the values of the column."""
        check_rows(self.remote.dataset, stop)
        return self.remote.filter(start, stop, self.program)


def pushed(
    test: Bound, columns: Mapping[str, BranchColumn], reads: Reads | None = None
) -> Pushed | PushedLists | None:
    """Return a test for the store of its column; None if it has to be evaluated here."""
    if len(test.columns) != 1:
        return None
    (name,) = test.columns
    if columns[name].numbers is not None:
        return _pushed_lists(test, name, columns[name], reads)
    flat = columns[name].flat
    remote = None if flat is None else remote_of(flat, reads)
    if flat is None or remote is None:
        return None
    program = program_of(test.expr, name, flat.metadata.dtype)
    return None if program is None else Pushed(name, remote, program)


def _pushed_lists(
    test: Bound, name: str, column: BranchColumn, reads: Reads | None
) -> PushedLists | None:
    expr, numbers = test.expr, column.numbers
    if numbers is None or not isinstance(expr, Call) or expr.function not in ("any", "all"):
        return None
    content = numbers[1]
    remote = remote_of(content, reads)
    if remote is None:
        return None
    program = program_of(expr.arguments[0], name, content.metadata.dtype)
    if program is not None and expr.function == "all":
        program = program.negated()
    if program is None:
        return None
    return PushedLists(name, column, remote, program, expr.function == "any")


def take_together(
    columns: Mapping[str, BranchColumn],
    names: Iterable[str],
    start: int,
    rows: Array,
    reads: Reads,
) -> dict[str, Array]:
    """Return some rows of the columns whose stores can select rows, with one request for all.

    Parameters
    ----------
    columns : mapping of str to BranchColumn
        The columns.
    names : iterable of str
        The names of the columns to read.
    start : int
        The row from which they are counted.
    rows : ndarray of int
        The numbers of the rows, which increase.
    reads : Reads
        Where the reads are noted, for the caller to settle.
    """
    remotes: dict[str, Remote] = {}
    for name in names:
        flat = columns[name].flat
        remote = None if flat is None or not len(rows) else remote_of(flat, reads)
        if remote is not None:
            check_rows(remote.dataset, start + int(rows[-1]) + 1)
            remotes[name] = remote
    if not remotes:
        return {}
    return dict(zip(remotes, take_all([*remotes.values()], rows + start), strict=True))
