"""A tree as a dataset for DuckDB, Polars and pyarrow, which push filters and projections down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dosna.errors import MissingDependencyError, QueryError, UnknownNameError
from dosna.query.expressions import Expr, Output, parse
from dosna.query.expressions.doors import from_polars, from_pyarrow
from dosna.query.expressions.functions import nearest
from dosna.query.expressions.nodes import Column, Logical
from dosna.query.query import Query, query
from dosna.query.tables import arrow

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["TreeDataset", "dataset"]

arrow()
from pyarrow import dataset as arrow_dataset  # noqa: E402


def dataset(con: EngineConnection, tree: str, **options: Any) -> TreeDataset:
    """Return a tree as a pyarrow dataset that filters and projects as `Connection.query` does.

    DuckDB finds it by the name of the variable, and Polars uses it by `TreeDataset.to_polars`. The
    parts of a filter that the language of queries can express are used to skip chunks; pyarrow or
    Polars evaluates the rest.

    Parameters
    ----------
    con : EngineConnection
        The connection. Threads of the other program read through it.
    tree : str
        The name of the tree's group, such as ``Events``.
    **options
        Further options of `Connection.query`. ``where`` selects entries before the other program
        does, and ``columns`` are the columns that the other program sees.

    Returns
    -------
    TreeDataset
        The dataset.

    Raises
    ------
    DatasetNotFoundError
        There is no such tree.

    Examples
    --------
    Ask for events in SQL::

        events = dosna.query.dataset(con, "Events")
        duckdb.sql("select run, count(*) from events where nMuon >= 2 group by run")
    """
    return TreeDataset(query(con, tree, **options))


class TreeDataset(arrow_dataset.FileSystemDataset):  # type: ignore[misc]
    """A tree as a pyarrow dataset; created by `dataset`.

    Parameters
    ----------
    whole : Query
        The query of all entries and columns.
    """

    def __init__(self, whole: Query) -> None:
        from pyarrow.fs import LocalFileSystem

        # The C++ part of pyarrow would crash without a dataset of its own. This one has a single
        # file, whose name explains the error when it is not found. No method of this class uses
        # it.
        kind, files = arrow_dataset.IpcFileFormat(), LocalFileSystem()
        name = f"{whole.group} (a tree of dosna, which pyarrow cannot scan by itself: to_table())"
        super().__init__([kind.make_fragment(name, files)], whole.schema, kind, files)
        self._whole = whole
        by_name = whole.tree.by_name
        self._outputs = {output.name: Output(output.name, output.expr) for output in whole.outputs}
        self._forms = {
            name: by_name[name].form
            for name, output in self._outputs.items()
            if output.expr == Column(name) and name in by_name
        }

    @property
    def schema(self) -> Any:
        """The Arrow schema of all columns."""
        return self._whole.schema

    def __repr__(self) -> str:
        return f"<dosna tree {self._whole.group!r} as a pyarrow dataset: {self.schema.names}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._whole,)

    def query(self, where: Expr | str | None, columns: Sequence[str] | None) -> Query:
        """Return the query of some entries and columns.

        Parameters
        ----------
        where : Expr or str, optional
            The condition; by default all entries.
        columns : sequence of str, optional
            The names of the columns; by default all.
        """
        whole, own = self._whole, self._outputs
        for name in columns or ():
            if name not in own:
                raise UnknownNameError(f"query: unknown column {name!r}: {nearest(name, own)}")
        wanted = [own[name] for name in (own if columns is None else columns)]
        condition = where if where is None or isinstance(where, Expr) else parse(where)
        if whole.where is not None:
            condition = joined(whole.where.expr, condition)
        ways = (whole.start, whole.stop, whole.batch_rows, whole.memory_limit, whole.progress)
        return query(whole.con, whole.group, condition, wanted, *ways)

    def scanner(
        self,
        columns: Sequence[str] | Mapping[str, Any] | None = None,
        filter: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        """Return a scanner of some entries and columns.

        Parameters
        ----------
        columns : sequence of str or mapping, optional
            The names of the columns, or expressions of pyarrow by name; by default all.
        filter : pyarrow.compute.Expression, optional
            The condition.
        batch_size : int, optional
            Not used: batches are ranges of chunks.
        **options
            Not used: options of files.

        Returns
        -------
        pyarrow.dataset.Scanner
            The scanner.
        """
        reader, exact = self._reader(columns, filter)
        if exact:
            return arrow_dataset.Scanner.from_batches(reader)
        # pyarrow computes what the language of queries cannot say.
        return arrow_dataset.Scanner.from_batches(reader, columns=columns, filter=filter)

    def _reader(self, columns: Any, filter: Any) -> tuple[Any, bool]:
        """Return batches, and whether they are the result and need no more work."""
        found = None if filter is None else from_pyarrow(filter, self._forms)
        where = None if found is None else found.expr
        if isinstance(columns, Mapping):
            return self.query(where, None).batches(), False
        if found is None or found.exact:
            return self.query(where, columns).batches(), True
        names = self.schema.names if columns is None else columns
        needed = list(dict.fromkeys([*names, *sorted(found.columns)]))
        return self.query(where, needed).batches(), False

    def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """Return some entries and columns as a table; see `scanner`.

        Parameters
        ----------
        columns : sequence of str or mapping, optional
            The columns.
        filter : pyarrow.compute.Expression, optional
            The condition.
        **options
            Not used.

        Returns
        -------
        pyarrow.Table
            The table.
        """
        if not isinstance(columns, Mapping):
            found = None if filter is None else from_pyarrow(filter, self._forms)
            if found is None or found.exact:
                return self.query(None if found is None else found.expr, columns).to_arrow()
        return self.scanner(columns, filter).to_table()

    def to_batches(self, columns: Any = None, filter: Any = None, **options: Any) -> Iterator[Any]:
        """Return batches of some entries and columns; see `scanner`.

        Parameters
        ----------
        columns : sequence of str or mapping, optional
            The columns.
        filter : pyarrow.compute.Expression, optional
            The condition.
        **options
            Not used.

        Returns
        -------
        iterator of pyarrow.RecordBatch
            The batches.
        """
        found: Iterator[Any] = self.scanner(columns, filter).to_batches()
        return found

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """Return the number of entries that satisfy a condition.

        Parameters
        ----------
        filter : pyarrow.compute.Expression, optional
            The condition.
        **options
            Not used.

        Returns
        -------
        int
            The number.
        """
        if filter is None:
            return self._whole.count()
        found = from_pyarrow(filter, self._forms)
        if found.exact:
            return self.query(found.expr, []).count()
        return int(self.scanner(sorted(found.columns), filter).count_rows())

    def head(self, num_rows: int, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """Return the first entries as a table; see `scanner`.

        Parameters
        ----------
        num_rows : int
            The number of entries.
        columns : sequence of str or mapping, optional
            The columns.
        filter : pyarrow.compute.Expression, optional
            The condition.
        **options
            Not used.

        Returns
        -------
        pyarrow.Table
            The table.
        """
        reader, exact = self._reader(columns, filter)
        if not exact:
            scanner = arrow_dataset.Scanner.from_batches(reader, columns=columns, filter=filter)
            return scanner.head(num_rows)
        # A scanner would read ahead of what is needed.
        batches, count = [], 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            if count >= num_rows:
                break
        return arrow().Table.from_batches(batches, reader.schema).slice(0, num_rows)

    def filter(self, expression: Any) -> TreeDataset:
        """Return the dataset of the entries that satisfy a condition.

        Parameters
        ----------
        expression : pyarrow.compute.Expression
            The condition.

        Returns
        -------
        TreeDataset
            The dataset.

        Raises
        ------
        QueryError
            The condition cannot be expressed in the language of queries.
        """
        found = from_pyarrow(expression, self._forms)
        if not found.exact:
            raise QueryError(
                f"query: the filter {str(expression)[:200]} cannot be expressed in the "
                "language of queries: pass it to to_table() or scanner(), or write it as where= "
                "of dataset()"
            )
        return TreeDataset(self.query(found.expr, None))

    def sort_by(self, sorting: Any, **options: Any) -> Any:
        """Return all entries sorted, in memory; see `pyarrow.dataset.Dataset.sort_by`.

        Parameters
        ----------
        sorting : str or list of (str, str)
            The columns.
        **options
            The options of pyarrow.

        Returns
        -------
        pyarrow.dataset.InMemoryDataset
            The entries.
        """
        return self._in_memory().sort_by(sorting, **options)

    def join(self, right_dataset: Any, *keys: Any, **options: Any) -> Any:
        """Join all entries with others, in memory; see `pyarrow.dataset.Dataset.join`.

        Parameters
        ----------
        right_dataset : pyarrow.dataset.Dataset
            The others.
        *keys, **options
            The columns and options of pyarrow.

        Returns
        -------
        pyarrow.dataset.InMemoryDataset
            The entries.
        """
        return self._in_memory().join(_in_memory(right_dataset), *keys, **options)

    def join_asof(self, right_dataset: Any, *keys: Any, **options: Any) -> Any:
        """Join all entries with the nearest; see `pyarrow.dataset.Dataset.join_asof` and `join`.

        Parameters
        ----------
        right_dataset : pyarrow.dataset.Dataset
            The others.
        *keys, **options
            The columns and options of pyarrow.

        Returns
        -------
        pyarrow.dataset.InMemoryDataset
            The entries.
        """
        return self._in_memory().join_asof(_in_memory(right_dataset), *keys, **options)

    def _in_memory(self) -> Any:
        return arrow_dataset.InMemoryDataset(self.to_table())

    def to_polars(self) -> Any:
        """Return the tree as a Polars LazyFrame, which pushes filters and columns down.

        Returns
        -------
        polars.LazyFrame
            The frame.

        Raises
        ------
        MissingDependencyError
            Polars is not installed.
        """
        try:
            import polars
            from polars.io.plugins import register_io_source
        except ImportError as error:
            raise MissingDependencyError(
                f"to_polars() needs the package polars ({error}): pip install polars"
            ) from error

        def source(
            with_columns: list[str] | None,
            predicate: Any,
            n_rows: int | None,
            batch_size: int | None,
        ) -> Iterator[Any]:
            names = self.schema.names if with_columns is None else with_columns
            found = None if predicate is None else from_polars(predicate, self._forms)
            needed, left = list(names), n_rows
            if found is not None and not found.exact:
                needed = list(dict.fromkeys([*names, *sorted(found.columns)]))
            where = None if found is None else found.expr
            for batch in self.query(where, needed).batches():
                frame: Any = polars.from_arrow(batch)
                if found is not None and not found.exact:
                    # select() would take names such as '*' and '^x.*$' for patterns.
                    frame = frame.filter(predicate)[names]
                if left is not None:
                    frame = frame.head(left)
                    left -= len(frame)
                yield frame
                if left == 0:
                    return

        empty: Any = polars.from_arrow(self.schema.empty_table())
        return register_io_source(source, schema=empty.schema, is_pure=True)


def _in_memory(other: Any) -> Any:
    return other._in_memory() if isinstance(other, TreeDataset) else other


def joined(first: Expr, second: Expr | None) -> Expr:
    """Return a condition that holds where both hold, in one row of operands."""
    if second is None:
        return first
    parts: list[Expr] = []
    for expr in (first, second):
        alike = isinstance(expr, Logical) and expr.op == "&&"
        parts += expr.children if alike else [expr]
    return Logical("&&", tuple(parts))
