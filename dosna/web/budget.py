"""The memory that the requests of a server share.

The size of an answer is known where it is made, often in a thread. A thread that waited for memory
would be missing to small answers, so it gives up: the guard waits, and then repeats the request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["SMALL", "Budget", "Crowded", "Share", "current", "sharing"]

SMALL = 2 << 20
"""Bytes up to which work neither waits nor counts."""


class Crowded(BaseException):
    """The memory that a request asks for is not free. The guard waits for it.

    It is no Exception because nothing on the way to the guard may answer it.

    Parameters
    ----------
    nbytes : int
        The memory that the whole request needs.
    """

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes)
        self.nbytes = nbytes


class Budget:
    """Bytes that several threads take and give back. Who asks first gets them first.

    Parameters
    ----------
    total : int
        All bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = self._free = total
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def take(self, nbytes: int) -> bool:
        """Take bytes if they are free and nobody waits; return whether they were taken."""
        with self._lock:
            taken = not self._waiting and nbytes <= self._free
            if taken:
                self._free -= nbytes
            return taken

    async def wait(self, nbytes: int) -> None:
        """Take bytes as soon as they are free, after all that wait already."""
        place: Future[None] = Future()
        with self._lock:
            self._waiting.append((nbytes, place))
        self.give(0)
        try:
            await asyncio.wrap_future(place)
        except asyncio.CancelledError:
            self.give(0 if place.cancel() else nbytes)
            raise

    def give(self, nbytes: int) -> None:
        """Give bytes back, and let those who wait have what is free."""
        with self._lock:
            self._free += nbytes
            while self._waiting:
                asked, place = self._waiting[0]
                if asked > self._free and not place.cancelled():
                    break
                self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    self._free -= asked
                    place.set_result(None)


class Share:
    """The part of a budget that a request has, until its answer is sent and its work has ended.

    Parameters
    ----------
    budget : Budget
        The budget.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._nbytes, self._users = 0, 1

    @contextmanager
    def at_least(self, nbytes: int) -> Iterator[None]:
        """Keep the share at so many bytes or more, and all of it during a block.

        Raises
        ------
        Crowded
            They are not free.
        """
        nbytes = min(nbytes, self._budget.total)
        with self._lock:
            more = max(0, nbytes - self._nbytes)
            if more and not self._budget.take(more):
                raise Crowded(nbytes)
            self._nbytes += more
            self._users += 1
        try:
            yield
        finally:
            self.leave()

    async def wait(self, nbytes: int) -> None:
        """Give the share back, and wait for one of so many bytes. Nobody uses it meanwhile."""
        self._budget.give(self._nbytes)
        self._nbytes = 0
        await self._budget.wait(nbytes)
        self._nbytes = nbytes

    def leave(self) -> None:
        """Give the share back, unless somebody else uses it."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            nbytes, self._nbytes = self._nbytes, 0
        self._budget.give(nbytes)


current: ContextVar[Share | None] = ContextVar("dosna_share", default=None)
"""The share of the request that this thread works for."""


@contextmanager
def sharing(nbytes: int) -> Iterator[None]:
    """Let a block that works for a request have so much memory, and its answer keep it.

    The block is left, and what called it is called again, if the memory is not free. So it belongs
    before the beginning of the answer, and before what costs much.

    Parameters
    ----------
    nbytes : int
        The memory in bytes. What is more than the whole budget gets all of it.

    Examples
    --------
    >>> with sharing(3 << 20):
    ...     content = bytes(3 << 20)
    """
    share = current.get()
    if share is None or nbytes <= SMALL:
        yield
    else:
        with share.at_least(nbytes):
            yield
