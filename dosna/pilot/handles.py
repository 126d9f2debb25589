"""Handles of rows of the state, which can be recreated from their URLs."""

from __future__ import annotations

from typing import Any

from dosna.errors import SourceNotFoundError
from dosna.pilot.session import Session
from dosna.pilot.states import State

__all__ = ["Handle", "row_of"]

_KEPT = ("state", "reason", "description", "created", "changed")


def row_of(session: Session, table: str, id: str) -> dict[str, Any]:
    """Return a row of the state.

    Raises
    ------
    SourceNotFoundError
        There is no such row.
    """
    row = session.store.get(table, id)
    if row is None:
        raise SourceNotFoundError(f"{session.store.shown} has no {id}")
    return row


class Handle:
    """A handle of a row of the state, which can be recreated from its URL."""

    _table: str
    _kind: str
    _more: tuple[str, ...] = ()
    """Further columns of its row that the details have."""

    def __init__(self, session: Session, id: str) -> None:
        self._session = session
        self.id = id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_url()!r})"

    def get_url(self) -> str:
        """Return the URL, which identifies the row in its state."""
        return f"{self._kind}:{self.id}"

    def get_state(self) -> State:
        """Return its state."""
        return State(row_of(self._session, self._table, self.id)["state"])

    def get_details(self) -> dict[str, Any]:
        """Return its state, the reason, its description, and what is known beside them."""
        row = row_of(self._session, self._table, self.id)
        return {
            "id": self.id,
            **{name: row[name] for name in _KEPT + self._more},
            **row["details"],
        }
