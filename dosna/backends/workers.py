"""Threads for a store to which requests take long: several are under way at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["Workers"]

T = TypeVar("T")


class Workers:
    """Threads that do work which makes requests, under whatever engine.

    Parameters
    ----------
    name : str
        What the threads' names begin with.
    most : int
        Of tasks under way for one caller.
    most_bytes : int
        Of what these hold together.
    """

    def __init__(self, name: str, most: int, most_bytes: int) -> None:
        self._name, self._most, self._most_bytes = name, most, most_bytes
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int) -> None:
        """Do work on each item; as `dosna.backends.store.Store.for_each`."""
        source = iter(items)
        head = list(islice(source, 2))
        if len(head) < 2:
            for item in head:
                work(item)
            return
        pool = self._threads()
        ends: SimpleQueue[BaseException | None] = SimpleQueue()

        def attempt(item: T) -> None:
            try:
                work(item)
                ends.put(None)
            except BaseException as error:
                ends.put(error)

        window = max(1, min(self._most, self._most_bytes // max(1, nbytes)))
        under_way = 0
        failed: BaseException | None = None
        try:
            for item in chain(head, source):
                if under_way == window:
                    failed = ends.get()
                    under_way -= 1
                    if failed is not None:
                        break
                pool.submit(attempt, item)
                under_way += 1
        finally:
            # Nobody writes into the caller's arrays after this returns.
            for _ in range(under_way):
                failed = ends.get() or failed
        if failed is not None:
            raise failed

    def _threads(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork: a pool made before it would never answer.
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
            self._process = os.getpid()
        return self._pool

    def close(self) -> None:
        """End the threads, when what is under way is done."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None
