"""The supervisors of an agent, as the agent sees them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from .supervisor import is_staged, start

__all__ = ["Supervisor", "may_go_ahead", "slots_of"]

_KILL_AFTER = 15.0
_OVERDUE_AFTER = 1.0
"""Beyond the walltime of a unit, so that supervisors end commands, which they do at once."""
_AHEAD_BYTES = 32 << 10
"""Of messages that are sent ahead: less than a pipe takes whose reader is busy."""


class Supervisor:
    """A supervisor process: it runs the first of its attempts, and one more may wait.

    It begins an attempt when it reads its permit from a pipe. To take an attempt back, the agent
    reads the permit itself.
    """

    def __init__(self, folder: str) -> None:
        self.pid, self.ask, self.told, self.permits = start(folder)
        self.number = 0
        self.attempts: list[dict[str, Any]] = []
        self.begun = ""
        self.received = b""
        self.is_closed = False
        self.kill_at = 0.0
        self.canceled = ""
        self.begun_at = 0.0
        self.overdue = self.why = ""

    @property
    def slots(self) -> int:
        return max((slots_of(one) for one in self.attempts), default=0)

    @property
    def takes_one_more(self) -> bool:
        """True if an attempt of one processor may follow the one that runs."""
        if self.is_closed or self.kill_at or len(self.attempts) != 1:
            return False
        if self.begun != self.attempts[0]["attempt"]:
            return False
        return slots_of(self.attempts[0]) == 1 and not is_staged(self.attempts[0])

    def give(self, message: dict[str, Any]) -> None:
        self.attempts.append(message)
        self.number += 1
        line = memoryview(json.dumps({**message, "permit": self.number}).encode() + b"\n")
        try:
            os.write(self.permits[1], self.number.to_bytes(4, "little"))
            while line:
                line = line[os.write(self.ask, line) :]
        except OSError:
            pass  # it has ended: that is read soon
        if is_staged(message):
            self.close()

    def take_back(self) -> dict[str, Any] | None:
        """Return the attempt that waits for the one that runs, unless it begins just now."""
        if len(self.attempts) != 2 or self.begun != self.attempts[0]["attempt"]:
            return None
        try:
            os.read(self.permits[0], 4)
        except BlockingIOError:
            return None
        return self.attempts.pop()

    def close(self) -> None:
        """Let it end after what it has."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self.ask)

    def end_overdue(self, now: float) -> None:
        """End an attempt whose data units are staged for longer than its walltime allows.

        The supervisor itself ends a command in time; staging may hang in a way that it cannot end.
        """
        if self.begun and not self.kill_at:
            minutes = self.attempts[0]["unit"]["walltime"]
            if minutes and now > self.begun_at + minutes * 60 + _OVERDUE_AFTER:
                self.overdue = self.begun
                self.why = f"its walltime of {minutes:g} minutes ended while its data were staged"
                self.end(self.begun)

    def result_of_ended(self, attempt: str) -> dict[str, Any] | None:
        """Return the result of an attempt that was ended on its own account, or None."""
        result: dict[str, Any] = {"attempt": attempt, "code": None}
        if attempt == self.overdue:
            return {**result, "reason": self.why}
        if attempt == self.canceled:
            return {**result, "reason": "it was canceled", "canceled": True}
        return None

    def end(self, attempt: str) -> None:
        """End what it runs, and it."""
        self.canceled = attempt
        self.kill_at = self.kill_at or time.monotonic() + _KILL_AFTER
        os.kill(self.pid, signal.SIGTERM)


def slots_of(message: dict[str, Any]) -> int:
    """Return the processors that an attempt occupies."""
    return int(message["unit"]["number_of_processes"])


def may_go_ahead(message: dict[str, Any]) -> bool:
    """Say whether an attempt may be given to a supervisor that is busy."""
    is_simple = slots_of(message) == 1 and not is_staged(message)
    return is_simple and len(json.dumps(message)) <= _AHEAD_BYTES
