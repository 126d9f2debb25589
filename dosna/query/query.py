"""A query of a tree: lazy, and run by the engine of its connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.columns.description import Tree, get_tree
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.errors import QueryTypeError
from dosna.query.branches import BranchColumn, column_of
from dosna.query.explaining import Explanation, explain
from dosna.query.expressions import (
    Bound,
    Output,
    bind_condition,
    evaluate,
    parse,
)
from dosna.query.expressions.binding import empty
from dosna.query.expressions.nodes import Column, Expr, conjuncts
from dosna.query.planning import Ranges, plan_pieces, step_of
from dosna.query.results import Job, Results, check_limits, columns_of
from dosna.query.scan import Convert, Piece, Scan
from dosna.query.zones import Judge

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Query", "query"]


def query(
    con: EngineConnection,
    tree: str,
    where: str | Expr | None = None,
    columns: str | Iterable[str | Output] | None = None,
    entry_start: int | None = None,
    entry_stop: int | None = None,
    batch_rows: int | None = None,
    memory_limit: Limit = None,
    progress: Progress = None,
) -> Query:
    """Run `EngineConnection.query`."""
    con.check_connected()
    found = get_tree(con, tree)
    forms = {branch.name: branch.form for branch in found.branches}
    condition = None
    if where is not None:
        expr = where if isinstance(where, Expr) else parse(where)
        condition = bind_condition(expr, forms)
    if columns is None:
        # Their types are unknown, and none of these uses needs them.
        outputs = [
            Bound(Column(name), frozenset((name,)), None, 0, False, name=name) for name in forms
        ]
    else:
        outputs = columns_of(columns, forms)
    start, stop, _ = slice(entry_start, entry_stop).indices(found.entries)
    check_limits(batch_rows, memory_limit)
    return Query(
        con, tree, found, condition, tuple(outputs), start, max(start, stop),
        batch_rows, memory_limit, progress,
    )  # fmt: skip


@dataclass(frozen=True)
class Query(Results):
    """A query of the entries of a tree, which runs when its result is requested.

    It has ``__arrow_c_stream__``, so that DuckDB, Polars, pandas and pyarrow accept it as a table.
    `count`, `to_arrow`, `to_awkward` and `to_numpy` divide the ranges of entries among all
    workers, and are collective under the engine ``mpi``; `batches` works in this process.

    Parameters
    ----------
    con : EngineConnection
        The connection.
    group : str
        The name of the tree's group.
    tree : Tree
        The description of the tree, as it was when the query was made.
    where : Bound or None
        The condition.
    outputs : tuple of Bound
        The columns of the result.
    start, stop : int
        The range of entries.
    batch_rows : int or None
        The maximum number of entries of a batch.
    memory_limit : int, str or None
        The maximum memory for columns, apart from the result.
    progress : bool, callable or None
        True for a progress bar, or a callback.
    """

    con: EngineConnection = field(repr=False)
    group: str
    tree: Tree = field(repr=False)
    where: Bound | None
    outputs: tuple[Bound, ...]
    start: int
    stop: int
    batch_rows: int | None = None
    memory_limit: Limit = None
    progress: Progress = field(default=None, repr=False)

    def __repr__(self) -> str:
        where = "" if self.where is None else f" where {self.where.expr}"
        names = ", ".join(output.name for output in self.outputs)
        return (
            f"<dosna.Query of {self.group!r}, entries {self.start} to {self.stop}{where}: {names}>"
        )

    # -- the parts of which a query is made -----------------------------------------------

    @cached_property
    def tests(self) -> tuple[Bound, ...]:
        """The conditions that are joined by ``&&``; a selected entry satisfies all of them."""
        if self.where is None:
            return ()
        forms = {branch.name: branch.form for branch in self.tree.branches}
        parts = conjuncts(self.where.expr)
        if len(parts) > 1:
            try:
                return tuple(bind_condition(one, forms) for one in parts)
            except QueryTypeError:
                pass  # one of them is not a condition by itself
        return (self.where,)

    def open(self) -> dict[str, BranchColumn]:
        """Open the datasets of all branches that are needed.

        Returns
        -------
        dict of str to BranchColumn
            The branches by their names.

        Raises
        ------
        DatasetNotFoundError, DatasetError, SourceChangedError
            A branch does not exist, is incomplete, or belongs to another state of the source than
            the tree.
        """
        names = {name for bound in (*self.tests, *self.outputs) for name in bound.columns}
        by_name = self.tree.by_name
        return {
            name: column_of(self.con, self.group, self.tree, by_name[name])
            for name in sorted(names, key=lambda name: by_name[name].index)
        }

    def scan(self, convert: Convert | None = None) -> tuple[Scan, list[Piece]]:
        """Return the work of the query, and its ranges of entries.

        Parameters
        ----------
        convert : callable, optional
            The conversion of the columns of a range; by default entries are only counted.
        """
        columns = self.open()
        pieces = list(plan_pieces(self.ranges(columns), Judge(columns, self.tests), self.tests))
        nbytes = _longest(pieces) * bytes_of_entry(columns, self.tree.entries)
        together = nbytes if self.memory_limit is None else 0
        return Scan(columns, self.tests, self.outputs, convert, together), pieces

    def ranges(self, columns: Mapping[str, BranchColumn]) -> Ranges:
        """Return the ranges of entries, before any of them is ruled out."""
        step = step_of(columns, self.tree, self.memory_limit)
        return Ranges(self.start, self.stop, step, self.tree.chunk_entries)

    def job(self, convert: Convert | None) -> Job:
        if convert is None and self.outputs:  # counting does not need the columns of the result
            return replace(self, outputs=()).job(None)
        scan, pieces = self.scan(convert)
        entry = bytes_of_entry(scan.columns, self.tree.entries)
        return Job(scan, pieces, 2 * _longest(pieces) * entry)

    def nothing(self) -> dict[str, Any]:
        by_name, found = self.tree.by_name, {}
        for output in self.outputs:
            held = {name: empty(by_name[name].form) for name in output.columns}
            value = held.get(output.expr.name) if isinstance(output.expr, Column) else None
            if not isinstance(value, np.ndarray):
                value = evaluate(output.expr, held, 0)
            found[output.name] = value
        return found

    def forms(self) -> dict[str, Any]:
        by_name = self.tree.by_name
        return {
            output.name: by_name[output.expr.name].form
            for output in self.outputs
            if isinstance(output.expr, Column) and output.expr.name in by_name
        }

    # -- further results ------------------------------------------------------------------

    def to_dask(self) -> Any:
        """Return the result as a Dask dataframe, with a partition for each range of entries.

        Returns
        -------
        dask.dataframe.DataFrame
            The dataframe, with columns of Arrow's types.
        """
        from dosna.query.partitions import dataframe

        return dataframe(self)

    def explain(self) -> Explanation:
        """Return what the query would read, and where. Only descriptions are read for this.

        Returns
        -------
        Explanation
            The numbers of chunks and bytes, whose ``str`` is a summary.
        """
        return explain(self)

    def with_entries(self, start: int, stop: int) -> Query:
        """Return the same query for fewer entries.

        Parameters
        ----------
        start, stop : int
            The range of entries, within that of this query.

        Returns
        -------
        Query
            The query.
        """
        return replace(self, start=max(self.start, start), stop=min(self.stop, stop))


def _longest(pieces: list[Piece]) -> int:
    return max((piece.stop - piece.start for piece in pieces), default=0)


def bytes_of_entry(columns: Mapping[str, BranchColumn], entries: int) -> int:
    """Return the average number of bytes of an entry in all columns."""
    return -(-sum(column.nbytes for column in columns.values()) // max(1, entries))
