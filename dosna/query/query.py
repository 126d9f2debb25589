"""A query of a tree: lazy, and run by the engine of its connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.columns.description import Tree, get_tree
from dosna.core.progress import Progress, reporting
from dosna.core.sizes import Limit, parse_size
from dosna.engines.work.boxes import workers_within
from dosna.errors import QueryTypeError
from dosna.query.branches import BranchColumn, column_of
from dosna.query.explaining import Explanation, explain
from dosna.query.expressions import (
    Bound,
    Output,
    bind_condition,
    bind_projection,
    evaluate,
    parse,
    parse_projection,
)
from dosna.query.expressions.binding import empty
from dosna.query.expressions.nodes import Column, Expr, Logical
from dosna.query.planning import Ranges, plan_pieces, step_of
from dosna.query.scan import Convert, Piece, Rows, Scan
from dosna.query.tables import Batches, arrow, schema_of
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
    """Carry out `EngineConnection.query`."""
    con.check_connected()
    found = get_tree(con, tree)
    forms = {branch.name: branch.form for branch in found.branches}
    condition = None
    if where is not None:
        expr = parse(where) if isinstance(where, str) else where
        condition = bind_condition(expr, forms)
    if columns is None:
        # Nothing is known of their types, which none of all these needs.
        outputs = [
            Bound(Column(name), frozenset((name,)), None, 0, False, name=name) for name in forms
        ]
    else:
        given = [columns] if isinstance(columns, str) else list(columns)
        wanted = [one for one in given if isinstance(one, Output)]
        texts = [one for one in given if isinstance(one, str)]
        outputs = bind_projection([*wanted, *parse_projection(texts)], forms)
    start, stop, _ = slice(entry_start, entry_stop).indices(found.entries)
    if batch_rows is not None and batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
    if memory_limit is not None:
        parse_size(memory_limit)
    return Query(
        con, tree, found, condition, tuple(outputs), start, max(start, stop),
        batch_rows, memory_limit, progress,
    )  # fmt: skip


@dataclass(frozen=True)
class Query:
    """A query of the entries of a tree, which is carried out when its result is asked for.

    It has ``__arrow_c_stream__``, so that DuckDB, Polars, pandas and pyarrow take it for a table.
    `count`, `to_arrow`, `to_awkward` and `to_numpy` share the ranges of entries out over all
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
        The most entries of a batch.
    memory_limit : int, str or None
        The most bytes of columns held at a time, apart from the result.
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
        """The conditions, all of which an entry has to satisfy: those joined by ``&&``."""
        if self.where is None:
            return ()
        forms = {branch.name: branch.form for branch in self.tree.branches}
        expr = self.where.expr
        if isinstance(expr, Logical) and expr.op == "&&":
            try:
                return tuple(bind_condition(one, forms) for one in expr.operands)
            except QueryTypeError:
                pass  # one of them is no condition by itself
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
            A branch is not there, is incomplete, or is of another state of the source than the
            tree.
        """
        names = {name for bound in (*self.tests, *self.outputs) for name in bound.columns}
        by_name = self.tree.by_name
        return {
            name: column_of(self.con, self.group, self.tree, by_name[name])
            for name in sorted(names, key=lambda name: by_name[name].index)
        }

    def scan(self, convert: Convert | None = None) -> tuple[Scan, list[Piece]]:
        """Return the work of the query, and the ranges of entries to do it on.

        Parameters
        ----------
        convert : callable, optional
            What to make of the columns of a range; by default entries are only counted.
        """
        columns = self.open()
        pieces = list(plan_pieces(self.ranges(columns), Judge(columns, self.tests), self.tests))
        return Scan(columns, self.tests, self.outputs, convert), pieces

    def ranges(self, columns: Mapping[str, BranchColumn]) -> Ranges:
        """Return the ranges of entries, before any is ruled out."""
        return Ranges(self.start, self.stop, step_of(columns, self.tree, self.memory_limit))

    def _run(self, convert: Convert | None) -> list[Rows]:
        scan, pieces = self.scan(convert)
        runner, step = self.con.runner, self.ranges(scan.columns).step
        held = 2 * step * bytes_of_entry(scan.columns, self.tree.entries)
        workers = workers_within(self.memory_limit, held, "query")
        picklable = self.con.instance.shared_between_processes
        with runner.reporting(self.progress, len(pieces), "query", "range") as report:
            found = runner.spread(
                scan, pieces, workers=workers, picklable=picklable, report=report
            )
        return sorted(rows for part in found for rows in part)

    # -- results --------------------------------------------------------------------------

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema of the result."""
        return schema_of(self.nothing())

    def nothing(self) -> dict[str, Any]:
        """Return the columns of the result without entries."""
        by_name, found = self.tree.by_name, {}
        for output in self.outputs:
            held = {name: empty(by_name[name].form) for name in output.columns}
            found[output.name] = evaluate(output.expr, held, 0)
        return found

    def count(self) -> int:
        """Return the number of entries that satisfy the condition. Only its columns are read.

        Returns
        -------
        int
            The number.
        """
        return sum(rows.kept for rows in self._run(None))

    def to_arrow(self) -> Any:
        """Return the result as a `pyarrow.Table`.

        Returns
        -------
        pyarrow.Table
            The table, in chunks of a range of entries each.
        """
        pa = arrow()
        found = self._run(Batches(self.schema))
        return pa.Table.from_batches([rows.values for rows in found if rows.kept], self.schema)

    def to_awkward(self) -> Any:
        """Return the result as an awkward array.

        Returns
        -------
        awkward.Array
            An array of records, whose fields are the columns.
        """
        import awkward as ak

        found = [rows.values for rows in self._run(_kept) if rows.kept] or [self.nothing()]
        length = sum(_length(columns) for columns in found)
        joined = {
            name: ak.to_layout(ak.concatenate([columns[name] for columns in found]))
            for name in found[0]
        }
        contents = [layout.to_packed() for layout in joined.values()]
        return ak.Array(ak.contents.RecordArray(contents, list(joined), length=length))

    def to_numpy(self) -> dict[str, Any]:
        """Return the result as NumPy arrays by the names of the columns.

        Returns
        -------
        dict of str to ndarray
            The columns.

        Raises
        ------
        QueryTypeError
            A column is not flat: it has lists, or values that may be missing.
        """
        for name, values in self.nothing().items():
            if not isinstance(values, np.ndarray):
                raise QueryTypeError(
                    f"column {name!r} of the query has {values.type.content} for each entry, and "
                    "is no array of NumPy: use to_awkward(), or to_arrow()"
                )
        found = [rows.values for rows in self._run(_kept) if rows.kept] or [self.nothing()]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def batches(self) -> Any:
        """Return a reader of the result, range of entries after range, in bounded memory.

        Returns
        -------
        pyarrow.RecordBatchReader
            The reader. Each range is read when it is asked for, or a little before.
        """
        return arrow().RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[Any]:
        scan, pieces = self.scan(Batches(self.schema))
        runner, step = self.con.runner, self.ranges(scan.columns).step
        held = 2 * step * bytes_of_entry(scan.columns, self.tree.entries)
        together = min(runner.threads, workers_within(self.memory_limit, held, "query") or 64)
        # Several for each thread, because they wait for each other at the end.
        with reporting(self.progress, len(pieces), "query", "range") as report:
            for first in range(0, len(pieces), 2 * together):
                some = pieces[first : first + 2 * together]
                found = runner.map(scan, some)
                for rows in sorted(rows for part in found for rows in part):
                    if rows.kept:
                        yield from self._cut(rows.values)
                if report is not None:
                    report(first + len(some))

    def _cut(self, batch: Any) -> Iterator[Any]:
        size = self.batch_rows or batch.num_rows
        for first in range(0, batch.num_rows, size):
            yield batch.slice(first, size)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.batches().__arrow_c_stream__(requested_schema)

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
        """Return what the query would read, and where. Nothing is read for it but descriptions.

        Returns
        -------
        Explanation
            The numbers of chunks and bytes. Its text is for people.
        """
        return explain(self)

    def with_entries(self, start: int, stop: int) -> Query:
        """Return the same query of fewer entries.

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


def bytes_of_entry(columns: Mapping[str, BranchColumn], entries: int) -> int:
    """Return the bytes of an entry in all columns, on the average."""
    return -(-sum(column.nbytes for column in columns.values()) // max(1, entries))


def _kept(columns: dict[str, Any], length: int) -> dict[str, Any]:
    return columns


def _length(columns: dict[str, Any]) -> int:
    return len(next(iter(columns.values()))) if columns else 0
