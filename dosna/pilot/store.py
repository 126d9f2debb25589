"""The state in a database, from which a manager continues after it was killed."""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from dosna.core.url import without_password
from dosna.errors import ConfigurationError, StorageError
from dosna.io.advisory import AdvisoryLock
from dosna.io.database import close_engine, first_line, make_engine

__all__ = ["StateStore", "new_id"]

_HOLDER = 0x646F7361  # the advisory lock of PostgreSQL for the one manager
_metadata = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any], **options: Any) -> sa.Table:
    """Return a table with an id, a state with its reason, and times in each row."""
    return sa.Table(
        f"dosna_pilot_{name}",
        _metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False, default="New", index=True),
        sa.Column("reason", sa.Text, nullable=False, default=""),
        # The state that another process requests, such as 'Canceled' by `dosna pilot cancel`.
        sa.Column("wanted", sa.Text, nullable=False, default="", index=True),
        sa.Column("description", sa.JSON, nullable=False, default=dict),
        # Notes of the owner: native ids of jobs, placements, host names.
        sa.Column("details", sa.JSON, nullable=False, default=dict),
        sa.Column("created", sa.Double, nullable=False, default=time.time),
        sa.Column("changed", sa.Double, nullable=False, default=time.time, onupdate=time.time),
        *columns,
        **options,
    )


TABLES: Mapping[str, sa.Table] = {
    "pilots": _table("pilots"),
    "pilot_data": _table("pilot_data"),
    "data_units": _table("data_units"),
    # One row for each data unit in a pilot data; the id is '<data unit>/<pilot data>'.
    "replicas": _table(
        "replicas",
        sa.Column("data_unit", sa.Text, nullable=False, index=True),
        sa.Column("pilot_data", sa.Text, nullable=False, index=True),
    ),
    # One row for each file of a data unit; the id is '<data unit>/<name>'.
    "files": _table(
        "files",
        sa.Column("data_unit", sa.Text, nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False, default=-1),
        sa.Column("checksum", sa.Text, nullable=False, default=""),
    ),
    "compute_units": _table(
        "compute_units",
        sa.Column("number", sa.Integer, nullable=False, index=True),
        sa.Column("pilot", sa.Text, nullable=False, default="", index=True),
        sa.Column("attempt", sa.Text, nullable=False, default=""),
        sa.Column("attempts", sa.Integer, nullable=False, default=0),
    ),
    # The data units that units write; the id is '<compute unit>/<data unit>'. A unit that reads
    # such a data unit waits for units with a lower number.
    "outputs": _table(
        "outputs",
        sa.Column("compute_unit", sa.Text, nullable=False),
        sa.Column("data_unit", sa.Text, nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
    ),
    # One row for each attempt at a unit; the id is that of its sj- folder.
    "attempts": _table(
        "attempts",
        sa.Column("compute_unit", sa.Text, nullable=False, index=True),
        sa.Column("pilot", sa.Text, nullable=False, index=True),
    ),
}


def new_id(kind: str) -> str:
    """Return a new id, such as ``du-3f…`` for the kind ``du``."""
    return f"{kind}-{secrets.token_hex(8)}"


class StateStore:
    """Rows by table and id; see `TABLES`. Many threads can use it at once.

    Parameters
    ----------
    url : str
        The URL for SQLAlchemy: ``sqlite:///path``, or that of another database.

    Raises
    ------
    ConfigurationError
        The URL is malformed.
    StorageError
        The database cannot be used; every method can raise this.
    """

    def __init__(self, url: str) -> None:
        self.shown = without_password(url)
        self._lock = threading.RLock()
        self._owner = ""
        try:
            parsed = sa.make_url(url)
            _require_file(parsed, self.shown)
            self._engine = make_engine(parsed)
            self._held = AdvisoryLock(self._engine, _HOLDER)
        except ConfigurationError:
            raise
        except (sa.exc.ArgumentError, ValueError, ImportError) as error:
            raise ConfigurationError(
                f"the database {self.shown!r} cannot be the state: {type(error).__name__}. "
                "Use sqlite:///path, or the URL of a database whose driver is installed."
            ) from None
        with self.change() as connection:
            _metadata.create_all(connection)
        _stores.add(self)

    def close(self) -> None:
        """Close the connections."""
        self.let_go()
        close_engine(self._engine)

    def hold(self, owner: str) -> str:
        """Hold the state for one manager, or see that it is still held.

        A server of PostgreSQL gives the lock back when the connection ends, however that
        happens. Until `let_go`, this process writes by that connection only, so that nothing is
        written once another manager may have the lock. For other databases, the caller has to
        keep the managers of one machine apart.

        Parameters
        ----------
        owner : str
            Whom others are told about.

        Returns
        -------
        str
            Empty, or who holds it instead.
        """
        if self._engine.dialect.name != "postgresql":
            return ""
        with self._lock, self._errors():
            found = self._held.take(owner)
            if not found:
                self._owner = owner
        return found

    def let_go(self) -> None:
        """Let another manager hold the state."""
        with self._lock:
            self._owner = ""
            self._held.release()

    @contextmanager
    def change(self) -> Iterator[sa.Connection]:
        """Yield a connection for a transaction, whose changes are kept or lost together.

        The changes of one process are made one after the other.
        """
        with self._lock, self._errors():
            if self._owner and (other := self.hold(self._owner)):
                raise StorageError(f"state {self.shown} cannot be changed: {other} manages it now")
            if (held := self._held.connection) is None:
                with self._engine.begin() as connection:
                    yield connection
            else:
                with held.begin():
                    yield held

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, UnicodeEncodeError) as error:
            raise StorageError(f"state {self.shown} cannot be used: {first_line(error)}") from None

    def add(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; each is a mapping with an ``id`` and any columns."""
        self.write(rows={table: rows})

    def update(self, table: str, id: str, **values: Any) -> None:
        """Change columns of a row."""
        self.write(changes=[(table, id, values)])

    def write(
        self,
        *,
        rows: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
        changes: Iterable[tuple[str, str, Mapping[str, Any]]] = (),
    ) -> None:
        """Add rows, by table, and change columns of others, all or nothing.

        A row of ``files`` or ``attempts`` takes the place of one with the same id.
        """
        with self.change() as connection:
            for table, added in (rows or {}).items():
                self._add(connection, TABLES[table], added)
            for (table, names), group in itertools.groupby(changes, _statement):
                parameters = [
                    {"the_id": id, **{f"the_{name}": value for name, value in values.items()}}
                    for _, id, values in group
                ]
                connection.execute(_update(table, names), parameters)

    def _add(
        self, connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
    ) -> None:
        # Of several writers of one file, the last one counts. And what was written before a
        # connection was lost, without an answer, may be written again.
        replaces = table in (TABLES["files"], TABLES["attempts"])
        by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in {row["id"]: row for row in rows}.values() if replaces else rows:
            by_columns.setdefault(tuple(sorted(row)), []).append(dict(row))
        for listed in by_columns.values():
            if replaces:
                old = sa.delete(table).where(table.c.id == sa.bindparam("the_id"))
                connection.execute(old, [{"the_id": row["id"]} for row in listed])
            connection.execute(sa.insert(table), listed)

    def remove(self, table: str, id: str) -> None:
        """Remove a row."""
        one = TABLES[table]
        with self.change() as connection:
            connection.execute(sa.delete(one).where(one.c.id == id))

    def get(self, table: str, id: str) -> dict[str, Any] | None:
        """Return a row, or None."""
        return next(self.rows(table, id=id), None)

    def rows(
        self, table: str, *, order: str = "created", limit: int | None = None, **equal: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield rows whose columns have the given values, or any of a list of values."""
        one = TABLES[table]
        query = sa.select(one).order_by(one.c[order], one.c.id).limit(limit)
        for row in self.ask(query.where(*_conditions(one, equal))):
            yield dict(row._mapping)

    def count(self, table: str, **equal: Any) -> int:
        """Return the number of rows whose columns have the given values."""
        one = TABLES[table]
        query = sa.select(sa.func.count()).select_from(one).where(*_conditions(one, equal))
        return int(self.ask(query)[0][0])

    def ask(self, query: sa.Select[Any]) -> list[Any]:
        """Return the rows of an SQLAlchemy query."""
        with self._errors(), self._engine.connect() as connection:
            return list(connection.execute(query))


def _forked() -> None:
    # The connections, and whoever has the lock, are the parent's. To close them would end them.
    for store in _stores:
        _of_parents.append((store._engine.pool, store._held))
        store._engine.dispose(close=False)
        store._held, store._owner = AdvisoryLock(store._engine, _HOLDER), ""
        store._lock = threading.RLock()


_stores: weakref.WeakSet[StateStore] = weakref.WeakSet()
_of_parents: list[object] = []
os.register_at_fork(after_in_child=_forked)


def _require_file(url: sa.URL, shown: str) -> None:
    """Refuse a database of SQLite in memory, because each thread would have its own."""
    in_memory = url.database in (None, "", ":memory:") or "mode=memory" in str(url)
    if in_memory and url.get_backend_name() == "sqlite":
        raise ConfigurationError(
            f"the state cannot be at {shown!r}, in memory: use sqlite:///path"
        )


def _statement(change: tuple[str, str, Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Return what changes share that are made by one statement."""
    return change[0], tuple(sorted(change[2]))


@functools.cache
def _update(table: str, names: tuple[str, ...]) -> sa.Update:
    one = TABLES[table]
    query = sa.update(one).where(one.c.id == sa.bindparam("the_id"))
    return query.values({name: sa.bindparam(f"the_{name}") for name in names})


def _conditions(table: sa.Table, equal: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    conditions = []
    for name, value in equal.items():
        column = table.c[name]
        is_many = isinstance(value, (list, tuple, set))
        conditions.append(column.in_(value) if is_many else column == value)
    return conditions
