"""Versions of files that are replaced as a whole or changed in place by anybody."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence

__all__ = ["file_versions"]

_SECOND = 10**9


def file_versions(folder: int, names: Sequence[str], lasting: bool = False) -> list[str | None]:
    """Return a text for each file that differs after any write to it; None for absent ones.

    A time stamp is of a clock that moves in steps of milliseconds, or seconds: a file that is
    changed twice within one has the same stamp, and perhaps the same inode. With `lasting`, files
    whose stamp could be that of a later write are given one that no clock shows: up to a second
    earlier, at random.

    Parameters
    ----------
    folder : int
        The descriptor of the folder.
    names : sequence of str
        The names of the files.
    lasting : bool
        True for texts that are kept. They are None where the stamp cannot be changed.
    """
    if not lasting:
        try:  # all of them, as is usual; a query looks at hundreds
            return [_text(os.stat(name, dir_fd=folder)) for name in names]
        except (FileNotFoundError, NotADirectoryError):
            return [_text(_status(folder, name)) for name in names]
    try:
        now = _time_of_write(folder) if names else 0
    except OSError:  # of a folder that takes no files, every file could be a new one
        now = 1 << 63
    return [_lasting(folder, name, now) for name in names]


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _text(status: os.stat_result | None) -> str | None:
    if status is None:
        return None
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _lasting(folder: int, name: str, now: int) -> str | None:
    """Return the text of a file's version, such that no write from the time `now` on has it."""
    status = _status(folder, name)
    if status is None or max(status.st_mtime_ns, status.st_ctime_ns) < now:
        return _text(status)
    try:
        file = os.open(name, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(file)
        earlier = status.st_mtime_ns - 1 - secrets.randbelow(_SECOND)
        os.utime(file, ns=(status.st_atime_ns, earlier))
        status = os.fstat(file)
        # Some file systems keep no more than microseconds, or seconds.
        return _text(status) if status.st_mtime_ns == earlier else None
    except OSError:
        return None
    finally:
        os.close(file)


def _time_of_write(folder: int) -> int:
    """Return the time stamp of a file without a name that is written now."""
    where = f"/proc/self/fd/{folder}"
    try:
        probe = os.open(where, os.O_TMPFILE | os.O_WRONLY, 0o600)
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
