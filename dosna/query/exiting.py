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
# After its answer a thread still takes the interpreter's lock, to drop what it held.
_REST_SECONDS = 5.0
_POLL_SECONDS = 0.01
_POLLS_AT_REST = 5

_exiting = False
_callers: set[int] = set()
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
        _callers.add(threading.get_native_id())
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
    _wait_for(_callers - {threading.get_native_id()})


def _wait_for(threads: set[int]) -> None:
    """Wait until threads that have called do nothing: none of them waits for the lock then."""
    end, at_rest = time.monotonic() + _REST_SECONDS, 0
    while threads and at_rest < _POLLS_AT_REST and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        at_rest = 0 if any(map(_runs, threads)) else at_rest + 1


def _runs(thread: int) -> bool:
    """Return whether a thread of this process runs, or waits for a processor; False elsewhere."""
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:  # it has ended, or this is not Linux
        return False


def _forget() -> None:
    """Forget the parent's streams in a forked child, where their locks are never released."""
    _live.clear()
    _callers.clear()


atexit.register(_end)
os.register_at_fork(after_in_child=_forget)
