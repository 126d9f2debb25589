"""The requests, and their status."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dosna.delivery.state.tables import (
    ENDED,
    LOOKUP,
    PENDING,
    RUNNING,
    dataset_files,
    files,
    requests,
)
from dosna.io.database import Database
from dosna.io.texts import cleaned

__all__ = ["Requests", "Row", "object_name"]

Row = Any
"""A row of a table, whose columns are attributes."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_NAME = 80
_MOST_HELD = 1000


def object_name(number: int, path: str, ending: str) -> str:
    """Return the name of a file's result, which depends only on the request.

    Parameters
    ----------
    number : int
        The number of the file in its request. A list may contain a file twice.
    path : str
        The path or URL of the file.
    ending : str
        The suffix of the name, such as ``.parquet``.
    """
    base = path.partition("?")[0].rstrip("/").rpartition("/")[2]
    stem = _UNSAFE.sub("_", base.removesuffix(".root"))[-_MOST_NAME:].strip(".") or "file"
    return f"{number:06d}-{stem}{ending}"


@dataclass(frozen=True)
class Submitted:
    """The request of a client.

    Parameters
    ----------
    owner : str
        The user.
    title : str or None
        The title.
    did : str
        The identifier of the dataset.
    given : str or None
        The list of files as JSON; None for a dataset.
    selection, codegen, format : str
        See `dosna.delivery.transform.TransformRequest`.
    destination : str or None
        The destination of the results; None if they are files that clients fetch.
    """

    owner: str
    title: str | None
    did: str
    given: str | None
    selection: str
    codegen: str
    format: str
    destination: str | None = None


class Requests:
    """The table of requests.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, tuple[float, Row]] = {}
        self._changes = 0

    def changed(self, id: str) -> None:
        """Drop the cached row of a request that was just changed."""
        self._changes += 1
        self._held.pop(id, None)

    def held(self, id: str) -> Row | None:
        """Return the cached row of a request, which is at most a second old, or None."""
        found = self._held.get(id)
        return found[1] if found and time.monotonic() < found[0] else None

    def add(self, what: Submitted) -> str:
        """Add a request whose files are still unknown, and return its identifier."""
        row = {
            **vars(what),
            "id": str(uuid.uuid4()),
            "answered": False,
            "dataset": 0,
            "status": LOOKUP,
            "message": "",
            "files": 0,
            "completed": 0,
            "failed": 0,
            "nbytes": 0,
            "entries": 0,
            "submitted": time.time(),
            "newest": 0,
            "access_key": "DOSNA" + secrets.token_hex(8).upper(),
            "secret_key": secrets.token_urlsafe(30),
        }
        with self._database.change() as connection:
            connection.execute(sa.insert(requests), row)
        return str(row["id"])

    def answer(self, id: str) -> None:
        """Record that the client knows the request, so that it is continued after a restart."""
        with self._database.change() as connection:
            connection.execute(
                sa.update(requests).where(requests.c.id == id).values(answered=True)
            )
        self.changed(id)

    def get(self, id: str) -> Row | None:
        """Return a request, or None if there is none."""
        before, query = self._changes, sa.select(requests).where(requests.c.id == id)
        with self._database.look() as connection:
            row = connection.execute(query).first()
        if row is not None and before == self._changes:
            if len(self._held) > _MOST_HELD:
                self._held.clear()
            self._held[id] = (time.monotonic() + 1.0, row)
            if before != self._changes:
                self._held.pop(id, None)
        return row

    def of(self, owner: str | None, limit: int | None = None) -> Sequence[Row]:
        """Return the requests of a user, or of all, the newest first."""
        query = sa.select(requests).where(requests.c.answered | (requests.c.status != LOOKUP))
        if owner is not None:
            query = query.where(requests.c.owner == owner)
        with self._database.look() as connection:
            query = query.order_by(requests.c.submitted.desc()).limit(limit)
            return connection.execute(query).all()

    def unfinished(self) -> Sequence[Row]:
        """Return the requests that have not ended, the oldest first."""
        query = sa.select(requests).where(requests.c.status.in_([LOOKUP, RUNNING]))
        with self._database.look() as connection:
            return connection.execute(query.order_by(requests.c.submitted)).all()

    def usage(self, owner: str) -> tuple[int, int]:
        """Return the number of unfinished requests of a user, and the size of all results."""
        open_ = sa.func.sum(sa.case((requests.c.status.in_([LOOKUP, RUNNING]), 1), else_=0))
        query = sa.select(open_, sa.func.sum(requests.c.nbytes)).where(requests.c.owner == owner)
        with self._database.look() as connection:
            count, nbytes = connection.execute(query).one()
        return int(count or 0), int(nbytes or 0)

    def fill(self, id: str, dataset: int, limit: int | None) -> int | None:
        """Copy the files of a dataset to a request that is being looked up; return their number.

        The result is None if the request is gone, or has been cancelled. Later changes of the
        dataset do not change the request, not even if it is prepared again: the result of its
        first file may be where it goes to, under the number that the file has.

        Parameters
        ----------
        id : str
            The request.
        dataset : int
            The dataset.
        limit : int or None
            The maximum number of files.
        """
        source = sa.select(
            sa.literal(id),
            dataset_files.c.number,
            dataset_files.c.path,
            sa.literal(PENDING),
            *(sa.literal(value) for value in (0, 0, 0.0, "", "")),
        ).where(dataset_files.c.dataset == dataset)
        if limit is not None:
            source = source.where(dataset_files.c.number < limit)
        names = ("request", "number", "path", "status", "nbytes", "entries", "seconds")
        mine = requests.c.id == id
        with self._database.change() as connection:
            waiting = sa.and_(mine, requests.c.status == LOOKUP)
            there = connection.execute(sa.select(requests.c.files).where(waiting)).scalar()
            if there:
                return int(there)
            if not connection.execute(
                sa.update(requests).where(waiting).values(dataset=dataset)
            ).rowcount:
                return None
            connection.execute(sa.insert(files).from_select([*names, "message", "log"], source))
            counted = sa.select(sa.func.count()).where(files.c.request == id)
            count = int(connection.execute(counted).scalar_one())
            connection.execute(sa.update(requests).where(mine).values(files=count))
        self.changed(id)
        return count

    def begin(self, id: str) -> bool:
        """Start a request that has its files; return whether it is still wanted."""
        waiting = sa.and_(requests.c.id == id, requests.c.status == LOOKUP)
        with self._database.change() as connection:
            begun = connection.execute(sa.update(requests).where(waiting).values(status=RUNNING))
        self.changed(id)
        return bool(begun.rowcount)

    def end(self, id: str, status: str, message: str = "") -> bool:
        """End a request that has not ended; return whether there was one."""
        with self._database.change() as connection:
            ended = connection.execute(
                sa.update(requests)
                .where(requests.c.id == id, requests.c.status.not_in(ENDED))
                .values(status=status, message=cleaned(message), finished=time.time())
            )
            if ended.rowcount and status == "Canceled":
                connection.execute(sa.delete(files).where(files.c.request == id))
            elif ended.rowcount:
                undone = sa.and_(files.c.request == id, files.c.status == PENDING)
                connection.execute(sa.delete(files).where(undone))
            if ended.rowcount and status == "Canceled":
                connection.execute(
                    sa.update(requests)
                    .where(requests.c.id == id)
                    .values(nbytes=0, entries=0, completed=0, failed=0)
                )
        self.changed(id)
        return bool(ended.rowcount)

    def delete(self, id: str) -> None:
        """Delete a request with its files."""
        with self._database.change() as connection:
            connection.execute(sa.delete(files).where(files.c.request == id))
            connection.execute(sa.delete(requests).where(requests.c.id == id))
        self.changed(id)

    def expired(self, before: float) -> list[str]:
        """Return the requests that ended before a time."""
        query = sa.select(requests.c.id).where(
            requests.c.status.in_(ENDED), requests.c.finished < before
        )
        with self._database.look() as connection:
            return list(connection.execute(query).scalars())

    def broken_off(self) -> Sequence[Row]:
        """Return the requests with a destination that were cancelled or have failed."""
        query = sa.select(requests).where(
            requests.c.status.in_(["Canceled", "Fatal"]), requests.c.destination.is_not(None)
        )
        with self._database.look() as connection:
            return connection.execute(query).all()

    def with_objects(self) -> set[str]:
        """Return the requests that may have results."""
        query = sa.select(requests.c.id).where(requests.c.status.not_in(["Canceled"]))
        with self._database.look() as connection:
            return set(connection.execute(query).scalars())
