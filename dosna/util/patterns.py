"""Names chosen by patterns, as in a shell."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

__all__ = ["matching"]


def matching(
    names: Sequence[str], patterns: str | Iterable[str] | None
) -> tuple[list[str], list[str]]:
    """Choose names by patterns.

    Parameters
    ----------
    names : sequence of str
        Parts joined by '/'.
    patterns : str, iterable of str or None
        With ``*``, ``?`` and ``[…]``, which match '/' too; the name of a group stands for all
        that is in it. None chooses all.

    Returns
    -------
    chosen : list of str
        In the order of `names`.
    vain : list of str
        The patterns that match nothing.
    """
    if patterns is None:
        return list(names), []
    chosen: set[str] = set()
    vain = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        plain = pattern.strip("/")
        found = {n for n in names for p in (plain, plain + "/*") if fnmatch.fnmatchcase(n, p)}
        chosen |= found
        if not found:
            vain.append(pattern)
    return [name for name in names if name in chosen], vain
