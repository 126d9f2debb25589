"""The joblib engine: threads, or processes that joblib's loky or multiprocessing start.

Pools are kept between calls, because starting one costs more than most calls. A request's
own slicing always runs in threads of this process, where workers write straight into the
result; map, apply, reduce and copies go to the processes, which read and write the store
themselves.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from concurrent.futures.thread import ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any, Generic

import cloudpickle
import joblib
from joblib.externals.loky import get_reusable_executor

from dosna.engines.base import R, Report, Runner, T, Tasks, pack_error
from dosna.errors import ConfigurationError, WorkerError
from dosna.registry import Engine

_BACKENDS = ("threading", "loky", "multiprocessing")
# What one submission to a process should take: long against its cost of 60 µs, short
# against the second within which Ctrl-C stops.
_SECONDS_PER_BATCH = 0.1
_REPORT_SECONDS = 0.1
_IDLE_SECONDS = 60

_in_worker = threading.local()


class JoblibRunner(Runner):
    """Works in threads or processes of this machine.

    Parameters
    ----------
    njobs : int, optional
        How many workers; by default the CPUs that this process may use, as -1 does.
    jlbackend : {'threading', 'loky', 'multiprocessing'}
        Threads; or processes that start fresh and clean up after themselves (loky), or by
        a fork server of Python's own (multiprocessing, whose scripts need the guard
        ``if __name__ == '__main__'``).
    """

    def __init__(self, njobs: int | None = None, jlbackend: str = "threading") -> None:
        super().__init__()
        if njobs is None or njobs == -1:
            njobs = joblib.cpu_count()
        if isinstance(njobs, bool) or not isinstance(njobs, int) or njobs < 1:
            raise ConfigurationError(f"njobs is a positive number or -1, not {njobs!r}")
        if jlbackend not in _BACKENDS:
            raise ConfigurationError(
                f"jlbackend is one of {', '.join(_BACKENDS)}, and {jlbackend!r} was given"
            )
        self.njobs = self.threads = self.workers = njobs
        self.jlbackend = jlbackend
        self.shares_memory = jlbackend == "threading"  # type: ignore[misc]
        self._pid = os.getpid()
        self._pools: dict[str, Executor] = {}
        self._pools_lock = threading.Lock()

    @property
    def params(self) -> Mapping[str, Any]:
        return {"njobs": self.njobs, "jlbackend": self.jlbackend}

    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        return self._in_threads(work, tasks, self.threads, None)

    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        travels: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        workers = min(self.workers, workers or self.workers)
        if self.shares_memory or not travels:
            return self._in_threads(work, tasks, workers, report)
        return self._in_processes(work, tasks, workers, report)

    def _in_threads(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        workers: int,
        report: Report | None,
    ) -> list[R]:
        shared = _SharedTasks(tasks)
        # A worker that waited for a place in its own pool would wait for ever.
        if getattr(_in_worker, "yes", False):
            return [work(shared)]
        pool = self._pool("threading")
        workers = max(1, min(workers, len(tasks)))
        running = {pool.submit(_work_in_thread, work, shared) for _ in range(workers)}
        futures = list(running)
        try:
            while running:
                done, running = wait(running, _REPORT_SECONDS if report else None, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if report and shared.done:
                    report(shared.done)
        except BaseException:
            shared.stop()
            wait(futures)
            raise
        return [future.result() for future in futures]

    def _in_processes(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        workers: int,
        report: Report | None,
    ) -> list[R]:
        payload = cloudpickle.dumps(work)
        digest = hashlib.sha256(payload).hexdigest()
        pool = self._pool(self.jlbackend)
        source = iter(tasks)
        running: dict[Future[Any], int] = {}
        results: list[R] = []
        size, finished = 1, 0
        try:
            while True:
                while len(running) < workers:
                    batch = list(islice(source, size))
                    if not batch:
                        break
                    future = pool.submit(_work_in_process, digest, payload, batch)
                    running[future] = len(batch)
                if not running:
                    return results
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    count = running.pop(future)
                    seconds, error, result = future.result()
                    if error is not None:
                        raise pickle.loads(error)
                    results.append(result)
                    finished += count
                    if report:
                        report(finished)
                    # Fair shares at the end weigh more than long batches.
                    fair = max(1, (len(tasks) - finished) // (2 * workers))
                    size = max(1, min(int(_SECONDS_PER_BATCH * count / seconds), fair, 4096))
        except BrokenProcessPool as error:
            self._forget_pools()
            raise WorkerError(
                f"a worker process of the joblib engine ({self.jlbackend}) died: it was killed, "
                "ran out of memory, or (multiprocessing) the script has no "
                "`if __name__ == '__main__'` guard"
            ) from error
        finally:
            for future in running:
                future.cancel()
            wait(running)

    def _pool(self, kind: str) -> Executor:
        if kind == "loky":
            pool: Executor = get_reusable_executor(max_workers=self.njobs, timeout=_IDLE_SECONDS)
            return pool
        if self._pid != os.getpid():
            # A forked child inherits pools whose threads it does not have, and perhaps a
            # lock that nobody will release.
            self._pid, self._pools, self._pools_lock = os.getpid(), {}, threading.Lock()
        with self._pools_lock:
            if kind not in self._pools:
                self._pools[kind] = (
                    ThreadPoolExecutor(self.njobs, thread_name_prefix="dosna")
                    if kind == "threading"
                    else ProcessPoolExecutor(self.njobs, mp_context=get_context("forkserver"))
                )
            return self._pools[kind]

    def _forget_pools(self) -> None:
        with self._pools_lock:
            broken = self._pools.pop("multiprocessing", None)
        if broken is not None:
            broken.shutdown(wait=False, cancel_futures=True)


class _SharedTasks(Generic[T]):
    """Tasks that threads take one by one, so that none is idle while others are busy."""

    def __init__(self, tasks: Iterable[T]) -> None:
        self._source = iter(tasks)
        self._lock = threading.Lock()
        self._stopped = False
        self.done = 0

    def stop(self) -> None:
        self._stopped = True

    def __iter__(self) -> Iterator[T]:
        end = object()
        while not self._stopped:
            with self._lock:
                task = next(self._source, end)
            if task is end:
                return
            yield task  # type: ignore[misc]
            with self._lock:
                self.done += 1


def _work_in_thread(work: Callable[[Iterable[T]], R], shared: _SharedTasks[T]) -> R:
    _in_worker.yes = True
    try:
        return work(shared)
    except BaseException:
        shared.stop()
        raise


_unpacked: dict[str, Any] = {}


def _work_in_process(
    digest: str, payload: bytes, batch: list[Any]
) -> tuple[float, bytes | None, Any]:
    """Run one batch; give its seconds, its packed error or None, and its result."""
    _in_worker.yes = True
    begin = time.perf_counter()
    try:
        work = _unpacked.get(digest)
        if work is None:
            _unpacked.clear()
            work = _unpacked[digest] = pickle.loads(payload)
        result = work(batch)
    except BaseException as error:
        return 1.0, pack_error(error), None
    return max(time.perf_counter() - begin, 1e-6), None, result


ENGINE = Engine(
    name="joblib",
    runner=JoblibRunner,
    description="threads or processes of one machine",
    url="https://joblib.readthedocs.io",
)
