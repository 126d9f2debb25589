"""Names at which nothing is stored, as found by one request."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from dosna.core.names import parents

__all__ = ["NOTHING", "Absent"]


@dataclass(frozen=True)
class Absent:
    """Names of datasets and groups at and below which nothing was stored.

    Parameters
    ----------
    names : set of str
        The names.
    began : float
        The time, as of ``time.monotonic()``, at which the look at them began.
    groups : set of str
        Names that were groups shortly before, and were not looked at.
    """

    names: Set[str] = frozenset()
    began: float = -math.inf
    groups: Set[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        if name in self.names:
            return True
        return isinstance(name, str) and any(above in self.names for above in parents(name))

    @property
    def age(self) -> float:
        """Seconds since the look began."""
        return time.monotonic() - self.began

    def among(self, names: Iterable[str]) -> Absent:
        """Return those of some names, and of the groups above them, that are absent."""
        every = {at for name in names for at in [*parents(name), name]}
        return replace(self, names={name for name in every if name in self})

    def without(self, names: Set[str]) -> Absent:
        """Return the names that are left when others have been made."""
        return replace(self, names=self.names - names)


NOTHING = Absent()
"""The value for names that were not looked up."""
