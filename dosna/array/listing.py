"""Names that are listed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["Listing"]


class Listing(Iterator[str]):
    """An iterator over names that are listed when the first is asked for, or earlier."""

    def __init__(self, listed: Callable[[], list[str]]) -> None:
        self._listed = listed
        self._rest: Iterator[str] | None = None

    def take(self, names: list[str]) -> None:
        """Use names that were listed just now, unless the iteration has begun."""
        if self._rest is None:
            self._rest = iter(names)

    def __next__(self) -> str:
        if self._rest is None:
            self._rest = iter(self._listed())
        return next(self._rest)
