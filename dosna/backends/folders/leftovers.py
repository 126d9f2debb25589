"""Leftovers of dead processes in the folder of a connection."""

from __future__ import annotations

import os
from contextlib import suppress

from dosna.backends.folders.exchange import REPLACING, Replacements
from dosna.io.files import remove_folder

__all__ = ["CREATING", "DELETING", "Leftovers"]

CREATING, DELETING = ".creating-", ".deleting-"

_MANY = 256
"""Entries of a folder above which listing it costs more than creating a dataset in it."""


class Leftovers:
    """The hidden folders of processes that died while they created or deleted datasets.

    All methods but `exist` are called under the lock of the connection's names.

    Parameters
    ----------
    path : str
        The path of the connection's folder.
    replacements : Replacements
        The hidden folders of living processes.
    """

    def __init__(self, path: str, replacements: Replacements) -> None:
        self._path, self._replacements = path, replacements
        self._many = False
        self._swept: tuple[int, ...] | None = None
        """The state in which the folder has no leftovers."""

    def exist(self) -> bool:
        """Return True if there are some, of living processes too."""
        return bool(self._listed())

    def sweep(self) -> None:
        """Remove what dead processes have left.

        Living ones cannot be affected: they hold the lock of the names, as the caller does, or
        that of their replacement.
        """
        for name in self._listed():
            if not name.startswith(REPLACING) or self._replacements.is_dead(name):
                # Files that are open or of another user must not stop the current operation.
                with suppress(OSError):
                    remove_folder(os.path.join(self._path, name))

    def sweep_if_changed(self) -> None:
        """Do so if the folder has changed since `note`, because a long list takes a while."""
        if self._swept is None or self._swept != self._state():
            self.sweep()

    def note(self) -> None:
        """Note that the folder has no leftovers: it was swept under the lock that is held."""
        self._swept = self._state() if self._many else None

    def _state(self) -> tuple[int, ...]:
        found = os.stat(self._path)
        # Of two changes within one step of the clock, a new folder shows in the number of links.
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_nlink

    def _listed(self) -> list[str]:
        names = os.listdir(self._path)
        self._many = len(names) > _MANY
        return [name for name in names if name.startswith((CREATING, DELETING, REPLACING))]
