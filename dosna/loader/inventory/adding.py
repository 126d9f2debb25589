"""The rows of files that were listed: new ones, and those of files that have changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dosna.io.database import Database
from dosna.loader.bucket import Entry
from dosna.loader.inventory.tables import NOT_YET, PENDING, RUNNING, files

__all__ = ["add"]


def add(database: Database, entries: Sequence[Entry], asked: float | None) -> tuple[int, int]:
    """Add files that were listed; see `Inventory.add`."""
    with database.look() as connection:
        keys = files.c.key.in_([entry.key for entry in entries])
        known = sa.select(files.c.key, files.c.etag).where(keys)
        etags = {row.key: row.etag for row in connection.execute(known)}
    rows = [_new_row(entry) for entry in entries if entry.key not in etags]
    changed = [entry for entry in entries if etags.get(entry.key, entry.etag) != entry.etag]
    new = replaced = 0
    if rows or changed:
        with database.change() as connection:
            if rows:
                # Another watcher may have come first.
                insert = database.insert_new(files, "key").returning(files.c.id)
                new = len(connection.execute(insert, rows).all())
            for entry in changed:
                replaced += connection.execute(_renewal(entry, asked)).rowcount
    return new, replaced


def _new_row(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "size": entry.size,
        "etag": entry.etag,
        "not_before": 0.0,
        "loads": 0,
        "message": "",
        "load_status": PENDING,
        "load_attempts": 0,
        "diff_status": NOT_YET,
        "diff_attempts": 0,
    }


def _renewal(entry: Entry, asked: float | None) -> sa.Update:
    """Return the statement for a changed file. A worker that is loading it may go on.

    Whether it succeeds, fails or dies, the new state of the file has all its attempts.
    """
    c = files.c
    older = sa.true() if asked is None else sa.func.coalesce(c.load_start, 0) < asked
    loading = c.load_status == RUNNING
    return (
        files.update()
        .where(c.key == entry.key, older)
        .values(
            size=entry.size,
            etag=entry.etag,
            load_status=sa.case((loading, RUNNING), else_=PENDING),
            load_attempts=0,
            claim=sa.case((loading, c.claim), else_=sa.null()),
            not_before=0.0,
            diff_status=NOT_YET,
            diff_attempts=0,
        )
    )
