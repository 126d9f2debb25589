"""The parts of a query that stores evaluate where the chunks are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dosna.core.types import Array
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound
from dosna.query.programs import Program, program_of
from dosna.query.remote import Remote, remote_of, take_all
from dosna.query.rows import check_rows

__all__ = ["Pushed", "pushed", "take_together"]


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


def pushed(test: Bound, columns: Mapping[str, BranchColumn]) -> Pushed | None:
    """Return a test for the store of its column; None if it has to be evaluated here."""
    if len(test.columns) != 1:
        return None
    (name,) = test.columns
    flat = columns[name].flat
    program = None if flat is None else program_of(test.expr, name, flat.metadata.dtype)
    if flat is None or program is None:
        return None
    remote = remote_of(flat)
    return None if remote is None else Pushed(name, remote, program)


def take_together(
    columns: Mapping[str, BranchColumn], names: Iterable[str], rows: Array
) -> dict[str, Array]:
    """Return some rows of the columns whose stores can select rows, with one request for all.

    Parameters
    ----------
    columns : mapping of str to BranchColumn
        The columns.
    names : iterable of str
        The names of the columns to read.
    rows : ndarray of int
        The numbers of the rows, which increase.
    """
    remotes: dict[str, Remote] = {}
    for name in names:
        flat = columns[name].flat
        remote = None if flat is None or not len(rows) else remote_of(flat)
        if remote is not None:
            check_rows(remote.dataset, int(rows[-1]) + 1)
            remotes[name] = remote
    return dict(zip(remotes, take_all([*remotes.values()], rows), strict=True))
