"""Replicas beside pilots: whether there is room for data units, and how they are replicated."""

from __future__ import annotations

from dosna.errors import DosnaError
from dosna.pilot.affinity import MACHINE, Label, distance
from dosna.pilot.data.mover import Mover
from dosna.pilot.data.records import fields_of, label_of, room_of
from dosna.pilot.session import Session
from dosna.pilot.states import State

__all__ = ["bring_near", "room_near"]

_NO_LIMIT = 1 << 62


def _place_near(session: Session, label: Label) -> str | None:
    """Return a writable pilot data on the machine of a label, or None."""
    if not label.machine:
        return None
    for row in session.store.rows("pilot_data", state=str(State.Running)):
        described = row["description"]
        fixed = described["service_url"].startswith(("http://", "https://", "dosna:"))
        if not fixed and distance(label_of(described), label) == MACHINE:
            return str(row["id"])
    return None


def room_near(session: Session, label: Label) -> int:
    """Return the free space of a pilot data on the machine of a label, in bytes."""
    place = _place_near(session, label)
    if place is None:
        return 0
    room = room_of(session, place)
    return _NO_LIMIT if room is None else room


def bring_near(session: Session, data_unit: str, label: Label) -> bool:
    """Replicate a data unit to the machine of a label; return whether this is in progress.

    It is not in progress if it failed before; units that read the data unit then stage it
    themselves.
    """
    place = _place_near(session, label)
    if place is None:
        return False
    id = f"{data_unit}/{place}"
    row = session.store.get("replicas", id)
    try:
        if row is None:
            fields_of(session, place)
            row = {"id": id, "data_unit": data_unit, "pilot_data": place}
            session.store.add("replicas", [row])
            Mover.of(session).start(id)
        return Mover.of(session).is_moving(id)
    except DosnaError:
        return False
