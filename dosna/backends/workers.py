"""Threads for a store to which requests take long: several are under way at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import Any, TypeVar

__all__ = ["Workers"]

T = TypeVar("T")

_END: Any = object()


class Workers:
    """Threads that do work which makes requests, under whatever engine.

    Parameters
    ----------
    name : str
        What the threads' names begin with.
    most : int
        Of tasks under way for one caller, whose own thread works too.
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
        head = list(islice(source, max(1, min(self._most, self._most_bytes // max(1, nbytes)))))
        source = chain(head, source)
        turn = threading.Lock()
        errors: list[BaseException] = []

        def share() -> None:
            try:
                while not errors:
                    with turn:
                        item: Any = next(source, _END)
                    if item is _END:
                        break
                    work(item)
            except BaseException as error:
                errors.append(error)

        # A thread takes one item after the other, the caller's too: to wake another for each
        # would cost as much as a small request does. One that never began has nothing to do.
        helpers = [self._threads().submit(share) for _ in head[1:]]

        def finish() -> None:
            wait([helper for helper in helpers if not helper.cancel()])

        try:
            share()
            finish()
        except BaseException as error:
            errors.append(error)
            finish()  # Nobody writes into the caller's arrays after this returns.
        if errors:
            raise errors[0]

    def _threads(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork: a pool made before it would never answer.
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self._most - 1, thread_name_prefix=self._name)
            self._process = os.getpid()
        return self._pool

    def close(self) -> None:
        """End the threads, when what is under way is done."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None
