"""A stopwatch for scripts."""

from __future__ import annotations

import time


class Timer:
    """A context manager that measures the time of a block of code, and prints it.

    Parameters
    ----------
    name : str
        The text to print before the seconds.

    Attributes
    ----------
    time : float
        The seconds that the block took.
    """

    def __init__(self, name: str = "Timer") -> None:
        self.name = name
        self.time = 0.0

    def __enter__(self) -> Timer:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.time = time.perf_counter() - self._begin
        self.report()

    def report(self) -> None:
        """Print the name and the seconds."""
        print(f"{self.name}: {self.time:.4f} s", flush=True)
