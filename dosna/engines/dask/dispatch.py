"""One call on a cluster: its tasks in batches, where they run, and what becomes of them.

Dask runs a batch again when the worker that ran it is lost. For most work that is harmless: a
chunk is written twice with the same values. Work that must not happen twice (its `repeatable` is
False, as that of `apply`) is bound to one worker process, batch by batch, and a process refuses
what it has begun before. The batches of a lost process are not tried again: the error names
their chunks.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import Future as Answer
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, KilledWorker

from dosna.engines.base import Report, Tasks, outcome_unknown, unpack_error
from dosna.engines.dask.batches import Batches
from dosna.engines.dask.cluster import Worker, doubt, silence, workers_of
from dosna.engines.dask.ending import end, leave
from dosna.engines.dask.local import begin, revive
from dosna.engines.dask.tasks import Batch, Outcome, payload_of, run
from dosna.errors import DosnaError, OutcomeUnknown, WorkerError

__all__ = ["Call"]

# A batch costs the scheduler and the messages some 4 ms; Ctrl-C need not be faster than this.
_SECONDS_PER_BATCH = 0.25
# Each batch costs the caller some 5 ms too, and it alone has to keep all threads busy.
_SECONDS_PER_THREAD = 0.01
_MOST_TASKS = 4096
# Enough that a cluster which adapts to its queue grows, and little for a scheduler.
_MOST_BATCHES = 1024
_MOST_PENDING_TASKS = 50_000
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0
# Nannies start a worker in two seconds, and in many where the machine is busy.
_REVIVE_SECONDS = 20.0
# As many lost workers as Dask forgives one task by default (`allowed-failures`).
_MOST_LOST = 3


@dataclass
class _Pending:
    """A batch under way, the lane that it went to, and the processes that may run it."""

    batch: Batch[Any]
    lane: str
    owner: Worker | None
    ended: bool = False


@dataclass
class _Lane:
    """A way to workers: to a process, or to any (`workers` is empty)."""

    label: str
    workers: list[Worker]
    threads: int
    labels: frozenset[str] = frozenset()


class Call:
    """The work of one call of `spread`.

    Parameters
    ----------
    client : distributed.Client
        The client.
    work : callable
        The work; see `dosna.engines.base.Runner.spread`. Its attribute `repeatable` is False if
        no task may run twice; its method `locations(task)` names the places of a task's data.
    packed : bytes
        The pickle of `work`.
    tasks : sized iterable
        The tasks.
    most : int, optional
        The most tasks at the same time in one process.
    report : callable, optional
        A function that is called with the number of tasks done.
    timeout : float
        The seconds that the call waits for an answer of the scheduler, and while there is no
        worker.
    """

    def __init__(
        self,
        client: Client,
        work: Callable[[Iterable[Any]], Any],
        packed: bytes,
        tasks: Tasks[Any],
        most: int | None,
        report: Report | None,
        timeout: float,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.client, self.work, self.packed = client, work, packed
        self.most, self.report, self.timeout = most, report, timeout
        self.once = not getattr(work, "repeatable", True)
        self.tasks = tasks
        self.results: list[Any] = []
        self.finished = 0
        self.lost: list[Any] = []
        self._dead: set[str] = set()
        self._done: queue.SimpleQueue[Future | None] = queue.SimpleQueue()
        self._finished: dict[str, Future] = {}
        self._asked: dict[str, Future] = {}
        self._gathering: Answer[dict[str, Outcome]] | None = None
        self._under_way = 0
        self._pending: dict[Future, _Pending] = {}
        self._by_lane: Counter[str] = Counter()
        self._lanes: list[_Lane] = []
        self._pending_tasks = 0
        self._size = 1
        self._window = 0
        self.threads = 1
        """The threads of all workers."""
        self._number = 0
        self._of_work: BaseException | None = None
        self._address = client.scheduler.address
        self._workers: dict[str, Worker] = {}
        self._looked = self._seen = self._revived = time.monotonic()

    def run(self) -> list[Any]:
        """Run all tasks, and return the results of the batches.

        Raises
        ------
        OutcomeUnknown
            Workers were lost within work that must not happen twice. Its `chunks` names those
            that may have been changed or not; all others were changed, but for those that its
            `untouched` names.
        WorkerError
            There is no worker, the scheduler was lost or says nothing, or a batch has cost several
            workers.
        Exception
            The first error of the work, after all workers have stopped.
        """
        try:
            # Workers are checked first: one that cannot import what it is sent breaks down.
            places = [worker.labels for worker in self._look().values()]
            with self._connected():
                self._payload = self.client.submit(
                    payload_of, self.packed, key=f"dosna-work-{self.id}", pure=False
                )
            locations = getattr(self.work, "locations", None)
            self.batches = Batches(self.tasks, locations, places)
            self._place()
            self._send()
            while self._goes_on():
                self._receive()
        except BaseException as error:
            unknown = self._unknown_after(error)
            futures = list(self._pending)
            self._pending.clear()
            lost = isinstance(error, WorkerError) and error is not self._of_work
            silent = lost and isinstance(error.__cause__, TimeoutError)
            end(self.client, self.id, futures, error, None if silent else self.timeout)
            if unknown is not None:
                raise unknown from error
            raise
        if self.lost:
            raise outcome_unknown(self.work, self.lost, self.batches.rest())
        return self.results

    def _unknown_after(self, error: BaseException) -> OutcomeUnknown | None:
        """Return the error for work that must not happen twice, after one of the cluster."""
        begun = self.once and self._number > 0
        if not begun or error is self._of_work or not isinstance(error, WorkerError):
            return None
        pending = [task for each in self._pending.values() for task in each.batch.tasks]
        return outcome_unknown(self.work, self.lost + pending, self.batches.rest())

    # -- sending ------------------------------------------------------------------------------

    def _goes_on(self) -> bool:
        return bool(self._pending) or (self.batches.left > 0 and not self._gave_up)

    @property
    def _gave_up(self) -> bool:
        """True if one worker after the other is lost, and nothing gets done."""
        return len(self._dead) > max(_MOST_LOST, len(self._workers))

    def _send(self) -> None:
        """Send batches as long as workers have room."""
        while not self._gave_up and self._under_way < self._window:
            many = self._pending_tasks > _MOST_PENDING_TASKS
            if many and self._under_way > 2 * self.threads:
                break
            lane, tasks = self._next()
            if lane is None:
                break
            self._submit(lane, tasks)

    def _next(self) -> tuple[_Lane | None, Any]:
        """Return a lane with room for a batch, and tasks for it."""
        for lane in sorted(self._lanes, key=lambda x: self._by_lane[x.label] / x.threads):
            if self._by_lane[lane.label] < self._room(lane):
                tasks = self.batches.take(self._size_now(), lane.labels)
                if tasks:
                    return lane, tasks
        return None, ()

    def _room(self, lane: _Lane) -> int:
        if self.once:
            # What waits at a worker that is lost would be named too, though nothing was done.
            return min(lane.threads, self.most or lane.threads)
        return self._window if len(self._lanes) == 1 else 2 * lane.threads

    def _size_now(self) -> int:
        # Fair shares at the end matter more than long batches.
        fair = self.batches.left // (2 * self.threads)
        return max(1, min(self._size, fair, _MOST_TASKS))

    def _submit(self, lane: _Lane, tasks: Any) -> None:
        owner = lane.workers[0] if self.once else None
        self._number += 1
        batch = Batch(self.id, self._number, tasks, self.most, owner.process if owner else None)
        addresses = [worker.address for worker in lane.workers]
        try:
            with self._connected():
                future = self._submitted(batch, addresses, owner is None)
        except BaseException:
            # Nobody knows whether it was sent, and `Batches` has it no more.
            self.lost += tasks
            raise
        self._pending[future] = _Pending(batch, lane.label, owner)
        self._pending_tasks += len(tasks)
        self._under_way += 1
        self._by_lane[lane.label] += 1
        future.add_done_callback(self._done.put)

    def _submitted(self, batch: Batch[Any], addresses: list[str], elsewhere: bool) -> Future:
        return self.client.submit(
            run,
            self._payload,
            batch,
            key=f"dosna-{self.id}-{batch.number}",
            pure=False,
            workers=addresses or None,
            # A host that keeps the data is only preferred: without workers it must not block this.
            allow_other_workers=bool(addresses) and elsewhere,
        )

    # -- receiving ----------------------------------------------------------------------------

    def _receive(self) -> None:
        """Wait a moment for batches that have ended, and look after the workers."""
        ended = []
        with suppress(queue.Empty):
            ended.append(self._done.get(timeout=_POLL_SECONDS))
            while True:
                ended.append(self._done.get_nowait())
        for future in ended:
            if future is None or future not in self._pending:
                continue
            if future.status in ("error", "cancelled"):
                self._take(future, self._failure(future))
            else:
                # Finished, or lost since with its worker, which is found out when it is fetched.
                self._vacate(self._pending[future])
                self._finished[future.key] = future
        # The next batches are on their way before the results of these are asked for.
        self._send()
        for future, outcome in self._gathered():
            self._take(future, outcome)
        if self.report is not None:
            self.report(self.finished)
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
            self._place()

    def _gathered(self) -> list[tuple[Future, Outcome]]:
        """Return outcomes that have arrived, and ask for those of batches that have ended since.

        A thread waits for them. If a worker was lost with its results, they are made again, or
        the batches are given up by `_place`; meanwhile the call goes on.
        """
        arrived = []
        if self._gathering is not None and self._gathering.done():
            futures, self._asked = self._asked, {}
            outcomes = self._gathering.result()
            self._gathering = None
            for key, future in futures.items():
                if future not in self._pending:
                    continue  # It was given up by `_place`.
                if outcomes.get(key) is not None:
                    arrived.append((future, outcomes[key]))
                else:
                    self._done.put(future)
        if self._gathering is None and self._finished:
            self._asked, self._finished = self._finished, {}
            asked = self._asked
            self._gathering = begin(lambda: self._gather(asked))
            self._gathering.add_done_callback(lambda _: self._done.put(None))
        return arrived

    def _gather(self, futures: dict[str, Future]) -> dict[str, Outcome]:
        try:
            direct = all(worker.direct for worker in self._workers.values())
            outcomes: dict[str, Outcome] = self.client.gather(futures, "skip", direct)
        except Exception:
            # Each future tells what became of it.
            return {}
        return outcomes

    def _failure(self, future: Future) -> Outcome:
        """Return the end of a batch that has none of its own, or raise WorkerError."""
        if future.status == "cancelled":
            raise WorkerError(
                "the Dask scheduler has dropped the call's work: it was restarted or closed, or "
                "cannot be reached any more. Do the call again once it is back"
            )
        if self.once:
            return Outcome(0.0, begun_before=True)
        error = future.exception(timeout=self.timeout)
        if isinstance(error, KilledWorker):
            raise WorkerError(
                f"workers of the Dask cluster died while they worked on one batch, at last "
                f"{error.last_worker}: they were killed, or had too little memory. Use a "
                "memory_limit= or smaller chunks, or workers with more memory"
            ) from error
        raise WorkerError(
            f"the Dask cluster could not run a batch: {error!r}. Check that its workers and its "
            "scheduler have the same packages as this process, dosna among them"
        ) from error

    def _take(self, future: Future, outcome: Outcome) -> None:
        pending = self._pending[future]
        self._forget(future)
        count = len(pending.batch.tasks)
        self.finished += count
        if outcome.begun_before:
            self._lose(pending)
            return
        if outcome.error is not None:
            self._of_work = unpack_error(outcome.error)
            raise self._of_work
        self.results.append(outcome.result)
        self._dead.clear()
        if count >= self._size:
            # A batch of several is a better measure than one of a single task.
            seconds = _SECONDS_PER_BATCH + _SECONDS_PER_THREAD * self.threads
            self._size = max(1, int(seconds * count / outcome.seconds))
        if not self.once:
            self._window = min(_MOST_BATCHES, self._window + 1)

    def _vacate(self, pending: _Pending) -> None:
        """Note that the workers have room for another batch."""
        if not pending.ended:
            pending.ended = True
            self._by_lane[pending.lane] -= 1
            self._under_way -= 1

    def _forget(self, future: Future) -> None:
        pending = self._pending.pop(future)
        self._vacate(pending)
        self._pending_tasks -= len(pending.batch.tasks)

    def _lose(self, pending: _Pending) -> None:
        self.lost += pending.batch.tasks
        assert pending.owner is not None
        self._dead.add(pending.owner.process)
        doubt(self.client, pending.owner.address)
        # What else was sent there would be refused and named too, until somebody looks.
        self._lanes = [lane for lane in self._lanes if lane.label != pending.lane]
        self._looked = -_LOOK_SECONDS

    # -- workers ------------------------------------------------------------------------------

    def _look(self) -> dict[str, Worker]:
        """Look which workers there are."""
        with self._connected():
            workers = workers_of(self.client, self.timeout)
        self._looked = time.monotonic()
        if workers:
            self._seen = self._looked
        elif self._looked - self._seen > self.timeout:
            raise WorkerError(
                f"the Dask cluster has had no worker for {self.timeout} s. Start workers, or "
                "pass a longer timeout= to the engine"
            )
        elif self._looked - max(self._seen, self._revived) > _REVIVE_SECONDS:
            self._revived = self._looked
            revive(self.client)
        leave(self.client, self._workers.values(), workers.values())
        self._workers = workers
        return workers

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Tell an error of the connection to the scheduler as such."""
        try:
            yield
        except DosnaError:
            raise
        except TimeoutError as error:
            raise silence(self._address, self.timeout) from error
        except (OSError, RuntimeError, CancelledError) as error:
            raise WorkerError(
                f"the Dask scheduler at {self._address} cannot be reached any "
                f"more ({error}). Do the call again once it is back"
            ) from error

    def _place(self) -> None:
        """Choose the ways to the workers that there are, and give up what others began."""
        workers = self._workers
        self.threads = max(1, sum(worker.threads for worker in workers.values()))
        self._window = max(self._window, 2 * self.threads)
        self._lanes = self._lanes_of(list(workers.values()))
        self.batches.places = frozenset().union(*(w.labels for w in workers.values()))
        if self.once:
            # Workers of one process, in threads of it, have addresses of their own.
            present = {(worker.process, worker.address) for worker in workers.values()}
            for future, pending in list(self._pending.items()):
                owner = pending.owner
                if owner is not None and (owner.process, owner.address) not in present:
                    self._forget(future)
                    self.client.cancel([future], force=True)
                    self.finished += len(pending.batch.tasks)
                    self._lose(pending)

    def _lanes_of(self, workers: list[Worker]) -> list[_Lane]:
        if self.once:
            # One that is paused, or about to leave, would not begin what is for it alone.
            workers = [worker for worker in workers if worker.ready]
        if self.once or self.batches.located:
            return [_Lane(w.address + w.process, [w], w.threads, w.labels) for w in workers]
        return [_Lane("", [], self.threads)] if workers else []
