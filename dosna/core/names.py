"""Names, as people and terminals see them."""

from __future__ import annotations

from collections.abc import Container, Iterable

from dosna.errors import DatasetNameError

__all__ = ["check_group", "check_name", "check_nesting", "parents", "printable"]


def printable(text: str) -> str:
    """Return text that every stream takes: halves of characters are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_name(name: str) -> str:
    """Refuse a dataset name that is not legal: parts joined by single slashes.

    Raises
    ------
    DatasetNameError
        An empty name or part, '.', '..', a leading dot, a control character.
    TypeError
        Not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"a dataset name is a str, and {name!r} is a {type(name).__name__}")
    for part in name.split("/"):
        if not part:
            reason = "an empty part"
        elif part.startswith("."):
            reason = f"the part {part!r}, which starts with a dot"
        elif any(ord(c) < 32 or c == "\x7f" or c == "\\" for c in part):
            reason = f"a control character or backslash in {part!r}"
        elif any("\ud800" <= c <= "\udfff" for c in part):
            reason = f"a half of a character in {part!r}"
        elif len(part.encode()) > 200:
            reason = f"a part of {len(part.encode())} bytes, and 200 is the most"
        else:
            continue
        raise DatasetNameError(
            f"dataset name {name!r} has {reason}: use parts joined by '/', like 'entry/data'"
        )
    return name


def parents(name: str) -> list[str]:
    """Names above `name`: ``a/b/c`` has ``a`` and ``a/b``."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def check_nesting(name: str, others: Iterable[str]) -> None:
    """Refuse a name inside or around another dataset's.

    Raises
    ------
    DatasetNameError
    """
    above = set(parents(name))
    for other in others:
        if other in above:
            raise DatasetNameError(
                f"dataset name {name!r} lies inside {other!r}, which is a dataset and holds no "
                "others: choose another name"
            )
        if other.startswith(name + "/"):
            raise DatasetNameError(
                f"dataset name {name!r} is that of a folder, which holds {other!r}: choose "
                "another name"
            )


def check_group(name: str, datasets: Container[str]) -> None:
    """Refuse the name of a group that is, or lies inside, one of the datasets.

    Raises
    ------
    DatasetNameError
    """
    for above in [*parents(name), name] if name else []:
        if above in datasets:
            raise DatasetNameError(
                f"{name!r} is no group, for {above!r} is a dataset: datasets have attrs"
            )
