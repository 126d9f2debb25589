"""Workers: threads that each watch one confined process on this machine, or Dask workers."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from dosna.delivery.running.jobs import Job, Transform, carry_out, scratch_beginning
from dosna.delivery.settings import Settings
from dosna.delivery.state.files import Outcome
from dosna.delivery.transform.client import drop_jobs, permit_jobs
from dosna.errors import ConnectionError, WorkerError
from dosna.registry import needing

__all__ = ["DaskWorkers", "LocalWorkers", "Workers", "open_workers"]

_CONNECT = 30


class Workers(ABC):
    """A pool that runs several jobs at a time.

    Attributes
    ----------
    slots : int
        The number of jobs that run at a time.
    """

    slots: int

    @abstractmethod
    def submit(self, job: Job) -> Future[Outcome]:
        """Start a job, or queue it for a free worker."""

    def drop(self, request: str) -> None:  # noqa: B027
        """End the jobs of a request that is no longer wanted, if possible."""

    @abstractmethod
    def close(self) -> None:
        """End all work. The next service starts unfinished jobs again."""


class LocalWorkers(Workers):
    """Threads of this process, each of which waits for the process of a selection.

    Parameters
    ----------
    settings : Settings
        The settings of the service.
    transform : callable
        The transformer.
    """

    def __init__(self, settings: Settings, transform: Transform) -> None:
        self.slots, self._settings, self._transform = settings.slots, settings, transform
        self._pool = ThreadPoolExecutor(self.slots, "dosna-delivery")
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._dropped: set[str] = set()

    def submit(self, job: Job) -> Future[Outcome]:
        with self._lock:
            self._held[job.request] += 1
        future = self._pool.submit(self._carry_out, job)
        future.add_done_callback(lambda done: self._forget(job.request))
        return future

    def _carry_out(self, job: Job) -> Outcome:
        if job.request in self._dropped:
            raise WorkerError(f"the request {job.request} was deleted")
        return carry_out(job, self._transform)

    def _forget(self, request: str) -> None:
        with self._lock:
            self._held[request] -= 1
            if not self._held[request]:
                del self._held[request]
                self._dropped.discard(request)
                permit_jobs(scratch_beginning(self._settings, request))

    def drop(self, request: str) -> None:
        with self._lock:
            if request not in self._held:
                return
            self._dropped.add(request)
            drop_jobs(scratch_beginning(self._settings, request))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        # At its end, Python would wait for the files that are being transformed.
        for request in list(self._held):
            self.drop(request)


class DaskWorkers(Workers):
    """The workers of a Dask cluster, which can access the folders, the state and the results.

    Parameters
    ----------
    settings : Settings
        The settings of the service, with the address of the scheduler.
    transform : callable
        The transformer, which is pickled for the workers.
    """

    def __init__(self, settings: Settings, transform: Transform) -> None:
        with needing("workers of Dask need", "dask"):
            from dosna.engines.dask.cluster import present
            from dosna.engines.dask.local import open_client
        self._present = present
        self._settings, self._transform = settings, transform
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._dropped: set[str] = set()
        # One thread, so that workers get these calls in order.
        self._telling = ThreadPoolExecutor(1, "dosna-dask")
        address = str(settings.dask)
        try:
            self._client = open_client(address, set_as_default=False, timeout=_CONNECT)
        # Also MemoryError: what another server says is taken for the size of a message.
        except Exception as error:
            raise ConnectionError(f"the scheduler {address} cannot be reached: {error}") from None

    @property
    def slots(self) -> int:  # type: ignore[override]
        """The number of threads of all current workers; 1 if the scheduler does not say."""
        try:
            found = self._present(self._client, _CONNECT)
        except TimeoutError:
            return 1
        return max(1, sum(int(about["nthreads"]) for about in found.values()))

    def submit(self, job: Job) -> Future[Outcome]:
        made: Future[Outcome] = Future()
        with self._lock:
            self._held[job.request] += 1
        made.add_done_callback(lambda done: self._forget(job.request))
        try:
            task = self._client.submit(carry_out, job, self._transform, pure=False)
        except Exception as error:
            made.set_exception(WorkerError(f"the Dask cluster takes no work: {error}"))
            return made
        made.set_running_or_notify_cancel()
        task.add_done_callback(lambda done: _settle(made, done))
        return made

    def _forget(self, request: str) -> None:
        with self._lock:
            self._held[request] -= 1
            if not self._held[request]:
                del self._held[request]
                if request in self._dropped:
                    self._dropped.discard(request)
                    self._tell(permit_jobs, request)

    def drop(self, request: str) -> None:
        with self._lock:
            if request in self._held and request not in self._dropped:
                self._dropped.add(request)
                self._tell(drop_jobs, request)

    def _tell(self, change: Callable[[str], None], request: str) -> None:
        """Have a function called in all workers. One that joins later does some needless work."""
        beginning = scratch_beginning(self._settings, request)
        with suppress(RuntimeError):  # it is closed
            self._telling.submit(self._client.run, change, beginning, on_error="ignore")

    def close(self) -> None:
        self._telling.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _settle(made: Future[Outcome], done: Any) -> None:
    """Copy the result of a Dask future to a Python future."""
    try:
        if done.status == "finished":
            made.set_result(done.result())
            return
        error = done.exception() if done.status == "error" else None
    except Exception as failed:
        error = failed
    if error is None or type(error).__module__.startswith("distributed"):
        error = WorkerError(f"a worker of Dask was lost: {error or done.status}")
    made.set_exception(error)


def open_workers(settings: Settings, transform: Transform) -> Workers:
    """Return the workers that the settings specify."""
    make: Callable[[], Workers] = (
        (lambda: LocalWorkers(settings, transform))
        if settings.dask is None
        else (lambda: DaskWorkers(settings, transform))
    )
    return make()
