"""The files of requests: remaining ones, and outcomes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dosna.delivery.state.requests import Requests, Row
from dosna.delivery.state.tables import FAILURE, PENDING, RUNNING, SUCCESS, files, requests
from dosna.io.database import Database
from dosna.io.texts import cleaned

__all__ = ["Files", "Outcome"]

_NUMBER = re.compile(r"[0-9]{6,9}")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a file.

    Parameters
    ----------
    object : str or None
        The name of the result; None if the file failed.
    nbytes, entries : int
        The size and the number of entries of the result.
    seconds : float
        The time that it took.
    message : str
        The reason for which it failed.
    log : str
        The output of the selection.
    """

    object: str | None
    nbytes: int = 0
    entries: int = 0
    seconds: float = 0.0
    message: str = ""
    log: str = ""


class Files:
    """The table of the files of requests.

    Parameters
    ----------
    database : Database
    requests : Requests
        The table of requests.
    """

    def __init__(self, database: Database, requests: Requests) -> None:
        self._database, self._requests = database, requests

    def pending(self, request: str, after: int, limit: int) -> Sequence[Row]:
        """Return the remaining files with numbers above a given one, in order."""
        query = (
            sa.select(files.c.number, files.c.path)
            .where(files.c.request == request, files.c.number > after)
            .where(files.c.status == PENDING)
            .order_by(files.c.number)
            .limit(limit)
        )
        with self._database.look() as connection:
            return connection.execute(query).all()

    def record(self, request: str, number: int, outcome: Outcome) -> bool:
        """Record the outcome of a file once; return whether the request still needs it.

        The row is written before the request counts it. Its time is later than that of every
        earlier result of the request, so that a client that asks for later results misses none.
        """
        good = outcome.object is not None
        with self._database.change() as connection:
            # The change of the request comes first, because it locks the row.
            counted = {
                "completed": requests.c.completed + int(good),
                "failed": requests.c.failed + int(not good),
                "nbytes": requests.c.nbytes + outcome.nbytes,
                "entries": requests.c.entries + outcome.entries,
            }
            mine = sa.and_(requests.c.id == request, requests.c.status == RUNNING)
            if not connection.execute(sa.update(requests).where(mine).values(counted)).rowcount:
                return False
            row = connection.execute(sa.select(requests).where(mine)).one()
            created = max(time.time_ns() // 1000, row.newest + 1)
            done = connection.execute(
                sa.update(files)
                .where(files.c.request == request, files.c.number == number)
                .where(files.c.status == PENDING)
                .values(
                    status=SUCCESS if good else FAILURE,
                    object=outcome.object,
                    nbytes=outcome.nbytes,
                    entries=outcome.entries,
                    seconds=outcome.seconds,
                    message=cleaned(outcome.message),
                    log=cleaned(outcome.log),
                    created=created,
                )
            )
            if not done.rowcount:
                # It was already recorded, and is not counted again.
                connection.rollback()
                return True
            # Results with a destination are completed there first.
            ended = row.destination is None and row.completed + row.failed == row.files
            last = {"status": "Complete", "finished": time.time()} if ended else {}
            connection.execute(sa.update(requests).where(mine).values(newest=created, **last))
        self._requests.changed(request)
        return True

    def results(
        self, request: str, since: int = 0, status: str | None = None, limit: int | None = None
    ) -> Sequence[Row]:
        """Return the files that are done, from a time on, in the order of completion."""
        query = sa.select(files).where(files.c.request == request, files.c.created >= since)
        if status is not None:
            query = query.where(files.c.status == status)
        with self._database.look() as connection:
            return connection.execute(query.order_by(files.c.created).limit(limit)).all()

    def page(self, request: str, offset: int, limit: int, failed: bool) -> Sequence[Row]:
        """Return some files of a request in order."""
        query = sa.select(files).where(files.c.request == request)
        if failed:
            query = query.where(files.c.status == FAILURE)
        query = query.order_by(files.c.number).offset(offset).limit(limit)
        with self._database.look() as connection:
            return connection.execute(query).all()

    def failures(self, request: str, limit: int = 1000) -> dict[str, str]:
        """Return files that failed, and why."""
        return {row.path: row.message for row in self.page(request, 0, limit, True)}

    def object(self, request: str, name: str) -> Row | None:
        """Return the file whose result has a name, or None if there is none."""
        number = name.partition("-")[0]
        if not _NUMBER.fullmatch(number):
            return None
        query = sa.select(files).where(
            files.c.request == request, files.c.number == int(number), files.c.object == name
        )
        with self._database.look() as connection:
            return connection.execute(query).first()

    def objects(self, request: str, after: str, limit: int, prefix: str = "") -> Sequence[Row]:
        """Return results with names after a given one, in the order of their names."""
        query = (
            sa.select(files.c.object, files.c.nbytes, files.c.created)
            .where(files.c.request == request, files.c.status == SUCCESS)
            .where(files.c.object > after)
        )
        if prefix:
            query = query.where(sa.func.substr(files.c.object, 1, len(prefix)) == prefix)
        with self._database.look() as connection:
            return connection.execute(query.order_by(files.c.object).limit(limit)).all()
