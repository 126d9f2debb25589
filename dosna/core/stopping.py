"""Stopping a request whose answer is no longer wanted, between two chunks.

A server works for each request within `stoppable`. Reading then looks at the flag before each
chunk, also in the threads of an engine, and raises `Stopped` once the request was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dosna.errors import Stopped

__all__ = ["Stop", "Stopping", "current", "stoppable"]


class Stop:
    """A flag by which one thread stops the work of others.

    Attributes
    ----------
    reason : str
        Why the work was stopped; empty as long as it was not.
    """

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason = ""

    def set(self, reason: str) -> None:
        """Stop the work, unless it was stopped before."""
        self.reason = self.reason or reason

    def check(self) -> None:
        """Raise Stopped if the work was stopped."""
        if self.reason:
            raise Stopped(f"the request was stopped: {self.reason}")


current: ContextVar[Stop | None] = ContextVar("dosna_stop", default=None)
"""The flag of the request that this thread works for."""


@contextmanager
def stoppable(stop: Stop | None = None) -> Iterator[Stop]:
    """Let the work of a block be stopped by another thread; yield the flag for it.

    Parameters
    ----------
    stop : Stop, optional
        The flag; by default a new one.
    """
    stop = stop or Stop()
    token = current.set(stop)
    try:
        yield stop
    finally:
        current.reset(token)


@dataclass(frozen=True)
class Stopping:
    """Work on tasks that looks at a flag before each of them.

    Parameters
    ----------
    work : callable
        The function of the tasks.
    stop : Stop
        The flag.
    """

    work: Callable[[Any], Any]
    stop: Stop

    def __call__(self, tasks: Iterable[Any]) -> Any:
        return self.work(_Checked(tasks, self.stop))


@dataclass(frozen=True)
class _Checked:
    """Tasks that can be iterated over several times, with a look at the flag before each."""

    tasks: Iterable[Any]
    stop: Stop

    def __iter__(self) -> Iterator[Any]:
        for task in self.tasks:
            self.stop.check()
            yield task
