"""A new backend in one file: datasets in a SQLite database, and the tests of its correctness.

    python examples/new_backend.py           # uses it
    python -m pytest examples/new_backend.py # tests it: the conformance kit, by one fixture

A backend only needs get, put, delete and list of bytes. Two writers to one chunk are safe
because `put` with `expected` only replaces the version that the writer had read.
"""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna.backends import Backend, registry
from dosna.backends.stores import Blob, Store, StoreConnection, VersionConflict
from dosna.errors import StorageError
from dosna.testing import BackendTests


class SqliteStore(Store):
    """Objects as rows of one table. One handle for each call is safe in any thread and process."""

    shared_between_processes = True
    conditional_puts = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run("CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, data, version)")

    def _run(self, sql: str, *given: object) -> tuple[list[tuple[Any, ...]], int]:
        try:
            with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as db:
                cursor = db.execute(sql, given)
                return cursor.fetchall(), cursor.rowcount
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error

    def get(self, key: str, byte_range: tuple[int, int] | None = None) -> Blob | None:
        start, stop = byte_range or (0, 1 << 30)
        sql = "SELECT substr(data, ?, ?), version FROM objects WHERE key = ?"
        rows = self._run(sql, start + 1, stop - start, key)[0]
        return Blob(*rows[0]) if rows else None

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        # One statement is atomic; the version of a missing object is the empty string.
        found = "coalesce((SELECT version FROM objects WHERE key = ?1), '')"
        sql = f"REPLACE INTO objects SELECT ?1, ?2, ?3 WHERE ?4 IS NULL OR ?4 = {found}"
        if not self._run(sql, key, data, secrets.token_hex(8), expected)[1]:
            raise VersionConflict(f"{key!r} is not of version {expected!r} any more")

    def delete(self, key: str) -> bool:
        return self._run("DELETE FROM objects WHERE key = ?", key)[1] > 0

    def list(self, prefix: str) -> Iterator[str]:
        return (k for (k,) in self._run("SELECT key FROM objects")[0] if k.startswith(prefix))


class SqliteConnection(StoreConnection):
    """``Connection(name, directory='.')``: the file ``name.sqlite`` in a folder."""

    shared_between_processes = True

    def __init__(self, name: str, directory: str | Path = ".", mode: str = "a") -> None:
        super().__init__(name, mode)
        self._path = Path(directory).absolute() / f"{name}.sqlite"

    def open_store(self) -> Store:
        return SqliteStore(self._path)


# A package of its own would name this in an entry point instead (docs/extending.md).
registry.register(Backend("sqlite", SqliteConnection, "a SQLite database"))


class TestSqlite(BackendTests):
    """Every test of the kit, each on a database of its own."""

    @pytest.fixture
    def make_connection(self, tmp_path):
        return lambda: dn.Connection("proof", backend="sqlite", directory=tmp_path)


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as folder,
        dn.Connection("scans", backend="sqlite", engine="joblib", directory=folder) as con,
    ):
        ds = con.create_dataset("tomo", data=np.eye(4, 6), chunk_size=(2, 4))
        print(ds[:2], ds.verify())
