"""The sessions by URL, which services with the same URL share."""

from __future__ import annotations

import threading

from dosna.pilot.session import Session, default_url
from dosna.registry import needing

__all__ = ["close_session", "session_of"]

_lock = threading.Lock()
_sessions: dict[str, Session] = {}


def session_of(coordination_url: str | None) -> Session:
    """Return the session of a URL; without a URL, or with that of Redis, that of this process."""
    key = coordination_url or ""
    if key.startswith(("redis://", "tcp://")):
        key = ""
    with _lock:
        if key not in _sessions:
            _sessions[key] = _open(key or default_url())
        return _sessions[key]


def close_session(session: Session) -> None:
    """Forget a session, so that the next service reopens its state."""
    with _lock:
        for key in [key for key, one in _sessions.items() if one is session]:
            del _sessions[key]
    session.close()


def _open(url: str) -> Session:
    with needing("pilots need", "pilot"):
        return Session(url)
