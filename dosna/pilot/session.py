"""The session of a state, which the services of a program share."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dosna.errors import StorageError
from dosna.pilot.states import State
from dosna.pilot.store import StateStore

__all__ = ["Session", "default_url", "private_folder", "state_home"]


_PATIENCE_SECONDS = 60
"""The seconds for which a call that waits tolerates a state that cannot be used."""


def state_home() -> Path:
    """Return the folder of states without a name."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "dosna" / "pilot"


def default_url() -> str:
    """Return ``$DOSNA_PILOT_STATE``, or the URL of a new database for this process."""
    named = os.environ.get("DOSNA_PILOT_STATE", "")
    if named:
        return named
    home = state_home()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the state of pilots cannot be stored in {home}: {error.strerror}. Set "
            "DOSNA_PILOT_STATE to another place"
        ) from error
    return f"sqlite:///{home}/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.db"


def private_folder(url: str) -> Path:
    """Return the folder of files that belong to a state but must not be stored in it.

    All spellings of the URL of a database have the same: drivers, users and options do not count.
    """
    parsed = sa.make_url(url)
    kind, database = parsed.get_backend_name(), parsed.database or parsed.username or ""
    if kind == "sqlite":
        return Path(os.path.realpath(database.removeprefix("file:")) + ".private")
    host = str(parsed.host or parsed.query.get("host", "")).lower()
    port = parsed.port or (5432 if kind == "postgresql" else "")
    place = f"{kind}://{host}:{port}/{database}"
    return state_home() / hashlib.sha256(place.encode()).hexdigest()[:16]


class Session:
    """The state store, secrets, and notifications, shared by all services of one state.

    Attributes
    ----------
    url : str
        The URL of the database.
    store : StateStore
        The state.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = StateStore(url)
        self._secrets: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._count = 0

    def keep_secrets(self, id: str, secrets: Mapping[str, Any]) -> None:
        """Keep the secrets of a pilot data, in memory only."""
        self._secrets[id] = dict(secrets)

    def secrets_of(self, id: str) -> dict[str, Any]:
        """Return the secrets of a pilot data; none if another process has them."""
        return dict(self._secrets.get(id, {}))

    def notify(self) -> None:
        """Notify all waiters that a state has changed."""
        with self._news:
            self._count += 1
            self._news.notify_all()

    def set_state(self, table: str, id: str, state: State, reason: str = "", **more: Any) -> None:
        """Change the state of a row, and notify waiters."""
        self.store.update(table, id, state=str(state), reason=reason, **more)
        self.notify()

    def wait_until(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition is true, and return whether it is, checking after each change.

        It is also asked every second, because other processes change states too, and while the
        state cannot be used for a moment, as when its server is started again.
        """
        end = None if timeout is None else time.monotonic() + timeout
        failing_since = None
        while True:
            with self._news:
                count = self._count
            try:
                if reached():
                    return True
                failing_since = None
            except StorageError:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > _PATIENCE_SECONDS:
                    raise
            left = 1.0 if end is None else min(1.0, end - time.monotonic())
            if left <= 0:
                return False
            with self._news:
                if self._count == count:
                    self._news.wait(left)

    def close(self) -> None:
        """Close the database."""
        self.store.close()
