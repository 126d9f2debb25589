"""Work that makes requests, of which several are under way at once whatever the engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from queue import SimpleQueue
from typing import Any

from dosna.errors import NotConnectedError

__all__ = ["Batch", "Workers"]

_END = object()


class Batch:
    """Items that several threads take one by one, and requests that go on without a thread.

    Work begins in the caller's thread. Before a request for whose answer it waits it calls
    `widen`, so that another thread goes on with the next item; for one that is asynchronous it
    takes a slot by `begin`, and `end` gives it back.
    """

    def __init__(
        self, workers: Workers, work: Callable[[Any], object], items: Iterable[Any], most: int
    ) -> None:
        self._workers, self._work, self._items = workers, work, iter(items)
        self._lock = threading.Lock()
        self._most = most
        # Quicker than a semaphore, which is written in Python.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._slots.put(None)
        self._closed = False
        self._helpers: list[Future[None]] = []
        self._failures: list[BaseException] = []

    def do(self) -> None:
        """Do all of it; the first error is raised when nothing is under way any more."""
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C interrupts only this thread, at any place: here nothing can get lost by it.
            task = self._workers.submit(self._do)
            while not task.done():
                try:
                    wait([task])
                except BaseException as error:
                    self._failures.append(error)  # nothing more is begun
        else:
            self._do()
        if self._failures:
            # Nobody keeps them, for a traceback knows much that should end when it is done.
            failures, self._failures = self._failures, []
            try:
                raise failures[0]
            finally:
                failures.clear()

    def _do(self) -> None:
        self._run()
        with self._lock:
            self._closed = True
        # A thread that never began has nothing to do.
        wait([helper for helper in self._helpers if not helper.cancel()])
        for _ in range(self._most):
            self._slots.get()

    def _run(self) -> None:
        current, before = self._workers.current, self._workers.batch
        current.batch = self
        try:
            while not self._failures:
                with self._lock:
                    item = next(self._items, _END)
                if item is _END:
                    break
                self._work(item)
        except BaseException as error:
            self._failures.append(error)
        finally:
            current.batch = before

    def widen(self) -> None:
        """Let one more thread take items."""
        with self._lock:
            if not self._closed and len(self._helpers) < self._most - 1:
                self._helpers.append(self._workers.submit(self._run))

    def begin(self) -> None:
        """Wait for a slot of those for requests under way."""
        self._slots.get()

    def end(self, error: BaseException | None) -> None:
        """Give a slot back, with the error of its request."""
        if error is not None:
            self._failures.append(error)
        self._slots.put(None)


class Workers:
    """Threads for batches.

    Parameters
    ----------
    name : str
        What the threads' names begin with.
    most : int
        Of requests under way for one caller.
    most_bytes : int
        Of what these hold together.
    blocking : bool
        Whether work always waits for its requests, so that all threads begin at once.
    """

    def __init__(self, name: str, most: int, most_bytes: int, blocking: bool = False) -> None:
        self._name, self._most, self._most_bytes = name, most, most_bytes
        self._blocking = blocking
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.current = threading.local()

    @property
    def batch(self) -> Batch | None:
        """The batch that this thread is working on."""
        return getattr(self.current, "batch", None)

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any], nbytes: int) -> None:
        """Do work on each item; as `dosna.backends.stores.store.Store.for_each`."""
        source = iter(items)
        most = max(1, min(self._most, self._most_bytes // max(1, nbytes)))
        head = list(islice(source, most))
        if len(head) < 2:
            for item in chain(head, source):
                work(item)
            return
        batch = Batch(self, work, chain(head, source), most)
        if self._blocking:
            # A thread takes one item after the other: to wake one for each would cost as much
            # as a small request does.
            for _ in head[1:]:
                batch.widen()
        batch.do()

    def submit(self, run: Callable[[], None]) -> Future[None]:
        """Let a thread run something."""
        with self._lock:
            if self._closed:
                raise NotConnectedError("the connection was closed while it was in use")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
            return self._pool.submit(run)

    def close(self) -> None:
        """End the threads, when what is under way is done."""
        with self._lock:
            self._closed = True
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None
