"""Submissions: the lookup of the dataset, and the transformation of its first file."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dosna.delivery.finders import check_source, find, split
from dosna.delivery.running.dispatcher import Dispatcher
from dosna.delivery.running.jobs import failure, is_passing, job_of
from dosna.delivery.running.workers import Workers
from dosna.delivery.settings import DAY, Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.delivery.state.files import Outcome
from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import ENDED
from dosna.errors import DosnaError, SourceError, SourceNotFoundError, StorageError, WorkerError

if TYPE_CHECKING:
    from dosna.delivery.state import State

__all__ = ["Refused", "Submissions"]

logger = logging.getLogger("dosna.delivery")

_FILE_LIST = "user"
"""The finder of lists of files that clients give."""

_CHEAP = ("glob", "folder", "dosna")
"""The finders that are asked each time."""
_THREADS = 8
_PASSING_ATTEMPTS = 3
_PAUSE = 0.5


@dataclass(frozen=True)
class Refused:
    """A request that is refused.

    Parameters
    ----------
    message : str
        The reason, and what exists instead.
    status : str
        The status of the request.
    """

    message: str
    status: str = "Fatal"


class Submissions:
    """The submissions that are being prepared.

    Parameters
    ----------
    state : State
        The tables.
    workers : Workers
        The workers, which transform the first file.
    dispatcher : Dispatcher
        The dispatcher, which runs the remaining files.
    settings : Settings
        The settings of the service.
    """

    def __init__(
        self, state: State, workers: Workers, dispatcher: Dispatcher, settings: Settings
    ) -> None:
        self._state, self._workers = state, workers
        self._dispatcher, self._settings = dispatcher, settings
        self._pool = ThreadPoolExecutor(_THREADS, "dosna-submission")
        self._closed = False

    def close(self) -> None:
        """Accept no more submissions; the next service prepares what is unfinished again."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def prepare(self, row: Row) -> Future[Refused | None]:
        """Look up the dataset of a request, transform its first file, and start the others.

        Parameters
        ----------
        row : Row
            The request.

        Returns
        -------
        Future
            The refusal, or None if the request runs.
        """
        return self._pool.submit(self._prepare, row)

    def _prepare(self, row: Row) -> Refused | None:
        refused: Refused | None
        try:
            refused = self._begin_at_last(row)
        except Exception as error:
            if self._closed:
                return None
            if isinstance(error, DosnaError):
                logger.warning("request %s cannot be prepared: %s", row.id, error)
                refused = Refused(str(error))
            else:
                logger.exception("request %s cannot be prepared", row.id)
                refused = Refused(f"the service failed: {type(error).__name__}")
        if refused is not None and not self._closed:
            self._state.requests.end(row.id, refused.status, refused.message)
            self._dispatcher.drop(row.id)
        return refused

    def _begin_at_last(self, row: Row) -> Refused | None:
        """Start a request, and try again if the database or a server of datasets failed."""
        for _ in range(_PASSING_ATTEMPTS - 1):
            try:
                return self._begin(row)
            except StorageError as error:
                logger.info("request %s is prepared again: %s", row.id, error)
                time.sleep(_PAUSE)
        return self._begin(row)

    def _begin(self, row: Row) -> Refused | None:
        limit = None if row.given else split(row.did)[2]
        try:
            dataset = self._look_up(row, limit)
        except SourceError as error:
            missing = isinstance(error, SourceNotFoundError)
            status = "does_not_exist" if missing else "bad_name"
            name, finder = _name_of(row)
            if row.given is None:
                self._state.datasets.keep(name, finder, status, [])
            return Refused(str(error), "Bad Dataset")
        if isinstance(dataset, Refused):
            return dataset
        count = self._state.requests.fill(row.id, dataset, limit)
        if count is None:
            return Refused("the request was cancelled", "Canceled")
        # Datasets have files, but ?files=0 takes none of them.
        first = self._state.files.pending(row.id, -1, 1)
        if not first:
            return Refused("the request has no files: request at least one", "Bad Dataset")
        path = first[0].path
        outcome = self._first(row, path)
        if isinstance(outcome, Refused):
            return outcome
        if outcome is not None and row.destination:
            outcome = self._dispatcher.collectors.take(row, 0, path, outcome, count).result()
        if not self._state.requests.begin(row.id):
            return Refused("the request was cancelled", "Canceled")
        if outcome is not None:
            self._state.files.record(row.id, 0, outcome)
        now = self._state.requests.get(row.id)
        if now is not None:
            self._dispatcher.add(now)
        return None

    def _first(self, row: Row, path: str) -> Outcome | Refused | None:
        """Transform the first file; None means that it will be tried again like all others."""
        began = time.monotonic()
        job = job_of(row, 0, path, self._settings)
        for left in reversed(range(_PASSING_ATTEMPTS)):
            future = self._workers.submit(job)
            error = future.exception()
            if error is None:
                return future.result()
            if not is_passing(error) or (not left and isinstance(error, WorkerError)):
                return Refused(failure(error, began).message)
            now = self._state.requests.get(row.id)
            if now is None or now.status in ENDED:
                return Refused("the request was cancelled", "Canceled")
        return None

    def _too_many(self, count: int, limit: int | None) -> Refused | None:
        count, most = min(count, limit or count), self._settings.files_limit
        if count <= most:
            return None
        return Refused(
            f"the request has {count} files, but the limit is {most}: request fewer files, in "
            "several requests"
        )

    def _look_up(self, row: Row, limit: int | None) -> int | Refused:
        """Return the dataset of a request: a list of files, a known one, or a new one."""
        import json

        name, finder = _name_of(row)
        if row.given is not None:
            paths = [check_source(path, self._settings) for path in json.loads(row.given)]
            return self._state.datasets.keep(
                name, finder, "complete", [FoundFile(path) for path in paths]
            )
        since = time.time() - self._settings.lookup_days * DAY
        known = None if finder in _CHEAP else self._state.datasets.fresh(name, since)
        if known is not None:
            kept = self._state.datasets.get(known)
            return self._too_many(0 if kept is None else kept.files, limit) or known
        found = find(name, self._settings)
        if (refused := self._too_many(len(found), limit)) is not None:
            return refused
        return self._state.datasets.keep(name, finder, "complete", found)


def _name_of(row: Row) -> tuple[str, str]:
    """Return the name of a request's dataset, and its finder."""
    if row.given is None:
        try:
            scheme, rest, _ = split(row.did)
        except SourceError:
            return row.did, "unknown"
        return f"{scheme}:{rest}", scheme
    from hashlib import sha256

    return f"files-{sha256(row.given.encode()).hexdigest()[:24]}", _FILE_LIST
