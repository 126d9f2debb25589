"""Timing several ways to do the same work, so that their ratios mean something."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

OURS = "dosna"


@dataclass(frozen=True)
class Case:
    """One piece of work, and everybody who does it.

    Parameters
    ----------
    label : str
        What distinguishes it within its row, such as the number of chunks.
    units, unit : int, str
        What times are divided by, such as the number of chunks.
    work : mapping
        From a name, ``dosna`` among them, to a function that does all of it.
    aims : mapping
        From another's name to the ratio to its time that is aimed at.
    limit : float, optional
        Microseconds per unit that are aimed at.
    flat : bool
        Whether the time per unit should be that of the row's first case.
    """

    label: str
    units: int
    unit: str
    work: Mapping[str, Callable[[], object]]
    aims: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    flat: bool = False


def minima(
    work: Mapping[str, Callable[[], object]],
    seconds: float,
    after: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, float]:
    """Shortest time of each, in seconds, of at least three rounds.

    What `after` has of a name is done after its work, and not timed.

    Each round lets everybody work once, and begins with another one: what disturbs the machine
    for a while, or what one leaves in the caches for the next, falls on all alike.
    """
    names = list(work)
    after = after or {}

    def once(name: str) -> float:
        begin = time.perf_counter()
        work[name]()
        taken = time.perf_counter() - begin
        if name in after:
            after[name]()
        return taken

    for name in names:
        once(name)
    best = dict.fromkeys(names, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            best[name] = min(best[name], once(name))
        rounds += 1
    return best


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Keep all threads of this process, and those they start, on `count` processors."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    everywhere = os.sched_getaffinity(0)
    _pin(set(sorted(everywhere)[:count]))
    try:
        yield
    finally:
        _pin(everywhere)


def _pin(processors: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), processors)
