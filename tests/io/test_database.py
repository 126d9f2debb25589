"""Databases that several processes share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from support import require

sa = require("sqlalchemy")

from dosna.io.database import Database  # noqa: E402


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
