"""Failures of requests to any server, and what may follow from them."""

from __future__ import annotations

from typing import ClassVar

from dosna.errors import DosnaError, StorageError

__all__ = ["CUT", "TIMED_OUT", "UNREACHABLE", "Failure"]

UNREACHABLE = "the server cannot be reached"
TIMED_OUT = "no answer in time"
CUT = "the connection broke"

_NEVER_DONE = {429, 503}


class Failure(Exception):
    """The reason why one request failed. It contains nothing of what was sent.

    Parameters
    ----------
    kind : str
        What went wrong: `UNREACHABLE`, `TIMED_OUT`, `CUT`, or another text.
    status : int
        The HTTP status of the answer; 0 if there was none.
    detail : str
        What the server says about it: a code, or the reason of the status.
    error : type
        The class of the error to raise for it.
    """

    transient_statuses: ClassVar[frozenset[int]] = frozenset({408, 429, 500, 502, 503, 504})

    def __init__(
        self, kind: str, status: int = 0, detail: str = "", error: type[DosnaError] = StorageError
    ) -> None:
        super().__init__(kind, status, detail)
        self.kind = kind
        self.status = status
        self.detail = detail
        self.error = error

    def __str__(self) -> str:
        found = f"HTTP {self.status} {self.detail}".strip() if self.status else self.detail
        return f"{self.kind} ({found})" if found else self.kind

    @property
    def transient(self) -> bool:
        """True if the same request may succeed later."""
        if self.status:
            return self.status in self.transient_statuses
        return self.kind in (UNREACHABLE, TIMED_OUT, CUT)

    @property
    def may_be_done(self) -> bool:
        """True if the requested change may have happened, or may still happen."""
        return self.transient and self.status not in _NEVER_DONE and self.kind != UNREACHABLE
