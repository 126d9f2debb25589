"""Databases that several processes share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import open_files, require

sa = require("sqlalchemy")

from dosna.errors import StorageError  # noqa: E402
from dosna.io.database import Database  # noqa: E402


def end_connections(url: str) -> None:
    """End all connections to a database of PostgreSQL, as a cut of the network does."""
    with require("psycopg").connect(url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_looking_neither_waits_for_writers_nor_stops_them(tmp_path: Path) -> None:
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("n", sa.Integer))
    with closing(Database(f"sqlite:///{tmp_path}/x", "a database")) as database:
        with database.change() as connection:
            database.create_tables(connection, metadata)
            connection.execute(sa.insert(table), {"n": 1})
        other = sqlite3.connect(tmp_path / "x", timeout=0, isolation_level=None)
        with closing(other):
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES (2)")
            with database.look() as connection:
                assert connection.execute(sa.select(table)).scalars().all() == [1]
                other.execute("COMMIT")
                # Nor is this one in the way of the next.
                other.execute("INSERT INTO t VALUES (3)")
                assert connection.execute(sa.select(table)).scalars().all() == [1, 2, 3]


def test_no_connection_outlives_the_database(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x", "a database")
    with database.look():  # as a thread that has not ended
        database.close()
    assert open_files(tmp_path) == []
    with database.change():
        pass
    assert open_files(tmp_path) == []


def test_columns_of_later_releases_are_added(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x", "a database")) as database:
        for columns in (["n"], ["n", "more of it"], ["n", "more of it"]):
            metadata = sa.MetaData()
            table = sa.Table("t", metadata, *(sa.Column(name, sa.Integer) for name in columns))
            with database.change() as connection:
                database.create_tables(connection, metadata)
                database.add_columns(connection, metadata)
                connection.execute(sa.insert(table), {"n": len(columns)})
        with database.look() as connection:
            query = sa.select(table).order_by(table.c.n)
            assert connection.execute(query).all() == [(1, None), (2, None), (2, None)]


def test_who_has_lost_the_lock_changes_nothing(postgres: str) -> None:
    def count_up() -> None:
        with first.change() as connection:
            connection.execute(sa.text("UPDATE t SET n = n + 1"))

    with (
        closing(Database(postgres, "a database")) as first,
        closing(Database(postgres, "a database")) as second,
    ):
        with first.change() as connection:
            connection.execute(sa.text("CREATE TABLE t AS SELECT 0 AS n"))
        assert first.hold()
        assert first.hold()
        assert not second.hold()
        end_connections(postgres)
        count_up()  # which takes the lock again, as nobody else has it
        assert not second.hold()
        while not second.hold():
            end_connections(postgres)
        for _ in range(2):
            with pytest.raises(StorageError, match="another process"):
                count_up()
            with pytest.raises(StorageError, match="another process"):
                first.hold_still()
        second.close()
        count_up()
        with first.look() as connection:
            assert connection.execute(sa.text("SELECT n FROM t")).scalar() == 2
