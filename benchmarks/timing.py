"""Time several ways to do the same work, such that their ratios are meaningful."""

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
    """One piece of work, and the contestants that do it.

    Parameters
    ----------
    label : str
        A text that distinguishes the case within its row, such as the number of chunks.
    units, unit : int, str
        The number of units by which times are divided, such as of chunks, and their name.
    work : mapping
        The functions by name, ``dosna`` among them; each does all of the work.
    aims : mapping
        The largest wanted ratios of dosna's time to another's, by the other's name.
    limit : float, optional
        The most microseconds per unit that are wanted for dosna.
    flat : bool
        Whether the time per unit should equal that of the row's first case.
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
    least: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the shortest time of each function, in seconds, of at least `least` rounds.

    A function of the same name in `after` is called after the work, and is not timed. Before,
    each function works once untimed, unless one round is enough.

    In each round every function works once, and another one begins. A temporary disturbance of
    the machine, and the contents that one function leaves in the caches, affect all alike.
    """
    names = list(work)
    after = after or {}

    def once(name: str) -> float:
        begin = clock()
        work[name]()
        taken = clock() - begin
        if name in after:
            after[name]()
        return taken

    if least > 1:
        for name in names:
            once(name)
    best = dict.fromkeys(names, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or time.perf_counter() < end:
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            best[name] = min(best[name], once(name))
        rounds += 1
    return best


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Keep all threads of this process, and those that they start, on `count` processors."""
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
