"""Boxes that are read ahead of the work on them, and written behind it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from dosna.core.plan import ChunkTask
from dosna.engines.base import Reported
from dosna.io.parallel import only_waiting

__all__ = ["HELD", "READ_AHEAD", "WRITE_BEHIND", "Flow", "Overlapping"]

T = TypeVar("T")

READ_AHEAD = WRITE_BEHIND = 2
"""The boxes that are being read, and written, at a time.

With one, few requests would be under way whenever the last ones of a box are waited for.
"""

HELD = READ_AHEAD + 2
"""The boxes that are held at a time: also that which is worked on, and the one before."""


@dataclass(kw_only=True)
class Overlapping:
    """Work on boxes that can be read ahead and written behind.

    Parameters
    ----------
    overlaps : bool
        True if memory allows it, and requests take so long that it pays.
    """

    overlaps: bool = False


class Flow:
    """The way of boxes through work: read, worked on in the caller's thread, and written.

    Use it in a ``with`` block. Where requests take long, boxes are read ahead and written behind
    by threads that only wait for the store's own. At the end of the block nothing is under way any
    more, and an error of the last write is raised. If the block raises, no further request begins.

    Parameters
    ----------
    ahead, behind : bool
        True to read ahead, and to write behind. Otherwise that is done by the caller.
    """

    def __init__(self, *, ahead: bool = False, behind: bool = False) -> None:
        self.ahead, self.behind = ahead, behind
        self._stop = threading.Event()
        self._reading: deque[tuple[ChunkTask, Future[Any]]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait_for_writes(0)
        finally:
            self._stop.set()
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)

    def read(
        self, read: Callable[[ChunkTask], T], tasks: Iterable[ChunkTask]
    ) -> Iterator[tuple[ChunkTask, T]]:
        """Yield each task with what `read` returns for it.

        Parameters
        ----------
        read : callable
            A function that reads what a task needs.
        tasks : iterable
            The tasks. They are taken from it in the caller's thread.

        Yields
        ------
        tuple
            The task and its values.
        """
        left = iter(tasks)
        if not self.ahead:
            while (task := self._next(tasks, left, 0)) is not None:
                yield task, read(task)
            return
        self._read_on(read, tasks, left, 0)
        while self._reading:
            # Nothing here keeps the values, which the caller may drop.
            taken = [self._taken()]
            self._read_on(read, tasks, left, 1)
            yield taken.pop()

    def _read_on(
        self,
        read: Callable[[ChunkTask], Any],
        tasks: Iterable[ChunkTask],
        left: Iterator[ChunkTask],
        taken: int,
    ) -> None:
        """Begin to read as many boxes as may be under way."""
        while len(self._reading) < READ_AHEAD:
            task = self._next(tasks, left, len(self._reading) + taken)
            if task is None:
                return
            self._reading.append((task, self._submit("reading", read, task)))

    def _next(
        self, tasks: Iterable[ChunkTask], left: Iterator[ChunkTask], ahead: int
    ) -> ChunkTask | None:
        """Take the next task; `ahead` of them are not worked on yet. None at the end."""
        if isinstance(tasks, Reported):
            tasks.ahead = ahead + sum(not writing.done() for writing in self._writing)
        return next(left, None)

    def _taken(self) -> tuple[ChunkTask, Any]:
        task, future = self._reading.popleft()
        try:
            return task, future.result()
        finally:
            del future  # or an error and its traceback would keep one another

    def write(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call a function that writes a box, once all but the last one are written.

        Parameters
        ----------
        write : callable
            The function.
        *arguments
            Its arguments. Values among them must not be changed before the call after the next.
        """
        if not self.behind:
            write(*arguments)
            return
        self._wait_for_writes(WRITE_BEHIND - 1)
        self._writing.append(self._submit("writing", write, *arguments))

    def _wait_for_writes(self, left: int) -> None:
        while len(self._writing) > left:
            self._writing.popleft().result()

    def _submit(self, lane: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                READ_AHEAD + WRITE_BEHIND, thread_name_prefix="dosna-flow"
            )
        return self._threads.submit(self._run, lane, function, arguments)

    def _run(self, lane: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with only_waiting(self._stop, lane):
            return function(*arguments)
