"""Replacement of a folder by another, so that one of the two is always there."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Any

from dosna.io.exchange import exchange
from dosna.io.files import lock_file, remove_folder

__all__ = ["NEW", "REPLACING", "Replacements", "exchange"]

REPLACING = ".replacing-"

NEW = "new"
"""The dataset in a hidden folder that is to replace another."""

_OLD, _NAME, _ALIVE = "old", "name", ".lock"


class Replacements:
    """Hidden folders, with datasets that are to replace others or to get their names later.

    Such a folder has a lock that its maker holds until the end, so that a sweep can tell which
    folders dead processes left. All methods except `end` are called under the lock of the
    connection's names.

    Parameters
    ----------
    path : str
        The path of the connection's folder.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: dict[str, Any] = {}

    def begin(self) -> str:
        """Create a hidden folder, and return its name."""
        hidden = REPLACING + secrets.token_hex(8)
        folder = os.path.join(self._path, hidden)
        os.mkdir(folder)
        locks = lock_file(folder, _ALIVE)
        self._held[hidden] = (locks, locks.acquire(0))
        return hidden

    def swap(self, temporary: str, path: str, name: str) -> None:
        """Exchange a dataset and the one at `path`, which is called `name`."""
        new = os.path.join(self._path, temporary)
        if exchange(new, path):
            return
        # In two steps, which `is_dead` completes for a process that dies between them.
        folder = os.path.dirname(new)
        old = os.path.join(folder, _OLD)
        with open(os.path.join(folder, _NAME), "w", encoding="utf-8") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path, old)
        try:
            os.rename(new, path)
        except BaseException:
            os.rename(old, path)
            raise
        os.rename(old, new)

    def end(self, temporary: str) -> None:
        """Remove a hidden folder with its content. Raise OSError if a part is left to a sweep."""
        hidden = temporary.partition("/")[0]
        self._held.pop(hidden, None)  # the lock file must be closed before it is removed
        remove_folder(os.path.join(self._path, hidden))

    def is_dead(self, hidden: str) -> bool:
        """Return True if a folder's maker has died, after finishing what it had begun."""
        folder = os.path.join(self._path, hidden)
        if os.path.islink(folder) or not os.path.isdir(folder):
            return True
        # An OSError means that its maker is removing it now, or that it is another user's.
        with suppress(OSError), lock_file(folder, _ALIVE).attempt() as is_dead:
            if is_dead:
                self._finish(folder)
            return is_dead
        return False

    def _finish(self, folder: str) -> None:
        """Move a complete dataset into its place if the old one was already moved away."""
        new, old = os.path.join(folder, NEW), os.path.join(folder, _OLD)
        if os.path.lexists(old) and os.path.lexists(new):
            with open(os.path.join(folder, _NAME), encoding="utf-8") as file:
                path = os.path.join(self._path, file.read())
            if not os.path.lexists(path):
                os.rename(new, path)
