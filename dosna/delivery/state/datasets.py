"""The datasets that were looked up, and their files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import dataset_files, datasets
from dosna.io.database import Database

__all__ = ["Datasets", "FoundFile"]


@dataclass(frozen=True)
class FoundFile:
    """A file of a dataset.

    Parameters
    ----------
    path : str
        The path or URL.
    size, events : int
        The size in bytes and the number of events; 0 if unknown.
    """

    path: str
    size: int = 0
    events: int = 0


class Datasets:
    """The table of datasets.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def fresh(self, name: str, since: float) -> int | None:
        """Return a dataset that was looked up after a time, and record that it is used."""
        with self._database.change() as connection:
            query = sa.select(datasets.c.id).where(
                datasets.c.name == name,
                datasets.c.status == "complete",
                datasets.c.updated >= since,
                datasets.c.stale.is_(False),
            )
            found = connection.execute(query).scalar()
            if found is not None:
                connection.execute(
                    sa.update(datasets).where(datasets.c.id == found).values(used=time.time())
                )
        return None if found is None else int(found)

    def keep(self, name: str, finder: str, status: str, found: Sequence[FoundFile]) -> int:
        """Store the result of a lookup, replacing that of an earlier one; return the dataset."""
        now = time.time()
        row = {
            "finder": finder,
            "status": status,
            "stale": False,
            "files": len(found),
            "size": sum(file.size for file in found),
            "events": sum(file.events for file in found),
            "used": now,
            "updated": now,
        }
        with self._database.change() as connection:
            insert = self._database.insert_new(datasets, "name")
            connection.execute(insert, {"name": name, **row})
            mine = datasets.c.name == name
            connection.execute(sa.update(datasets).where(mine).values(row))
            id = int(connection.execute(sa.select(datasets.c.id).where(mine)).scalar_one())
            connection.execute(sa.delete(dataset_files).where(dataset_files.c.dataset == id))
            if found:
                connection.execute(
                    sa.insert(dataset_files),
                    [{"dataset": id, "number": n, **vars(f)} for n, f in enumerate(found)],
                )
        return id

    def get(self, id: int) -> Row | None:
        """Return a dataset, or None if there is none."""
        with self._database.look() as connection:
            return connection.execute(sa.select(datasets).where(datasets.c.id == id)).first()

    def all(self, finder: str | None, deleted: bool) -> Sequence[Row]:
        """Return all datasets, or those of a finder; with or without deleted ones."""
        query = sa.select(datasets).order_by(datasets.c.id)
        if finder is not None:
            query = query.where(datasets.c.finder == finder)
        if not deleted:
            query = query.where(datasets.c.stale.is_(False))
        with self._database.look() as connection:
            return connection.execute(query).all()

    def files(self, id: int, limit: int | None = None) -> Sequence[Row]:
        """Return the files of a dataset in order."""
        query = sa.select(dataset_files).where(dataset_files.c.dataset == id)
        with self._database.look() as connection:
            return connection.execute(query.order_by(dataset_files.c.number).limit(limit)).all()

    def forget(self, before: float) -> None:
        """Delete the datasets that no request has used since a time."""
        old = sa.select(datasets.c.id).where(datasets.c.used < before)
        with self._database.change() as connection:
            connection.execute(sa.delete(dataset_files).where(dataset_files.c.dataset.in_(old)))
            connection.execute(sa.delete(datasets).where(datasets.c.used < before))

    def delete(self, id: int) -> bool:
        """Make the next request look up a dataset again; return whether it exists."""
        with self._database.change() as connection:
            found = connection.execute(
                sa.update(datasets).where(datasets.c.id == id).values(stale=True)
            )
        return bool(found.rowcount)
