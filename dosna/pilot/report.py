"""Reports about the pilots, data and units of a state, for users and programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from dosna.errors import ConfigurationError, SourceNotFoundError
from dosna.pilot.data.records import id_of
from dosna.pilot.session import Session, state_home
from dosna.pilot.states import NOT_FINAL, State
from dosna.pilot.store import TABLES
from dosna.pilot.waiting import why_waiting

__all__ = ["cancel", "newest_state", "status"]

_PARTS = {
    "pilots": ("id", "service_url", "state", "reason"),
    "pilot_data": ("id", "service_url", "state", "reason"),
    "data_units": ("id", "name", "state", "reason"),
}


def newest_state() -> str:
    """Return the URL of the newest state of a program that named none.

    Raises
    ------
    ConfigurationError
        There is no such state.
    """
    found = sorted(state_home().glob("*.db"))
    if not found:
        raise ConfigurationError(
            "there is no known state of pilots: pass one as --state, or set DOSNA_PILOT_STATE"
        )
    return f"sqlite:///{found[-1]}"


def cancel(session: Session, ids: Iterable[str] | None) -> int:
    """Mark pilots and compute units to be canceled by the process that manages them.

    Parameters
    ----------
    session : Session
        The state.
    ids : iterable of str or None
        Ids or URLs; None for all.

    Returns
    -------
    int
        The number of those that were not final.

    Raises
    ------
    SourceNotFoundError
        The state has no such pilot or unit.
    """
    store = session.store
    tables = ("compute_units", "pilots")
    found = []
    if ids is None:
        for table in tables:
            found += [(table, row["id"]) for row in store.rows(table, state=NOT_FINAL)]
    for id in map(id_of, ids or ()):
        rows = [(table, store.get(table, id)) for table in tables]
        known = [(table, row) for table, row in rows if row is not None]
        if not known:
            raise SourceNotFoundError(f"{store.shown} has neither a pilot nor a compute unit {id}")
        found += [(table, id) for table, row in known if not State(row["state"]).is_final]
    store.write(changes=[(table, id, {"wanted": str(State.Canceled)}) for table, id in found])
    return len(found)


def status(session: Session, most: int = 10) -> dict[str, Any]:
    """Return rows of pilots, places and data units, the number of units by state, and some units.

    Parameters
    ----------
    session : Session
        The state.
    most : int
        The number of failed, running and waiting units that are listed.
    """
    store = session.store
    found: dict[str, Any] = {"state": store.shown}
    for table, names in _PARTS.items():
        found[table] = [
            {name: row[name] if name in row else row["description"].get(name) for name in names}
            for row in store.rows(table)
        ]
    units = TABLES["compute_units"]
    counts = sa.select(units.c.state, sa.func.count()).group_by(units.c.state)
    found["compute_units"] = {row[0]: row[1] for row in store.ask(counts)}
    for key, state in (("failed", "Failed"), ("running", "Running"), ("waiting", "New")):
        query = sa.select(units).where(units.c.state == state)
        query = query.order_by(units.c.changed.desc()).limit(most)
        found[key] = [
            {
                "id": row.id,
                "executable": row.description["executable"],
                "pilot": row.pilot,
                "reason": why_waiting(session, row.id) if key == "waiting" else row.reason,
            }
            for row in store.ask(query)
        ]
    return found
