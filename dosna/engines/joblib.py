"""The joblib engine: threads, or processes that joblib's loky or multiprocessing start.

Pools are kept between calls, because starting one costs more than most calls. The slicing of a
request always runs in threads of this process, where workers write straight into the result; map,
apply, reduce and copies go to the processes, which read and write the store themselves.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from multiprocessing import (
    current_process,
    get_all_start_methods,
    get_context,
    get_start_method,
)
from typing import Any, Generic

import joblib
from joblib.externals.loky import ProcessPoolExecutor as LokyExecutor

from dosna.engines.base import (
    Engine,
    R,
    Report,
    Reported,
    Runner,
    T,
    Tasks,
    outcome_unknown,
    pack_error,
    pack_work,
    reported,
    unpack_error,
)
from dosna.engines.processes import Pool, Processes
from dosna.errors import ConfigurationError, OutcomeUnknown, WorkerError

_BACKENDS = ("threading", "loky", "multiprocessing")
# The time that one submission to a process should take: long against its cost of 60 µs, and
# short against the second within which Ctrl-C stops the call.
_SECONDS_PER_BATCH = 0.1
_REPORT_SECONDS = 0.1
_INTERRUPT_SECONDS = 0.5

_DIED = (
    "a worker process of the joblib engine ({}) died: it was killed, ran out of memory, or "
    "(multiprocessing) the script has no `if __name__ == '__main__'` guard; or the thread that "
    "gives it tasks ended, by an error that was printed"
)

_in_worker = threading.local()
_started_in: int | None = None
"""The id of the process that has started pools of processes."""
_thread_pools: dict[int, ThreadPoolExecutor] = {}
_process_pools: dict[tuple[str, int], Processes] = {}
_pools_lock = threading.Lock()


class JoblibRunner(Runner):
    """A runner that works in threads or processes of this machine.

    Parameters
    ----------
    njobs : int, optional
        The number of workers; by default the number of CPUs that this process may use, as for -1.
    jlbackend : {'threading', 'loky', 'multiprocessing'}
        The kind of workers: threads; processes that start fresh and clean up after themselves
        (loky); or processes started by a fork server of Python's own (multiprocessing, whose
        scripts need the guard ``if __name__ == '__main__'``).
    """

    def __init__(self, njobs: int | None = None, jlbackend: str = "threading") -> None:
        super().__init__()
        if njobs is None or njobs == -1:
            njobs = joblib.cpu_count()
        if isinstance(njobs, bool) or not isinstance(njobs, int) or njobs < 1:
            raise ConfigurationError(f"njobs must be a positive integer or -1, not {njobs!r}")
        if jlbackend not in _BACKENDS:
            raise ConfigurationError(
                f"jlbackend must be one of {', '.join(_BACKENDS)}, not {jlbackend!r}"
            )
        self.njobs = self.threads = self.workers = njobs
        self.jlbackend = jlbackend
        self.shares_memory = jlbackend == "threading"  # type: ignore[misc]

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
        picklable: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        workers = min(self.workers, workers or self.workers)
        # A worker that waited for a place in its own pool would wait forever, and a forked
        # child has the parent's pools without the threads that run them.
        if getattr(_in_worker, "yes", False) or _started_in not in (None, os.getpid()):
            return [work(tasks if report is None else reported(tasks, report))]
        if self.shares_memory or not picklable:
            return self._in_threads(work, tasks, workers, report)
        if not _may_start_processes(self.jlbackend):
            return [work(tasks if report is None else reported(tasks, report))]
        return self._in_processes(work, tasks, workers, report)

    def _in_threads(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        workers: int,
        report: Report | None,
    ) -> list[R]:
        shared = _SharedTasks(tasks)
        pool = self._threads()
        # The caller works too, and does not wait for helpers that have not begun: calls from
        # within helpers, in whatever thread, then continue even when the whole pool is busy.
        helpers: list[Future[R]] = []
        try:
            for _ in range(min(workers, len(tasks)) - 1):
                helpers.append(pool.submit(_work_in_thread, work, shared, report is not None))
            results = [work(shared if report is None else shared.counted(report))]
            running = {helper for helper in helpers if not helper.cancel()}
            while running:
                done, running = wait(running, _REPORT_SECONDS if report else None, FIRST_EXCEPTION)
                results += [helper.result() for helper in done]
                if report:
                    report(shared.done)
        except BaseException as error:
            shared.stop()
            running = {helper for helper in helpers if not helper.cancel()}
            # A thread cannot be interrupted: after Ctrl-C it ends by itself, later. One that had
            # only just begun may be unknown to its pool, and then nothing but its end wakes it.
            wait(running, None if isinstance(error, Exception) else _INTERRUPT_SECONDS)
            if not isinstance(error, Exception):
                self._forget_threads(pool)
            raise
        return results

    def _in_processes(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        workers: int,
        report: Report | None,
    ) -> list[R]:
        # Workers may be older than what a notebook has put into the environment since, like keys.
        payload = pickle.dumps((dict(os.environ), pack_work(work)))
        # A new id for each call, and not the payload's hash: the handles that one call opened
        # may be stale in the next.
        call = uuid.uuid4().hex
        packed = call, payload
        with self._processes().used() as pool, suppress(_NothingBegunError):
            return self._by_batches(pool, work, packed, tasks, workers, report)
        # A worker was lost while no call used it: this one may begin with new ones.
        with self._processes().used() as pool:
            return self._by_batches(pool, work, packed, tasks, workers, report)

    def _by_batches(
        self,
        pool: Pool,
        work: Callable[[Iterable[T]], R],
        packed: tuple[str, bytes],
        tasks: Tasks[T],
        workers: int,
        report: Report | None,
    ) -> list[R]:
        source = iter(tasks)
        running: dict[Future[Any], list[T]] = {}
        unsent: list[T] = []
        results: list[R] = []
        size, finished = 1, 0
        try:
            while True:
                while len(running) < workers:
                    unsent = list(islice(source, size))
                    if not unsent:
                        break
                    future = pool.submit(_work_in_process, *packed, unsent)
                    running[future], unsent = unsent, []
                if not running:
                    return results
                done = pool.first_ended(running)
                if not done:
                    raise BrokenProcessPool
                for future in done:
                    seconds, error, result = future.result()
                    count = len(running.pop(future))
                    if error is not None:
                        raise unpack_error(error)
                    results.append(result)
                    finished += count
                    if report:
                        report(finished)
                    # Fair shares at the end matter more than long batches.
                    fair = max(1, (len(tasks) - finished) // (2 * workers))
                    size = max(1, min(int(_SECONDS_PER_BATCH * count / seconds), fair, 4096))
        except BrokenProcessPool as error:
            if not running and not results:
                pool.end()
                raise _NothingBegunError(_DIED.format(self.jlbackend)) from error
            raise self._loss(pool, work, running, chain(unsent, source)) from error
        except BaseException as error:
            for future in running:
                future.cancel()
            if isinstance(error, Exception):
                ended = pool.all_ended(running)
            else:
                ended = wait(running, _INTERRUPT_SECONDS).done
            # Ctrl-C ends a worker that had only just begun, and with it, sooner or later, the
            # pool. A chunk that a worker is writing stays old or becomes new.
            if len(ended) < len(running) or not isinstance(error, Exception):
                pool.kill()
            raise

    def _loss(
        self,
        pool: Pool,
        work: Callable[[Iterable[T]], R],
        running: Mapping[Future[Any], list[T]],
        left: Iterable[T],
    ) -> WorkerError | OutcomeUnknown:
        """Return the error for a pool that works no more, and end what is left of it."""
        pool.ends = True  # so that no other call begins with it
        ended = pool.all_ended(running)
        if len(ended) < len(running):
            pool.kill()
        else:
            pool.end()
        if not getattr(work, "repeatable", True):
            broken = [f for f in running if f not in ended or f.exception() is not None]
            return outcome_unknown(work, [task for f in broken for task in running[f]], left)
        return WorkerError(_DIED.format(self.jlbackend))

    def _threads(self) -> ThreadPoolExecutor:
        with _pools_lock:
            pool = _thread_pools.get(self.njobs)
            if pool is None:
                pool = ThreadPoolExecutor(self.njobs, thread_name_prefix="dosna")
                _thread_pools[self.njobs] = pool
            return pool

    def _forget_threads(self, pool: ThreadPoolExecutor) -> None:
        with _pools_lock:
            if _thread_pools.get(self.njobs) is pool:
                del _thread_pools[self.njobs]
        # Threads that others wait for finish their work; nothing new is started.
        pool.shutdown(wait=False)

    def _processes(self) -> Processes:
        global _started_in
        _started_in = os.getpid()
        key = self.jlbackend, self.njobs
        with _pools_lock:
            if key not in _process_pools:
                _process_pools[key] = Processes(partial(_EXECUTORS[self.jlbackend], self.njobs))
            return _process_pools[key]


def _renew_pools() -> None:
    # A forked child inherits pools without their threads, and perhaps a lock that is
    # never released.
    global _thread_pools, _process_pools, _pools_lock
    _thread_pools, _process_pools, _pools_lock = {}, {}, threading.Lock()


os.register_at_fork(after_in_child=_renew_pools)


def _may_start_processes(jlbackend: str) -> bool:
    """Return False in a worker of another pool from which no other processes can be started."""
    if current_process().daemon:
        return False  # as those of multiprocessing.Pool and of a DataLoader
    # loky's workers name loky as their way to start processes, which Python's children refuse.
    names = (None, *get_all_start_methods())
    return jlbackend == "loky" or get_start_method(allow_none=True) in names


def _begin_worker(owner: int) -> None:
    # A terminal sends Ctrl-C to workers too, but the process that started them stops them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # If that process is killed, its workers are not informed, and would wait for minutes.
    with suppress(OSError):
        handle = os.pidfd_open(owner)
        threading.Thread(target=_end_with, args=(handle,), daemon=True).start()


def _end_with(process: int) -> None:
    select.select([process], [], [])
    os._exit(1)


# The pools are our own: loky's reusable pool is also joblib's, which expects it unchanged.
_EXECUTORS: dict[str, Callable[[int], Executor]] = {
    "loky": lambda njobs: LokyExecutor(
        njobs, timeout=None, initializer=_begin_worker, initargs=(os.getpid(),)
    ),
    "multiprocessing": lambda njobs: ProcessPoolExecutor(
        njobs, get_context("forkserver"), _begin_worker, (os.getpid(),)
    ),
}


class _NothingBegunError(WorkerError):
    """Workers were lost before a call gave them anything to do."""


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

    def counted(self, report: Report | None = None) -> Reported[T]:
        """Return the tasks for one thread, which reports how many all threads have done."""
        mine = 0

        def count(done: int) -> None:
            nonlocal mine
            with self._lock:
                self.done += done - mine
            mine = done
            if report is not None:
                report(self.done)

        return Reported(self, count)


def _work_in_thread(work: Callable[[Iterable[T]], R], shared: _SharedTasks[T], counted: bool) -> R:
    _in_worker.yes = True
    try:
        return work(shared.counted() if counted else shared)
    except BaseException:
        shared.stop()
        raise


_unpacked: dict[str, Any] = {}


def _adopt(environment: Mapping[str, str]) -> None:
    """Make the environment of this process that of its caller."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _work_in_process(
    call: str, payload: bytes, batch: list[Any]
) -> tuple[float, bytes | None, Any]:
    """Run one batch; return its seconds, its packed error or None, and its result."""
    _in_worker.yes = True
    begin = time.perf_counter()
    try:
        work = _unpacked.get(call)
        if work is None:
            _unpacked.clear()
            environment, packed = pickle.loads(payload)
            _adopt(environment)
            work = _unpacked[call] = pickle.loads(packed)
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
