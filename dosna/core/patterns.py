"""Choosing names by patterns, as in a shell."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["matching", "suggested"]

_MOST_COMPARED = 5000
_MOST_LETTERS = 200

_WILD = re.compile(r"[*?[]")


def matching(
    names: Sequence[str], patterns: str | Iterable[str] | None
) -> tuple[list[str], list[str]]:
    """Choose names by patterns.

    Parameters
    ----------
    names : sequence of str
        The names to choose from, each with its parts joined by '/'.
    patterns : str, iterable of str or None
        Names and patterns; None chooses all names. A text that equals a name stands for it,
        whatever characters it contains, and the name of a group stands for everything in it. Any
        other text is a pattern with ``*``, ``?`` and ``[…]``, which match '/' too.

    Returns
    -------
    chosen : list of str
        The chosen names, in the order of `names`.
    unmatched : list of str
        The patterns that match nothing.
    """
    if patterns is None:
        return list(names), []
    below: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        below.setdefault(name, []).append(number)
        end = name.rfind("/")
        while end > 0:
            below.setdefault(name[:end], []).append(number)
            end = name.rfind("/", 0, end)
    chosen: set[int] = set()
    unmatched = []
    wild: dict[str, str] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        plain = pattern.strip("/")
        if plain in below:
            chosen.update(below[plain])
        elif _WILD.search(plain):
            wild[pattern] = _expression(plain)
        else:
            unmatched.append(pattern)
    if wild:
        found, without = _matching(names, wild)
        chosen |= found
        unmatched += without
    return [name for number, name in enumerate(names) if number in chosen], unmatched


def _expression(pattern: str) -> str:
    return f"(?:{fnmatch.translate(pattern)}|{fnmatch.translate(pattern + '/*')})"


def _matching(names: Sequence[str], wild: Mapping[str, str]) -> tuple[set[int], list[str]]:
    """Return the numbers of the names that expressions match, and the patterns without a match."""
    each = list(wild)
    every = re.compile("|".join(f"({expression})" for expression in wild.values()))
    chosen: set[int] = set()
    used: set[int | None] = set()
    for number, name in enumerate(names):
        found = every.match(name)
        if found:
            chosen.add(number)
            used.add(found.lastindex)
    # An earlier pattern may have matched all names that a later one matches too.
    taken = [names[number] for number in sorted(chosen)]
    unmatched = []
    for place, pattern in enumerate(each, 1):
        if place not in used:
            match = re.compile(wild[pattern]).match
            if not any(map(match, taken)):
                unmatched.append(pattern)
    return chosen, unmatched


def suggested(pattern: str, names: Iterable[str]) -> str:
    """Return the part of a message that suggests names similar to a pattern without matches.

    Parameters
    ----------
    pattern : str
    names : iterable of str
        The names, with their parts joined by '/'. Groups and single parts are suggested too.

    Returns
    -------
    str
        A question that ends with a space, or '' if no name is similar.
    """
    known: dict[str, str] = {}
    for name in itertools.islice(names, _MOST_COMPARED):
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            for one in (parts[end - 1], "/".join(parts[:end])):
                known.setdefault(one.casefold(), one)
    wanted = re.sub(r"[*?[\]]", "", pattern).strip("/").casefold()[:_MOST_LETTERS]
    close = [known[one] for one in difflib.get_close_matches(wanted, known, 3, 0.7)]
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""
