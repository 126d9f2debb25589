"""Results that go straight into a connection of dosna, where they are one tree of columns.

A request has one collector, because a tree has one writer. It takes the results of files in any
order; the attributes of the tree say which it has, so that none is there twice. Results stay in
the place of results until all are there: if a column becomes wider, they are read again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dosna.delivery.destinations import open_destination
from dosna.delivery.running.streams import stream_of
from dosna.delivery.settings import Settings
from dosna.delivery.state.files import Outcome
from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import ENDED, SUCCESS
from dosna.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    DosnaError,
    QueryError,
    SourceChangedError,
    StorageError,
    WorkerError,
)

if TYPE_CHECKING:
    from dosna.delivery.objects import ObjectPlace
    from dosna.delivery.state import State

__all__ = ["Collectors"]

logger = logging.getLogger("dosna.delivery")

_BATCH = 16 << 20
"""The bytes of a piece, and half of those that are held before they are written."""
_IDLE = 60.0
_PAUSES, _LONGEST = 10, 5.0
"""The pause after a commit, as a multiple of its duration, and the most seconds of a pause."""


@dataclass(frozen=True)
class _Result:
    """The result of a file."""

    number: int
    path: str
    outcome: Outcome

    @property
    def source(self) -> str:
        """The name in the tree. A list of files may have a file twice."""
        return f"{self.path}#{self.number}"


class Collectors:
    """The collectors of all requests with a destination.

    Parameters
    ----------
    state : State
        The tables.
    place : ObjectPlace
        The place of results.
    settings : Settings
        The settings of the service.
    """

    def __init__(self, state: State, place: ObjectPlace, settings: Settings) -> None:
        self._state, self._place, self._settings = state, place, settings
        self._lock = threading.Lock()
        self._open: dict[str, _Collector] = {}
        self._closed = False

    def take(
        self, row: Row, number: int, path: str, outcome: Outcome, files: int = 0
    ) -> Future[Outcome]:
        """Add the result of a file to the tree of its request.

        Parameters
        ----------
        row : Row
            The request.
        number, path : int, str
            The file.
        outcome : Outcome
            The result.
        files : int
            The number of files of the request, if its row does not have it yet.

        Returns
        -------
        Future
            The outcome, once the result is in the tree; or an error.
        """
        return self._put(row, _Result(number, path, outcome), files)

    def finish(self, row: Row) -> Future[Outcome]:
        """Complete the tree of a request, which has the results of all files that succeeded."""
        return self._put(row, "finish")

    def drop(self, row: Row) -> Future[Outcome]:
        """Delete the tree of a request, unless it is complete."""
        return self._put(row, "drop")

    def _put(self, row: Row, what: Any, files: int = 0) -> Future[Outcome]:
        made: Future[Outcome] = Future()
        made.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                made.set_exception(StorageError("the service ends"))
                return made
            if row.id not in self._open:
                made_for = (row, self._state, self._place, self._settings)
                self._open[row.id] = _Collector(*made_for, max(1, files, row.files))
                self._open[row.id].start(lambda: self._is_idle(row.id))
            self._open[row.id].todo.put((what, made))
        return made

    def _is_idle(self, request: str) -> bool:
        """Forget a collector that has nothing to do; return whether it has nothing."""
        with self._lock:
            idle = self._open[request].todo.empty()
            if idle:
                del self._open[request]
        return idle

    def close(self) -> None:
        """End. What was not committed is taken again by the next service."""
        with self._lock:
            self._closed = True
            collectors = list(self._open.values())
        for one in collectors:
            one.stopped = True
            one.todo.put((None, Future()))
        for one in collectors:
            one.thread.join(10)


class _Collector:
    """The thread of one request."""

    def __init__(
        self, row: Row, state: State, place: ObjectPlace, settings: Settings, files: int
    ) -> None:
        self._row, self._state, self._place, self._settings = row, state, place, settings
        self._files = files
        self.todo: queue.SimpleQueue[tuple[Any, Future[Outcome]]] = queue.SimpleQueue()
        self.stopped = False
        self._con: Any = None
        self._group = ""
        self._trees: Any = None
        # What was taken, and may not be recorded yet.
        self._held: dict[int, _Result] = {}
        # What was taken, and is not committed yet; and when it should be.
        self._taken: list[tuple[_Result, Future[Outcome]]] = []
        self._due = 0.0

    def start(self, is_idle: Callable[[], bool]) -> None:
        """Begin."""
        self._is_idle = is_idle
        self.thread = threading.Thread(target=self._run, name="dosna-collector", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.stopped:
                some = self._next()
                if not some and not self._taken and self._is_idle():
                    return
                self._work(some)
        finally:
            self._leave()

    def _next(self) -> list[tuple[Any, Future[Outcome]]]:
        """Wait for something to do, and return all there is."""
        wait = max(0.0, self._due - time.monotonic()) if self._taken else _IDLE
        found = []
        with suppress(queue.Empty):
            found.append(self.todo.get(timeout=wait))
            while True:
                found.append(self.todo.get_nowait())
        return found

    def _work(self, some: Sequence[tuple[Any, Future[Outcome]]]) -> None:
        """Take results, and commit them together once this is due."""
        for what, future in some:
            if self.stopped:
                return
            try:
                if isinstance(what, _Result):
                    self._take(what)
                    self._taken.append((what, future))
                    continue
                self._commit()
                self._end(what)
                future.set_result(Outcome(None))
            except Exception as error:
                future.set_exception(error)
                own = isinstance(error, DosnaError) and not isinstance(error, StorageError)
                if not (own and isinstance(what, _Result)):  # else it is of this file alone
                    self._lose(error)
        if self._taken and time.monotonic() >= self._due and not self.stopped:
            try:
                self._commit()
            except Exception as error:
                self._lose(error)

    def _commit(self) -> None:
        """Count what was taken in the tree's attributes, and say so.

        They have all files of the tree, so that writing them takes longer and longer. It is done
        so rarely that most of the time is left for other work.
        """
        if not self._taken:
            return
        began = time.monotonic()
        self._trees.flush()
        taken, self._taken = self._taken, []
        for result, waiting in taken:
            waiting.set_result(result.outcome)
        now = time.monotonic()
        self._due = now + min(_LONGEST, _PAUSES * (now - began))

    def _lose(self, error: Exception) -> None:
        """Give back what was taken and not committed: what is held may not be what is stored."""
        logger.warning("results of %s wait: %s", self._row.id, error)
        self._leave()
        taken, self._taken = self._taken, []
        for _, waiting in taken:
            waiting.set_exception(StorageError(f"the results are collected again: {error}"))

    # -- the tree -------------------------------------------------------------------------

    def _enter(self) -> None:
        """Open the connection, and add what was recorded but is not in the tree."""
        if self._trees is not None:
            return
        from dosna.sources.servicex.growing import GrowingTrees

        row = self._row
        con, self._group = open_destination(row.destination, self._settings)
        self._con = con.__enter__()
        about = {
            "source": f"servicex:{row.id}", "title": row.title, "did": row.did,
            "selection": row.selection,
        }  # fmt: skip
        self._trees = GrowingTrees(
            self._con,
            about["source"],
            _fingerprint(row),
            about,
            expected_files=self._files,
            batch_bytes=2 * _BATCH,
        )
        try:
            self._trees.find(self._group)
            self._add_all(self._recorded())
        except BaseException:
            self._leave()
            raise

    def _recorded(self) -> list[_Result]:
        rows = self._state.files.results(self._row.id, status=SUCCESS)
        return [_Result(one.number, one.path, Outcome(one.object, one.nbytes)) for one in rows]

    def _leave(self) -> None:
        con, self._con, self._trees = self._con, None, None
        if con is not None:
            with suppress(DosnaError):
                con.__exit__(None, None, None)

    def _take(self, result: _Result) -> None:
        now = self._state.requests.get(self._row.id)
        if now is None or now.status in ENDED:
            raise WorkerError(f"the request {self._row.id} is gone")
        try:
            self._enter()
            self._add_all([result])
        except (DatasetExistsError, SourceChangedError):
            raise QueryError(
                f"{self._row.destination} has data of others: write to another group"
            ) from None

    def _add_all(self, results: Sequence[_Result]) -> None:
        from dosna.sources.servicex.growing import WiderError

        left = list(results)
        while left:
            try:
                if not self._trees.has(left[0].source):
                    self._add(left[0])
                left.pop(0)
            except WiderError as error:
                self._trees.restart(error)
                # All entries were discarded.
                every = [*self._recorded(), *self._held.values(), *left]
                left = list({one.number: one for one in every}.values())
        self._held.update((one.number, one) for one in results)

    def _add(self, result: _Result) -> None:
        """Add the entries of a result, all or none."""
        from dosna.sources.servicex.growing import FoundTree

        trees, group = self._trees, self._group
        with self._events(result) as events:
            for name in events.kinds:
                pieces = events.pieces(name, _BATCH)
                first, second = next(pieces), next(pieces, None)
                names, refused = events.columns(name), events.refused(name)
                own = group.rpartition("/")[2]
                tree = FoundTree(group, own, events.kinds[name], first, {}, names, refused)
                trees.prepare(tree)
                trees.begin(result.source, second is None)
                try:
                    trees.add(tree, first)
                    while second is not None:
                        trees.add(tree, second)
                        second = next(pieces, None)
                except BaseException:
                    trees.abandon()
                    raise
                trees.end()

    @contextmanager
    def _events(self, result: _Result) -> Iterator[Any]:
        """Open a result, which a confined process has made a stream of Arrow."""
        from dosna.io.local import LocalFile
        from dosna.sources.servicex.eventfiles import open_events

        name, size = str(result.outcome.object), result.outcome.nbytes
        with stream_of(self._row, name, size, self._place, self._settings) as path:
            file = LocalFile(path)
            try:
                yield open_events(file, "arrow-stream")
            finally:
                file.close()

    def _end(self, what: str | None) -> None:
        if what == "finish":
            self._enter()
            self._trees.finish(self._state.files.failures(self._row.id))
        elif what == "drop":
            self._leave()
            _delete(self._row, self._settings)
        if what is not None:
            self._held = {}


def _fingerprint(row: Row) -> str:
    # As of a request that its client ingests, which finds the tree there.
    return f"request {row.id}"


def _delete(row: Row, settings: Settings) -> None:
    """Delete the tree that a request has begun, and not completed."""
    from dosna.columns.datasets import remove
    from dosna.columns.description import get_tree

    con, group = open_destination(row.destination, settings)
    with con, suppress(DatasetNotFoundError):
        mine = get_tree(con, group).fingerprint == _fingerprint(row)
        if mine and any(con[name].incomplete for name in con.names_in(group)):
            remove(con, group)
