"""Failures of requests to any server, and what may follow from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import mktime_tz, parsedate_tz
from typing import ClassVar

from dosna.errors import DosnaError, StorageError

__all__ = ["CUT", "TIMED_OUT", "UNREACHABLE", "Failure", "pause_of"]

UNREACHABLE = "the server cannot be reached"
TIMED_OUT = "no answer in time"
CUT = "the connection broke"

_NEVER_DONE = {429, 503}


class Failure(Exception):
    """The reason why one request failed. It contains nothing of what was sent.

    Parameters
    ----------
    kind : str
        The kind of failure: `UNREACHABLE`, `TIMED_OUT`, `CUT`, or another text.
    status : int
        The HTTP status of the answer; 0 if there was none.
    detail : str
        The server's own description: a code, or the reason of the status.
    error : type
        The class of the error to raise for it.

    Attributes
    ----------
    pause : float or None
        The seconds for which a busy server asks for a pause, or None.
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
        self.pause: float | None = None

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
    def busy(self) -> bool:
        """True if the server did nothing, because it takes no more requests at present."""
        return self.status in _NEVER_DONE

    @property
    def throttled(self) -> bool:
        """True if the server says that there are too many requests, and not that it fails."""
        return self.status == 429 or (self.busy and self.pause is not None)

    @property
    def may_be_done(self) -> bool:
        """True if the requested change may have happened, or may still happen."""
        return self.transient and self.status not in _NEVER_DONE and self.kind != UNREACHABLE


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``, or None if an answer has none that can be read.

    Parameters
    ----------
    headers : mapping
        The headers of an answer. Their names may be written in small letters.
    """
    text = (headers.get("retry-after") or "").strip()
    with suppress(ValueError, OverflowError):
        if text.isdecimal():
            return float(int(text))
        if (date := parsedate_tz(text)) is not None:
            # By the clock of the server, if it tells the time.
            now = parsedate_tz(headers.get("date") or "")
            return max(0.0, mktime_tz(date) - (time.time() if now is None else mktime_tz(now)))
    return None
