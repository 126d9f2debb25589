"""Streams that end before the interpreter does.

A scanner of pyarrow reads ahead in a thread of C++, which goes on when the program has what it
wanted. If it still calls the generator of batches while Python shuts down, the process aborts.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["UntilExit"]

T = TypeVar("T")

# A step that is under way reads a range of entries.
_STEP_SECONDS = 30.0
# A thread that is about to call gets its answer, also on a busy machine; one that waits for its
# reader never calls.
_CALL_SECONDS = 1.0
_POLL_SECONDS = 0.01

_exiting = False
_live: weakref.WeakSet[UntilExit[object]] = weakref.WeakSet()


class UntilExit(Generic[T]):
    """An iterator that ends when the interpreter is about to exit.

    Parameters
    ----------
    items : iterator
        The items.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._stepping = threading.Lock()
        self.ended = False
        _live.add(self)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._stepping:
            if not self.ended and not _exiting:
                try:
                    return next(self._items)
                except BaseException:
                    self.ended = True
                    raise
            self.ended = True
            raise StopIteration

    def wait(self) -> None:
        """Wait for a step that is under way."""
        if self._stepping.acquire(timeout=_STEP_SECONDS):
            self._stepping.release()


def _end() -> None:
    global _exiting
    _exiting = True
    streams = [stream for stream in list(_live) if not stream.ended]
    for stream in streams:
        stream.wait()
    end = time.monotonic() + _CALL_SECONDS
    while time.monotonic() < end and not all(stream.ended for stream in streams):
        time.sleep(_POLL_SECONDS)


def _forget() -> None:
    """Forget the parent's streams in a forked child, where their locks are never released."""
    _live.clear()


atexit.register(_end)
os.register_at_fork(after_in_child=_forget)
