"""Names of datasets and groups, and text for terminals."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import NamedTuple

from dosna.errors import DatasetNameError

__all__ = [
    "Children",
    "check_group",
    "check_name",
    "check_nesting",
    "children_among",
    "parents",
    "printable",
]


# Control characters (C0 except tab and newline, DEL, C1) would move the cursor or worse; those
# that change the direction of text, and lone surrogates, are shown in the same way.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


# What no part of a name may have: see `check_name`.
_UNUSUAL = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|(?:^|/)\.|//|^/|/$|^$")


def printable(text: str) -> str:
    """Return text for any stream, with escapes in place of characters that control a terminal."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def check_name(name: str) -> str:
    """Check that a dataset name is legal, and return it.

    A legal name consists of parts joined by single slashes.

    Raises
    ------
    DatasetNameError
        The name or a part is empty, starts with a dot (as '.' and '..' do), is longer than 200
        bytes, or has a control character, a backslash or a lone surrogate in it.
    TypeError
        The name is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"a dataset name is a str, and {name!r} is a {type(name).__name__}")
    if len(name) <= 50 and not _UNUSUAL.search(name):  # at most 200 bytes
        return name
    for part in name.split("/"):
        if not part:
            reason = "an empty part"
        elif part.startswith("."):
            reason = f"the part {part!r}, which starts with a dot"
        elif any(ord(c) < 32 or c == "\x7f" or c == "\\" for c in part):
            reason = f"a control character or backslash in {part!r}"
        elif any("\ud800" <= c <= "\udfff" for c in part):
            reason = f"a lone surrogate in {part!r}"
        elif len(part.encode()) > 200:
            reason = f"a part of {len(part.encode())} bytes, and at most 200 are allowed"
        else:
            continue
        raise DatasetNameError(
            f"dataset name {name!r} has {reason}: use parts joined by '/', like 'entry/data'"
        )
    return name


def parents(name: str) -> list[str]:
    """Return the names above `name`: for ``a/b/c`` these are ``a`` and ``a/b``."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


class Children(NamedTuple):
    """The members of a group: their full names, sorted.

    Attributes
    ----------
    groups : list of str
        The names of the groups.
    datasets : list of str
        The names of the datasets.
    """

    groups: list[str]
    datasets: list[str]


def children_among(names: Iterable[str], group: str) -> Children:
    """Return the members of a group, from the names of all datasets below it."""
    start = len(group) + 1 if group else 0
    datasets, groups = [], set()
    for name in names:
        part, slash, _ = name[start:].partition("/")
        if slash:
            groups.add(name[:start] + part)
        else:
            datasets.append(name)
    return Children(sorted(groups), sorted(datasets))


def check_nesting(name: str, others: Iterable[str]) -> None:
    """Check that no other dataset's name lies inside `name` or around it.

    Raises
    ------
    DatasetNameError
        Another dataset lies above or below the name.
    """
    above = set(parents(name))
    for other in others:
        if other in above:
            raise DatasetNameError(
                f"dataset name {name!r} lies inside {other!r}, which is a dataset and cannot "
                "hold others: choose another name"
            )
        if other.startswith(name + "/"):
            raise DatasetNameError(
                f"dataset name {name!r} is that of a folder, which holds {other!r}: choose "
                "another name"
            )


def check_group(name: str, datasets: Container[str]) -> None:
    """Check that the name of a group neither is that of a dataset nor lies inside one.

    Raises
    ------
    DatasetNameError
        The name, or one above it, is that of a dataset.
    """
    for above in [*parents(name), name] if name else []:
        if above in datasets:
            raise DatasetNameError(
                f"{name!r} is not a group: {above!r} is a dataset. Use its attrs"
            )
