"""Forked processes: what must not be used in them, and what has to be made anew."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from dosna.errors import ConnectionError

__all__ = ["ForkGuard", "renew_in_children"]


class ForkGuard:
    """A check that a library is not used in a process forked from one that used it.

    Its threads are gone there, and the sockets of the parent would be disturbed.

    Parameters
    ----------
    what : str
        The name of what does not survive a fork, in the error.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._process: int | None = None

    @property
    def inherited(self) -> bool:
        """True in a process that was forked from the one of the first `check`."""
        return self._process not in (None, os.getpid())

    def check(self) -> None:
        """Raise ConnectionError in a forked process. The first call takes the present one."""
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise ConnectionError(
                f"this process was forked from one that uses {self._what}, which does not survive "
                "a fork: start processes by 'spawn' or 'forkserver', or connect after the fork"
            )


class Renewable(Protocol):
    """An object with locks or threads, which a fork makes useless."""

    def renew(self) -> None:
        """Make them anew, in a forked child."""


_living: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(thing: Renewable) -> None:
    """Call `renew` of an object in each forked child, as long as the object lives."""
    _living.add(thing)


def _renew() -> None:
    for thing in list(_living):
        thing.renew()


os.register_at_fork(after_in_child=_renew)
