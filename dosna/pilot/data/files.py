"""Files of data units: names that cannot leave a folder, sizes, and checksums."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c

from dosna.core.patterns import matching
from dosna.errors import ConfigurationError, SourceNotFoundError, StorageError
from dosna.pilot.data.checksums import checksum_text

__all__ = ["BLOCK", "File", "Tell", "blocks", "check", "checksum_of", "chosen", "find_outputs"]

BLOCK = 8 << 20
"""The bytes of a file that are held at a time, for each transfer."""

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that no database takes: lone surrogates are bytes of names that are not UTF-8."""

Tell = Callable[[int], object]
"""A function that gets the number of bytes of a file transferred since its last call."""


@dataclass(frozen=True)
class File:
    """A file of a data unit.

    Parameters
    ----------
    name : str
        Its path below the folder of the data unit.
    size : int
        The size in bytes; -1 if it is known only when the file is written, as for an array.
    checksum : str
        ``crc32c:`` and eight digits; empty if it is not known.
    url : str
        The URL of the dataset from which it is written, if it is not in a store.
    others : tuple of pairs of int and str
        Sizes and checksums that it may have instead, because several units wrote it at the same
        time, and the last of them is not known.
    """

    name: str
    size: int = -1
    checksum: str = ""
    url: str = ""
    others: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if self.name.startswith("/") or {"", ".", ".."} & {*parts} or _NO_TEXT.search(self.name):
            raise ConfigurationError(
                f"{self.name!r} cannot be the name of a file of a data unit: use a relative path "
                "of Unicode, without '..'"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a request."""
        return {key: value for key, value in vars(self).items() if value not in ("", ())}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> File:
        """Return the file with the fields of a request."""
        known = ("name", "size", "checksum", "url")
        others = tuple((int(one[0]), str(one[1])) for one in fields.get("others") or ())
        return cls(**{key: fields[key] for key in known if key in fields}, others=others)


def blocks(path: str, tell: Tell | None = None) -> Iterator[memoryview]:
    """Yield the blocks of a local file, in the same memory."""
    memory = memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(memory):
            yield memory[:count]
            if tell is not None:
                tell(count)


def checksum_of(path: str) -> str:
    """Return the checksum of a local file."""
    value = 0
    for block in blocks(path):
        value = crc32c.crc32c(block, value)
    return checksum_text(value)


def check(path: str, file: File, what: str, checksum: str | None = None) -> None:
    """Check the size and the checksum of a local file that was transferred.

    The `checksum` of what came is given if it is known.

    Raises
    ------
    StorageError
        The file differs from what was stored.
    """
    size = os.path.getsize(path)
    if file.others:
        checksum = checksum or checksum_of(path)
        if (size, checksum) in file.others:
            return
    if file.size >= 0 and size != file.size:
        raise StorageError(
            f"{what} has {size} bytes instead of {file.size}: it was changed or truncated in its "
            "store. Create the data unit again, or remove this replica."
        )
    if file.checksum and (found := checksum or checksum_of(path)) != file.checksum:
        raise StorageError(
            f"{what} has the checksum {found} instead of {file.checksum}: it was changed in its "
            "store or damaged on the way. Create the data unit again, or remove this replica."
        )


def chosen(files: Sequence[File], patterns: Iterable[str] | None, what: str) -> list[File]:
    """Return the files whose names match patterns; all of them for None.

    Raises
    ------
    SourceNotFoundError
        A pattern matches no file.
    """
    names, unmatched = matching([file.name for file in files], patterns)
    # For a data unit without files, '*' matches everything that there is.
    if unmatched := [pattern for pattern in unmatched if pattern != "*"]:
        raise SourceNotFoundError(
            f"{what} has no file that matches {unmatched[0]!r}: it has "
            f"{', '.join(sorted(file.name for file in files)[:10]) or 'none'}"
        )
    wanted = {*names}
    return [file for file in files if file.name in wanted]


def find_outputs(folder: str, patterns: Iterable[str]) -> dict[str, str]:
    """Return the local paths of the files in a folder that match patterns, by name.

    Pipes, devices and links to nothing are no files.

    Raises
    ------
    SourceNotFoundError
        A pattern matches no file.
    """
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        below = Path(place).relative_to(folder)
        names += [
            str(below / one)
            for one in files
            if not one.startswith(".") and os.path.isfile(os.path.join(place, one))
        ]
    found, unmatched = matching(sorted(names), patterns)
    if unmatched:
        raise SourceNotFoundError(
            f"no output matches {unmatched[0]!r} in {folder}: the command made "
            f"{', '.join(sorted(names)[:10]) or 'no files'}"
        )
    return {name: os.path.join(folder, name) for name in found}
