"""Datasets that are made at the same time, and the groups above them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from dosna.backends.absent import Absent
from dosna.backends.stores.listing import levels
from dosna.core.names import parents

__all__ = ["Making"]

AT_ONCE = 16
"""The most datasets that are all begun right after the look at their places."""


class Making:
    """Datasets that are made at the same time, and what is known of the groups above them.

    Parameters
    ----------
    names : iterable of str
        The names of the datasets.
    absent : Absent
        The names that were absent when the places of the datasets were looked at.
    groups : mapping
        Attributes, in JSON form, of groups that are made too where they are absent.
    valid : float
        The seconds for which that look is valid.
    """

    def __init__(
        self,
        names: Iterable[str],
        absent: Absent,
        groups: Mapping[str, Mapping[str, Any]],
        valid: float,
    ) -> None:
        names = list(names)
        self._absent, self._valid = absent, valid
        self.few = len(names) <= AT_ONCE
        within = levels([*names, *(f"{group}/x" for group in groups if group in absent)])
        self.levels = [[group for group in level if group not in absent] for level in within]
        """The other groups, level by level."""
        self.puts: dict[str, Future[None]] = {
            group: Future() for level in within for group in level if group in absent
        }
        """The groups to make, and when that has ended."""
        self.looked_at: set[str] = set()
        """The groups that need not be looked at again."""
        self.made: set[str] = set()
        """The groups that were made, with their attributes."""

    @property
    def at_once(self) -> bool:
        """True if a look at a place is not older than one before a single dataset may be."""
        return self.few and self._absent.age <= self._valid

    def is_vacant(self, name: str) -> bool:
        """Return True if it need not be looked again whether something is in a place."""
        return self.is_below_groups(name) and self.at_once and name in self._absent

    def is_below_groups(self, name: str) -> bool:
        """Return True if what is above a name are groups, or is being made."""
        above = ["", *parents(name)]
        return all(group in self.looked_at or group in self.puts for group in above)

    def wait(self, name: str) -> None:
        """Wait for the groups above a dataset, or raise what has prevented one of them."""
        for group in parents(name):
            if group in self.puts:
                self.puts[group].result()
