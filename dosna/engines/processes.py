"""Pools of worker processes that start when they are needed and end when nothing uses them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager, suppress
from multiprocessing.util import Finalize
from typing import Any

__all__ = ["IDLE_SECONDS", "Pool", "Processes"]

IDLE_SECONDS = 60.0
"""The time after which processes end that no call uses."""

_LOOK_SECONDS = 1.0
"""The time after which a call that waits for a pool looks whether it still works."""


class Pool:
    """A pool of worker processes, which are told by a thread what to do.

    Parameters
    ----------
    executor : Executor
        The processes, of loky or of the standard library.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._thread: threading.Thread | None = None
        self.ends = False
        """True if the pool takes no more tasks."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a task."""
        future = self._executor.submit(function, *arguments)
        # It is started now at the latest, and executors forget it when they are shut down.
        thread = getattr(self._executor, "_executor_manager_thread", None)
        self._thread = thread or self._thread
        return future

    def first_ended(self, running: Collection[Future[Any]]) -> set[Future[Any]]:
        """Wait for one of some tasks; the result is empty if none will end."""
        while True:
            done = wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done
            if done or not self._works:
                return done

    def all_ended(self, running: Collection[Future[Any]]) -> set[Future[Any]]:
        """Wait for tasks, and return those that have ended: all, if the pool works."""
        while True:
            done, left = wait(running, _LOOK_SECONDS, ALL_COMPLETED)
            if not left or not self._works:
                return done

    @property
    def _works(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    def end(self, wait: bool = False) -> None:
        """Let the processes end once their tasks are done, and perhaps wait for that."""
        self.ends = True
        self._executor.shutdown(wait=wait)

    def kill(self) -> None:
        """End the processes in the middle of their work."""
        workers = list((self._executor._processes or {}).values())  # type: ignore[attr-defined]
        self.end()
        for process in workers:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


class Processes:
    """Worker processes, which all end some time after the last call that used them.

    A worker of loky could end by itself. If it did so while tasks were given to others, loky would
    warn in the thread that hands out tasks; where warnings are errors, that ends the thread, and
    nothing answers any more.

    Parameters
    ----------
    start : callable
        A function that starts a pool, whose workers do not end by themselves.
    """

    def __init__(self, start: Callable[[], Executor]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._calls = 0
        self._last_use = 0.0
        self._watched = False
        # A child of multiprocessing waits for its own children before it ends the threads that
        # tell them to end. Before their queues are closed, which has the priority 10.
        Finalize(None, self._end, exitpriority=100)

    @contextmanager
    def used(self) -> Iterator[Pool]:
        """Return the pool, which does not end before the block does."""
        with self._lock:
            if self._pool is None or self._pool.ends:
                self._pool = Pool(self._start())
            pool = self._pool
            self._calls += 1
        try:
            yield pool
        finally:
            with self._lock:
                self._calls -= 1
                self._last_use = time.monotonic()
                self._watch()

    def _watch(self) -> None:
        """See to it that the pool ends. The caller holds the lock."""
        if self._watched or self._calls or self._pool is None:
            return
        left = self._last_use + IDLE_SECONDS - time.monotonic()
        timer = threading.Timer(max(0.0, left), self._end_if_idle)
        timer.daemon = self._watched = True
        timer.start()

    def _end_if_idle(self) -> None:
        with self._lock:
            self._watched = False
            if self._calls or time.monotonic() - self._last_use < IDLE_SECONDS:
                self._watch()
                return
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.end()

    def _end(self) -> None:
        pool = self._pool
        if pool is not None:
            pool.end(wait=True)
