"""Time limits that hold on a busy machine too: they grow with what work takes at the moment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["patience", "slowness", "within"]

_QUIET_SECONDS = 0.002
"""The most seconds that the sum in `slowness` takes on a quiet machine."""
_MOST = 20.0


def slowness() -> float:
    """Return how many times longer work takes here and now than on a quiet machine: 1 to 20."""
    speed = min(_sum_seconds() for _ in range(3)) / _QUIET_SECONDS
    return min(max(1.0, speed) * max(1.0, _crowd()), _MOST)


def _sum_seconds() -> float:
    begin = time.perf_counter()
    sum(range(100_000))
    return time.perf_counter() - begin


def _crowd() -> float:
    """Return how many tasks there are for each processor: now, or in the last minute."""
    tasks = os.getloadavg()[0]
    try:
        with open("/proc/loadavg") as file:
            tasks = max(tasks, float(file.read().split()[3].partition("/")[0]))
    except OSError:
        pass  # Only Linux has this file.
    return tasks / (os.cpu_count() or 1)


def patience(seconds: float) -> float:
    """Return a time limit: the seconds of a quiet machine, or more on one that is slower now."""
    return seconds * slowness()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that the block ends within the seconds of a quiet machine."""
    scale, begin = slowness(), time.monotonic()
    yield
    took = time.monotonic() - begin
    limit = seconds * max(scale, slowness())
    assert took < limit, f"it took {took:.1f} s, and {limit:.1f} s are the most"
