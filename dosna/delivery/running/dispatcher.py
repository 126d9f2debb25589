"""The dispatcher: passes files of all running requests to the workers, and records the outcomes.

Requests take turns. Each has a cursor over its remaining files, which are read a few at a time, so
that the cost of a file does not depend on their number.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dosna.delivery.running.collecting import Collectors
from dosna.delivery.running.jobs import failure, is_passing, job_of
from dosna.delivery.running.workers import Workers
from dosna.delivery.settings import Settings
from dosna.delivery.state.files import Outcome
from dosna.delivery.state.requests import Row
from dosna.errors import DosnaError, StorageError, WorkerError

if TYPE_CHECKING:
    from dosna.delivery.objects import ObjectPlace
    from dosna.delivery.state import State

__all__ = ["Dispatcher"]

logger = logging.getLogger("dosna.delivery")

_PAGE = 64
_AHEAD = 2
"""Files given to the workers, for each of their slots."""
_MOST_COLLECTED = 256
"""Files of a request that workers have done, and that are not yet in the tree of its results."""
_SETTLED = 16
"""Outcomes that are recorded before more files are started."""
_IDLE = 5.0
_MOST_PAUSE = 30.0
_BROKEN_OFF = ("Canceled", "Fatal")


@dataclass(order=True)
class _Try:
    """An attempt at a file."""

    not_before: float
    request: str
    number: int
    path: str = field(compare=False)
    attempts: int = field(default=0, compare=False)
    since: float = field(default_factory=time.monotonic, compare=False)
    began: float = field(default_factory=time.monotonic, compare=False)
    collected: bool = field(default=False, compare=False)
    made: Outcome | None = field(default=None, compare=False)
    """What a worker has made of it, if only its destination failed."""


class _Cursor:
    """The remaining files of a request."""

    def __init__(self, row: Row) -> None:
        self.row, self.after = row, -1
        self.page: deque[Any] = deque()
        self.ended = False


class Dispatcher:
    """A thread that passes files to workers.

    Parameters
    ----------
    state : State
        The tables.
    place : ObjectPlace
        The results.
    workers : Workers
        The workers.
    settings : Settings
        The settings of the service.

    Attributes
    ----------
    collectors : Collectors
        The collector of results that go into connections.
    """

    def __init__(
        self, state: State, place: ObjectPlace, workers: Workers, settings: Settings
    ) -> None:
        self.collectors = Collectors(state, place, settings)
        self._state, self._place = state, place
        self._workers, self._settings = workers, settings
        self._changed = threading.Condition()
        self._turns: deque[_Cursor] = deque()
        self._known: dict[str, _Cursor] = {}
        self._again: list[_Try] = []
        self._done: deque[tuple[_Try, Future[Outcome]]] = deque()
        self._busy: dict[str, int] = {}
        self._collecting: Counter[str] = Counter()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dosna-dispatcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; the next service starts unfinished files again."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(10)
        self.collectors.close()

    def add(self, row: Row) -> None:
        """Start work on the remaining files of a request."""
        with self._changed:
            if row.id not in self._known:
                self._known[row.id] = cursor = _Cursor(row)
                self._turns.append(cursor)
            self._changed.notify_all()

    def drop(self, request: str) -> None:
        """Start no more files of a request, and delete its results."""
        with self._changed:
            self._known.pop(request, None)
            self._turns = deque(c for c in self._turns if c.row.id != request)
            self._again = [t for t in self._again if t.request != request]
            heapq.heapify(self._again)
        self._workers.drop(request)
        self._clear(request)
        row = self._state.requests.get(request)
        if row is not None and row.destination and row.status in _BROKEN_OFF:
            self.collectors.drop(row)

    @property
    def busy(self) -> int:
        """The number of files that were started, and whose outcomes are not recorded."""
        return sum(self._busy.values())

    @property
    def _room(self) -> int:
        """The number of files that can be given to the workers."""
        return _AHEAD * self._workers.slots - self.busy + self._collecting.total()

    # -- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                if not self._done and not self._can_begin():
                    wait = self._again[0].not_before - time.monotonic() if self._again else _IDLE
                    self._changed.wait(max(0.0, min(wait, _IDLE)))
            try:
                self._work()
            except DosnaError as error:
                logger.warning("the dispatcher waits: %s", error)
                time.sleep(1.0)
            except Exception:
                logger.exception("the dispatcher failed, and goes on")
                time.sleep(1.0)

    def _can_begin(self) -> bool:
        waiting = self._again and self._again[0].not_before <= time.monotonic()
        return self._room > 0 and bool(waiting or any(map(self._has_turn, self._turns)))

    def _has_turn(self, cursor: _Cursor) -> bool:
        return self._collecting[cursor.row.id] < _MOST_COLLECTED

    def _work(self) -> None:
        """Record some outcomes, then start as many files as there are free workers."""
        for _ in range(min(_SETTLED, len(self._done))):
            tried, future = self._done[0]
            self._settle(tried, future)
            # Not earlier: if the database failed, the outcome is recorded later.
            self._done.popleft()
            self._free(tried)
        # A service that has lost its database to another one starts nothing.
        self._state.database.hold_still()
        room = self._room
        while room > 0 and (following := self._next()) is not None:
            self._begin(following)
            room -= 1

    def _next(self) -> _Try | None:
        """Return the next file to start; requests take turns."""
        with self._changed:
            if self._again and self._again[0].not_before <= time.monotonic():
                return heapq.heappop(self._again)
            turns = list(filter(self._has_turn, self._turns))
        for cursor in turns:
            if not cursor.page and not cursor.ended:
                found = self._state.files.pending(cursor.row.id, cursor.after, _PAGE)
                cursor.page.extend(found)
                cursor.ended = len(found) < _PAGE
            with self._changed:
                if cursor not in self._turns:
                    continue
                if not cursor.page:
                    self._turns.remove(cursor)
                    self._complete(cursor)
                    continue
                row = cursor.page.popleft()
                cursor.after = row.number
                self._turns.remove(cursor)
                self._turns.append(cursor)
            return _Try(0.0, cursor.row.id, row.number, row.path)
        return None

    def _begin(self, tried: _Try) -> None:
        with self._changed:
            cursor = self._known.get(tried.request)
            if cursor is None:
                return
            self._busy[tried.request] = self._busy.get(tried.request, 0) + 1
        tried.began = time.monotonic()
        if tried.made is None:
            job = job_of(cursor.row, tried.number, tried.path, self._settings)
            future = self._workers.submit(job)
        else:
            future = Future()
            future.set_result(tried.made)
        if cursor.row.destination:
            future = self._collected(cursor.row, tried, future)
        future.add_done_callback(lambda done: self._ended(tried, done))

    def _collected(self, row: Row, tried: _Try, future: Future[Outcome]) -> Future[Outcome]:
        """Return a future that is done when a result is where it goes to."""
        made: Future[Outcome] = Future()

        def pass_on(done: Future[Outcome]) -> None:
            if done.cancelled():
                made.cancel()
            elif (error := done.exception()) is not None:
                made.set_exception(error)
            else:
                made.set_result(done.result())

        def collect(done: Future[Outcome]) -> None:
            if done.cancelled() or done.exception() is not None:
                pass_on(done)
            else:
                tried.made = done.result()
                with self._changed:
                    tried.collected = True
                    self._collecting[tried.request] += 1
                    self._changed.notify_all()
                taken = self.collectors.take(row, tried.number, tried.path, tried.made)
                taken.add_done_callback(pass_on)

        future.add_done_callback(collect)
        return made

    def _ended(self, tried: _Try, future: Future[Outcome]) -> None:
        with self._changed:
            if not future.cancelled():
                self._done.append((tried, future))
            self._changed.notify_all()

    def _settle(self, tried: _Try, future: Future[Outcome]) -> None:
        """Record the outcome of a file, or try it again."""
        error = future.exception()
        if error is None:
            outcome = future.result()
        elif self._tries_again(tried, error):
            return
        else:
            outcome = failure(error, tried.began)
        self._record(tried.request, tried.number, outcome)

    def _record(self, request: str, number: int, outcome: Outcome) -> None:
        if not self._state.files.record(request, number, outcome):
            self._clear(request)
            with self._changed:
                self._known.pop(request, None)
            return
        limit = int(self._settings.bytes_limit)
        cursor = self._known.get(request)
        if outcome.nbytes and cursor is not None:
            owner = cursor.row.owner
            if self._state.requests.usage(owner)[1] > limit:
                self._state.requests.end(
                    request, "Fatal", f"the results of {owner} have more than {limit} bytes"
                )
                self.drop(request)

    def _tries_again(self, tried: _Try, error: BaseException) -> bool:
        """Plan another attempt at a file whose worker or storage failed, if this can help."""
        if not is_passing(error):
            return False
        tried.attempts += 1
        if isinstance(error, WorkerError):
            over = tried.attempts >= self._settings.attempts
        else:
            over = time.monotonic() - tried.since > self._settings.patience
        if over:
            return False
        pause = min(_MOST_PAUSE, 0.2 * 2**tried.attempts)
        tried.not_before = time.monotonic() + pause
        logger.info("%s of %s is tried again: %s", tried.path, tried.request, error)
        with self._changed:
            if tried.request in self._known:
                heapq.heappush(self._again, tried)
        return True

    def _free(self, tried: _Try) -> None:
        request = tried.request
        with self._changed:
            if tried.collected:
                tried.collected = False
                self._collecting[request] -= 1
                if not self._collecting[request]:
                    del self._collecting[request]
            self._busy[request] -= 1
            gone = request not in self._known
            if not self._busy[request]:
                del self._busy[request]
                if (cursor := self._known.get(request)) is not None:
                    self._complete(cursor)
        if gone:
            # It may have been stored after the others were deleted.
            self._clear(request)

    def _complete(self, cursor: _Cursor) -> None:
        """Forget a request, if nothing is to do for it any more. The lock is held."""
        request = cursor.row.id
        waits = any(t.request == request for t in self._again)
        if cursor.ended and not cursor.page and not waits and request not in self._busy:
            self._known.pop(request, None)
            if cursor.row.destination:
                self.collectors.finish(cursor.row).add_done_callback(
                    lambda done: self._finished(cursor.row, done)
                )

    def _finished(self, row: Row, done: Future[Outcome]) -> None:
        """End a request whose results are all in the connection that they go to."""
        error = done.exception()
        try:
            if error is None:
                self._state.requests.end(row.id, "Complete")
                self._place.delete(row.id)
            elif not is_passing(error):
                self._state.requests.end(row.id, "Fatal", str(error))
                self.drop(row.id)
        except StorageError as failed:
            error = failed
        if error is not None and is_passing(error):
            logger.warning("request %s is completed later: %s", row.id, error)
            later = threading.Timer(_IDLE, self.add, [row])
            later.daemon = True
            later.start()

    def _clear(self, request: str) -> None:
        """Delete the results of a request that was deleted or cancelled."""
        row = self._state.requests.get(request)
        if row is None or row.status in _BROKEN_OFF:
            try:
                self._place.delete(request)
            except StorageError as error:
                logger.warning("results of %s stay until the next start: %s", request, error)
