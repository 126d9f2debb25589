"""The states of pilots, data units and compute units."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["FINAL", "NOT_FINAL", "State"]


class State(StrEnum):
    """The state of a pilot, a data unit or a compute unit; equal to its name as text.

    A data unit is ready when it is Running. ``Pending`` means waiting: a pilot in the queue of its
    machine, or a data unit whose files are being copied.

    Examples
    --------
    >>> from dosna.pilot import State
    >>> State.Done == "Done", State.Running.is_final
    (True, False)
    """

    Unknown = "Unknown"
    New = "New"
    Pending = "Pending"
    Running = "Running"
    Done = "Done"
    Canceled = "Canceled"
    Failed = "Failed"

    @property
    def is_final(self) -> bool:
        """True if no other state follows this one."""
        return self in (State.Done, State.Canceled, State.Failed)


FINAL = [str(state) for state in State if state.is_final]
"""The states that no other follows, as the rows of the state have them."""
NOT_FINAL = [str(state) for state in State if not state.is_final]
