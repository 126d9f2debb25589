"""Threads for work that makes requests, so that several are under way with every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, islice
from queue import SimpleQueue
from typing import Any

from dosna.errors import NotConnectedError
from dosna.io.fork import renew_in_children

__all__ = [
    "Batch",
    "Workers",
    "call_in_callers_thread",
    "current_lane",
    "in_flight",
    "only_waiting",
    "to_its_end",
]

_END = object()
_caller = threading.local()


@contextmanager
def only_waiting(stop: threading.Event, lane: str = "") -> Iterator[None]:
    """Make this thread wait for its batches, and leave the requests to the threads of the store.

    However many threads wait, no more requests are then under way than a store has threads.

    Parameters
    ----------
    stop : threading.Event
        When it is set, batches begin no further item, and raise CancelledError.
    lane : str
        A name for threads of their own: those that write do not wait for those that read, because
        their data go the other way through the network.
    """
    _caller.stop, _caller.lane = stop, lane
    try:
        yield
    finally:
        del _caller.stop, _caller.lane


def _stop() -> threading.Event | None:
    return getattr(_caller, "stop", None)


def current_lane() -> str:
    """Return the name that `only_waiting` has given this thread's lane; empty by default."""
    return getattr(_caller, "lane", "")


def call_in_callers_thread(function: Callable[[], object]) -> None:
    """Call a function where an item is taken: now, or soon in the thread that waits for its batch.

    A batch takes its items in any of its threads, where no other can take one meanwhile.
    """
    batch: Batch | None = getattr(_caller, "taking", None)
    if batch is None:
        function()
    else:
        batch.calls.put(function)


class Batch:
    """Items that several threads take one by one, and requests that need no thread.

    Work begins in the caller's thread. Before a request whose answer it waits for, it calls
    `widen`, so that another thread continues with the next item. For an asynchronous request, it
    takes a slot by `begin`, and `end` releases the slot. What such requests need until they have
    ended, it puts into `kept`.
    """

    def __init__(
        self,
        workers: Workers,
        work: Callable[[Any], object],
        items: Iterable[Any],
        most: int,
        helpers: int = 0,
    ) -> None:
        self._workers, self._work, self._items = workers, work, iter(items)
        self._lock = threading.Lock()
        self._most, self._at_once = most, helpers
        self.kept: dict[int, object] = {}
        # Faster than a semaphore, which is written in Python.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._slots.put(None)
        self.calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        """Functions to call in the caller's thread; None wakes it."""
        self._thread = 0
        self._closed = False
        self._stop, self._lane = _stop(), current_lane()
        self._helpers: list[Future[None]] = []
        self._failures: list[BaseException] = []

    def do(self) -> None:
        """Do all of the work. The first error is raised once nothing is under way any more."""
        if self._stop is not None or threading.current_thread() is threading.main_thread():
            self._hand_over()
        else:
            self._thread = threading.get_ident()
            self._do()
        self._call()
        if self._failures:
            # They are not kept, because a traceback keeps many objects alive that should end now.
            failures, self._failures = self._failures, []
            try:
                raise failures[0]
            finally:
                failures.clear()

    def _hand_over(self) -> None:
        """Let another thread do the work: Ctrl-C interrupts only this one, at any place."""
        # Such an interrupt cannot leave them in a state that blocks the other thread.
        begun, ended = threading.Lock(), threading.Event()

        def run() -> None:
            if begun.acquire(blocking=False):
                try:
                    self._do()
                finally:
                    ended.set()
                    self.calls.put(None)

        try:
            self._workers.submit(run, self._lane)
        except BaseException as error:
            if begun.acquire(blocking=False):
                raise
            self._failures.append(error)  # no further item is begun
        while not ended.is_set():
            try:
                function = self.calls.get()
                if function is not None and not self._failures:
                    function()
            except BaseException as error:
                self._failures.append(error)

    def _call(self) -> None:
        """Call what is to be called in the caller's thread, which this is."""
        current = self._workers.current
        before, current.batch = self._workers.batch, None
        try:
            while not self._failures and not self.calls.empty():
                function = self.calls.get()
                if function is not None:
                    function()
        except BaseException as error:
            self._failures.append(error)
        finally:
            current.batch = before

    def _do(self) -> None:
        try:
            for _ in range(self._at_once):
                self.widen()
        except Exception as error:
            self._failures.append(error)
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
                if self._stop is not None and self._stop.is_set():
                    raise CancelledError
                with self._lock:
                    _caller.taking = self
                    try:
                        item = next(self._items, _END)
                    finally:
                        _caller.taking = None
                if self._thread == threading.get_ident():
                    self._call()
                if item is _END or self._failures:
                    break
                self._work(item)
        except BaseException as error:
            self._failures.append(error)
        finally:
            current.batch = before

    def widen(self) -> None:
        """Start another thread that takes items, if there may be one more."""
        with self._lock:
            if not self._closed and len(self._helpers) < self._most - 1:
                self._helpers.append(self._workers.submit(self._run, self._lane))

    def begin(self) -> None:
        """Wait for a slot for an asynchronous request, and take it."""
        self._slots.get()

    def end(self, error: BaseException | None) -> None:
        """Release a slot, with the error of its request or None."""
        if error is not None:
            self._failures.append(error)
        self._slots.put(None)


class Workers:
    """Threads for batches.

    Parameters
    ----------
    name : str
        The beginning of the threads' names.
    most : int
        The most requests under way for one caller.
    most_bytes : int
        The most bytes that these requests hold together.
    blocking : bool
        True if work always waits for its requests, so that all threads start at once.
    """

    def __init__(self, name: str, most: int, most_bytes: int, blocking: bool = False) -> None:
        self._name, self._most, self._most_bytes = name, most, most_bytes
        self._blocking = blocking
        self._closed = False
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Start without threads, also in a forked child, which has none of its parent's."""
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()
        self.current = threading.local()

    @property
    def batch(self) -> Batch | None:
        """The batch that this thread is working on, or None."""
        return getattr(self.current, "batch", None)

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any], nbytes: int) -> None:
        """Call `work` for each item, with several requests under way.

        Parameters
        ----------
        work : callable
            A function that takes an item and makes requests for it.
        items : iterable
            The items.
        nbytes : int
            The bytes that the work on one item holds.
        """
        source = iter(items)
        most = max(1, min(self._most, self._most_bytes // max(1, nbytes)))
        head = list(islice(source, most))
        if len(head) < 2 and (not head or _stop() is None):
            for item in chain(head, source):
                work(item)
            return
        # Each thread takes one item after the other. Waking a thread for each item would cost as
        # much as a small request.
        helpers = len(head) - 1 if self._blocking else 0
        Batch(self, work, chain(head, source), most, helpers).do()

    def submit(self, run: Callable[[], None], lane: str = "") -> Future[None]:
        """Run a function in one of the threads; each lane has as many."""
        with self._lock:
            if self._closed:
                raise NotConnectedError(
                    "the connection was closed while it was in use: connect it again"
                )
            pool = self._pools.get(lane)
            if pool is None:
                name = f"{self._name}-{lane}" if lane else self._name
                pool = self._pools[lane] = ThreadPoolExecutor(self._most, thread_name_prefix=name)
            try:
                return pool.submit(run)
            except BaseException:
                # Ctrl-C may have come when a thread had begun that the pool does not know yet,
                # and which would keep the process from ending: only an ended pool wakes it.
                pool.shutdown(wait=False)
                del self._pools[lane]
                raise

    def close(self) -> None:
        """End the threads once the work under way is done."""
        with self._lock:
            self._closed = True
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.shutdown()


def in_flight(work: Callable[[Any], object], items: Iterable[Any], most: int) -> None:
    """Call `work` for each item, in at most `most` threads. The first error ends it."""
    if most == 1:
        for item in items:
            work(item)
        return
    workers = Workers("dosna-in-flight", most, most, blocking=True)
    try:
        workers.for_each(work, items, 1)
    finally:
        workers.close()


def to_its_end(work: Callable[[], object]) -> None:
    """Do work that Ctrl-C does not interrupt: what it interrupted is raised when it has ended."""
    workers = Workers("dosna-to-its-end", 1, 1)
    try:
        Batch(workers, lambda _: work(), [None], 1).do()
    finally:
        workers.close()
