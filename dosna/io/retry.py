"""Repetition of requests: when, how often, and after which pauses."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from dosna.io.failure import Failure

__all__ = ["attempts", "repeat"]

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


def attempts(retries: int, until: float = math.inf) -> Iterator[bool]:
    """Yield before each attempt whether it is the last, and pause before all but the first.

    Parameters
    ----------
    retries : int
        The number of attempts after the first.
    until : float
        The time of ``time.monotonic()`` after which no attempt but the first starts.
    """
    for number in range(retries + 1):
        if number:
            longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (number - 1))
            time.sleep(random.uniform(longest / 4, longest))
            if time.monotonic() > until:
                return
        yield number == retries


def repeat(
    request: Callable[[], T], retries: int, until: float = math.inf, *, safe: bool = True
) -> T:
    """Make a request until it succeeds, fails permanently, or has failed too often.

    Parameters
    ----------
    request : callable
        A function that makes the request once, and raises `Failure` if it fails.
    retries, until
        The limits; see `attempts`.
    safe : bool
        False for a request that would change something twice if it were made twice. It is
        repeated only after failures which say that nothing has changed.

    Raises
    ------
    Failure
        The last failure.
    """
    for last in attempts(retries, until):
        try:
            return request()
        except Failure as failure:
            found = failure
        if last or not found.transient or (found.may_be_done and not safe):
            break
    # Outside of the handler, because the errors of libraries can contain what was sent.
    raise found
