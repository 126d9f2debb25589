"""The advisory lock of a PostgreSQL database, and the connection by which its holder writes."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa

__all__ = ["AdvisoryLock"]

# After half a minute, a host that has vanished holds nothing any more.
_OF_SESSION = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_OWNER = (
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted "
    "AND locktype = 'advisory' AND classid = :high AND objid = :low "
    "AND datname = current_database()"
)


class AdvisoryLock:
    """A lock that only one process has at a time, until its connection ends, however it does.

    What is written by `connection` cannot be written once another process may have the lock. The
    caller keeps its threads apart.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        The engine of a PostgreSQL database.
    key : int
        The number of the lock, of at most 63 bits.
    """

    def __init__(self, engine: sa.Engine, key: int) -> None:
        self._engine, self._key = engine, key
        self.connection: sa.Connection | None = None
        """The connection that has taken the lock; it may be lost since."""

    def take(self, owner: str = "") -> str:
        """Take the lock, unless this object still has it; return who has it instead, or ''.

        Parameters
        ----------
        owner : str
            Whom others are told about.
        """
        if self._lasts():
            return ""
        self.release()
        # One that the pool does not know, so that nobody else gets it.
        connection = self._engine.connect()
        connection.detach()
        try:
            with connection.begin():
                found = self._take_by(connection, owner)
            if not found:
                self.connection = connection
        finally:
            if self.connection is not connection:
                connection.close()
        return found

    def _take_by(self, connection: sa.Connection, owner: str) -> str:
        """Take the lock, which outlasts the transaction; return who has it instead."""
        if connection.execute(sa.select(sa.func.pg_try_advisory_lock(self._key))).scalar():
            for name, value in {**_OF_SESSION, "application_name": owner}.items():
                connection.execute(sa.select(sa.func.set_config(name, value, False)))
            return ""
        halves = {"high": self._key >> 32, "low": self._key & 0xFFFFFFFF}
        return str(connection.execute(sa.text(_OWNER), halves).scalar() or "another process")

    def _lasts(self) -> bool:
        """Return whether the connection that has the lock is still there."""
        # SQLAlchemy would replace one that is marked as lost.
        if self.connection is None or self.connection.invalidated:
            return False
        try:
            with self.connection.begin():
                self.connection.execute(sa.select(1))
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def release(self) -> None:
        """Let another process take the lock."""
        held, self.connection = self.connection, None
        if held is not None:
            with suppress(sa.exc.SQLAlchemyError):
                held.close()
