"""Versions of files that are replaced as a whole or changed in place by anybody."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence

__all__ = ["file_versions"]

_ATTEMPTS = 25
_SECONDS = 0.002


def file_versions(folder: int, names: Sequence[str], lasting: bool = False) -> list[str | None]:
    """Return a text for each file that differs after any write to it; None for absent ones.

    A time stamp is of a clock that moves in steps of milliseconds, or seconds: a file that is
    changed once more within one has the same stamp. With `lasting`, the clock of the file system
    is awaited, until what is written from then on has a later stamp than the files that are there.

    Parameters
    ----------
    folder : int
        The descriptor of the folder.
    names : sequence of str
        The names of the files.
    lasting : bool
        True for texts that are kept. They are None if the clock does not move.
    """
    found = [_status(folder, name) for name in names]
    if lasting:
        latest = max((max(s.st_mtime_ns, s.st_ctime_ns) for s in found if s), default=None)
        if latest is None or not _passes(folder, latest):
            return [None] * len(found)
        # Those before may have been replaced in the meantime, at the same time stamp.
        again = [_status(folder, name) for name in names]
        texts = map(_text, again)
        return [t if t == _text(s) else None for t, s in zip(texts, found, strict=True)]
    return [_text(status) for status in found]


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _text(status: os.stat_result | None) -> str | None:
    if status is None:
        return None
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _passes(folder: int, latest: int) -> bool:
    """Return whether a new file gets a time stamp after `latest`, now or in a moment."""
    for _ in range(_ATTEMPTS):
        try:
            if _time_of_write(folder) > latest:
                return True
        except OSError:
            return False
        time.sleep(_SECONDS)
    return False


def _time_of_write(folder: int) -> int:
    """Return the time stamp of a file without a name that is written now."""
    where = f"/proc/self/fd/{folder}"
    try:
        probe = os.open(where, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:  # the file system has no such files
        with tempfile.TemporaryFile(dir=where, buffering=0) as file:
            return _stamped(file.fileno())
    try:
        return _stamped(probe)
    finally:
        os.close(probe)


def _stamped(file: int) -> int:
    # An empty file need not have the time at which the server would stamp a write.
    os.write(file, b"x")
    return os.fstat(file).st_mtime_ns
