"""Steps back after an error."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dosna.errors import DosnaError

__all__ = ["undo"]


def undo(step: Callable[[], object], failed: str) -> None:
    """Carry out a step back. If it fails after an error, that error gets a note.

    Parameters
    ----------
    step : callable
        A function without arguments.
    failed : str
        The text of the note before the error of `step`.

    Raises
    ------
    DosnaError
        The step failed, and no other error is being handled.
    """
    why = sys.exception()
    try:
        step()
    except DosnaError as error:
        if why is None:
            raise
        # The first error is the one to raise.
        why.add_note(f"{failed}: {error}")
