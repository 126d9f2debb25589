"""What is known of a range of entries, and what follows for a condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal as OneOf

from dosna.query.expressions.binding import Bound

__all__ = ["Zone", "bounds"]


@dataclass(frozen=True)
class Zone:
    """What is known of a column in a range of entries.

    Parameters
    ----------
    count : int
        The number of values: of entries, or of elements in all lists; with NaN and the missing.
    min, max : bool, int, float or None
        The least and the greatest that are neither NaN nor missing; None if there is none.
    nans : int
        The number of NaN.
    nulls : int
        The number that are missing.
    min_length, max_length : int or None
        The least and the greatest length of a list; None for what has no lists.
    empty_lists : int
        The number of empty lists.
    """

    count: int
    min: bool | int | float | None
    max: bool | int | float | None
    nans: int = 0
    nulls: int = 0
    min_length: int | None = None
    max_length: int | None = None
    empty_lists: int = 0


def bounds(bound: Bound, zones: Mapping[str, Zone]) -> OneOf["all", "some", "none"]:
    """Return whether a condition is true for all entries of a range, for none, or for some.

    Parameters
    ----------
    bound : Bound
        The condition.
    zones : mapping of str to Zone
        What is known of columns in the range. Columns that are not in it may have any value.

    Returns
    -------
    {'all', 'some', 'none'}
        What is proved. ``'some'`` may still be all or none.
    """
    return "some"
