"""A database with rows that processes share: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dosna.core.url import without_password
from dosna.errors import ConfigurationError, QueryError, StorageError
from dosna.io.advisory import AdvisoryLock
from dosna.registry import needing

__all__ = ["Database", "close_engine", "first_line", "make_engine"]

_BUSY_SECONDS = 60
_CLOSE_SECONDS = 10.0
_LOCK = 0x646F736E61  # the advisory lock of PostgreSQL, held while tables are made
_HOLDER = 0x646F736E62  # the one of the process that alone may use the database


class Database:
    """The connections to a database.

    Parameters
    ----------
    url : str
        The URL: ``sqlite:///path`` or ``postgresql://user@host/database``.
    what : str
        The name of the contents, for messages.
    extra : str
        The extra of dosna that brings the drivers.

    Raises
    ------
    ConfigurationError
        The URL names another kind of database, or is not a URL.
    MissingDependencyError
        The driver of that database is not installed.
    """

    def __init__(self, url: str, what: str, extra: str = "postgresql") -> None:
        self.what = what
        self.shown = without_password(url)
        self._lock = threading.RLock()
        self._holds = False
        self._file = -1
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise ConfigurationError(
                f"{what} {self.shown!r} is not the URL of a database: use sqlite:///path or "
                "postgresql://user@host/database"
            ) from None
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ConfigurationError(
                f"{what} {self.shown!r} is in a database of kind {kind!r}, which is not "
                "supported: use sqlite:///path or postgresql://user@host/database"
            )
        self._sqlite = kind == "sqlite"
        if self._sqlite and parsed.database in (None, "", ":memory:"):
            raise ConfigurationError(
                f"{what} cannot be in memory, where other processes do not see it: use "
                "sqlite:///path"
            )
        with needing(f"{what} {self.shown!r} needs", extra):
            self._engine = make_engine(parsed)
        self._held = AdvisoryLock(self._engine, _HOLDER)
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _leave_transactions)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    def close(self) -> None:
        """Close the connections, and let another process hold the database."""
        self._holds = False
        # A change that waits for a server that is gone ends with the process.
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            self._held.release()
            self._lock.release()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        close_engine(self._engine)

    @contextmanager
    def change(self) -> Iterator[sa.Connection]:
        """Yield a connection for a transaction that changes something.

        A process that holds a database of PostgreSQL makes its changes one after the other, by
        the connection that has the lock.
        """
        with self._errors():
            if self._sqlite or not self._holds:
                with self._engine.begin() as connection:
                    yield connection
                return
            with self._lock:
                self.hold_still()
                held = self._held.connection
                assert held is not None
                with held.begin():
                    yield held

    @contextmanager
    def change_at_once(self) -> Iterator[sa.Connection]:
        """Yield a connection for one statement that changes something.

        A server is asked once for this, and three times for a transaction. The change is made
        when all rows of the statement have been fetched.
        """
        if self._sqlite:  # in the same process, where a transaction costs little
            with self.change() as connection:
                yield connection
            return
        with self._errors(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """Yield a connection for reading, without a transaction, which would stop writers."""
        with self._errors(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OverflowError, UnicodeEncodeError, sa.exc.DataError) as error:
            raise QueryError(
                f"{self.what} cannot hold a value ({type(error).__name__}): leave out numbers of "
                "more than 64 bits, null characters, and text that is not Unicode"
            ) from None
        except sa.exc.SQLAlchemyError as error:
            raise StorageError(
                f"{self.what} {self.shown} cannot be used: {first_line(error)}"
            ) from None

    def hold(self) -> bool:
        """Lock the database for this process alone, until it is closed or the process ends.

        The result is False if another process has the lock. PostgreSQL gives it to others when
        the connection is lost, after which this process changes nothing any more unless it gets
        the lock again. The lock of a database of SQLite is one of a file beside it, whose name
        ends with ``.lock``; it counts on this machine only.

        Raises
        ------
        StorageError
            The database, or that file, cannot be used.
        """
        with self._lock, self._errors():
            if self._sqlite:
                if self._file < 0:
                    self._file = _lock_file(str(self._engine.url.database), self.what)
                return self._file >= 0
            found = not self._held.take()
            self._holds = self._holds or found
            return found

    def hold_still(self) -> None:
        """Check that no other process has the lock that this one has taken by `hold`.

        Raises
        ------
        StorageError
            Another process has it, or the database cannot be used.
        """
        if self._holds and not self.hold():
            raise StorageError(
                f"{self.what} {self.shown} cannot be changed: another process has locked it since "
                "the connection was lost. End one of the two"
            )

    def create_tables(self, connection: sa.Connection, metadata: sa.MetaData) -> None:
        """Create the tables that do not exist. Others that do the same wait for its end."""
        if not self._sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        metadata.create_all(connection)

    def add_columns(self, connection: sa.Connection, metadata: sa.MetaData) -> None:
        """Add the columns that tables of an earlier release do not have. They have no values."""
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            known = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name not in known:
                    quoted = self._engine.dialect.identifier_preparer.quote
                    kind = column.type.compile(self._engine.dialect)
                    connection.execute(
                        sa.text(
                            f"ALTER TABLE {quoted(table.name)} ADD COLUMN "
                            f"{quoted(column.name)} {kind}"
                        )
                    )

    def insert_new(self, table: sa.Table, key: str) -> Any:
        """Return an INSERT that leaves out rows whose key exists."""
        insert = sqlite.insert if self._sqlite else postgresql.insert
        return insert(table).on_conflict_do_nothing(index_elements=[key])

    def is_like(self, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
        """Return the condition that a text is like a pattern with ``*`` and ``?``."""
        if self._sqlite:
            # SQLite's LIKE ignores case.
            return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
        escaped = "".join("\\" + x if x in "%_\\" else x for x in pattern)
        return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _lock_file(database: str, what: str) -> int:
    """Return the descriptor of the locked file, or -1 if another process has locked it."""
    import fcntl

    # Of a file of its own: closing the database's would give back the locks of SQLite.
    path = os.path.realpath(database.removeprefix("file:").partition("?")[0]) + ".lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(
            f"{what} cannot be locked by {path}: {error.strerror}. Put it into a folder that can "
            "be written"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return -1
    return file


def make_engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose connections suit processes and threads that share a database.

    Parameters
    ----------
    url : sqlalchemy.URL
        The URL. PostgreSQL is reached by psycopg, unless the URL names another driver.

    Examples
    --------
    >>> make_engine(sa.make_url("postgresql://host/data")).driver
    'psycopg'
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, **options)
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    # A server that was started again has closed the connections that wait.
    return sa.create_engine(url, pool_pre_ping=True, **options)


def first_line(error: Exception) -> str:
    """Return the first line of what the driver says about an error of SQLAlchemy."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else "no reason"


def close_engine(engine: sa.Engine) -> None:
    """Close the connections of an engine, and those that threads still have or make after this.

    The latter would be closed where Python collects them, with a warning.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        The engine.

    Examples
    --------
    >>> close_engine(sa.create_engine("sqlite://"))
    """
    sa.event.listen(engine, "checkin", _end_returned)
    engine.dispose()


def _end_returned(connection: object, record: Any) -> None:
    if connection is not None:  # it is lost already
        record.invalidate()


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _leave_transactions(connection: Any, record: object) -> None:
    """Let SQLAlchemy begin transactions: the driver would begin them too late."""
    connection.isolation_level = None


def _begin_sqlite(connection: sa.Connection) -> None:
    # SQLAlchemy says that it begins even where each statement stands for itself.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
