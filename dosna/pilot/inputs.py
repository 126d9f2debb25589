"""The data units of compute units: whether they are ready, where, and how they are staged."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from dosna.errors import DosnaError
from dosna.pilot.affinity import Input, Label
from dosna.pilot.data.records import id_of, input_of
from dosna.pilot.descriptions import ComputeUnitDescription
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import TABLES

__all__ = ["Blocked", "Doomed", "Inputs"]


class Blocked(Exception):
    """A unit waits for something, and for what."""


class Doomed(Exception):
    """A unit will never run, and why."""


class Inputs:
    """The data units that units read, as the state knows them.

    Parameters
    ----------
    session : Session
        The session of the data units.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._store = session, session.store

    def needed(self, unit: ComputeUnitDescription, number: int) -> list[Input]:
        """Return the inputs of a unit, and where they are.

        Raises
        ------
        Blocked
            An input does not exist yet.
        Doomed
            An input will never exist.
        """
        for other in unit.depends_on:
            self._require_done(id_of(other))
        found = []
        for url, _ in unit.inputs():
            data_unit = id_of(url)
            self._require_written(data_unit, number)
            self._require_ready(data_unit)
            found.append(input_of(self._session, data_unit))
        for url, _ in unit.outputs():
            self._require_ready(id_of(url))
        return found

    def requests(
        self, unit: ComputeUnitDescription, label: Label
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the requests that stage the data of a unit to and from a pilot with a label.

        Raises
        ------
        Doomed
            A request is not possible.
        """
        inputs, outputs = unit.inputs(), unit.outputs()
        try:
            return (
                [self._request(url, files, near=label) for url, files in inputs],
                [self._request(url, files, output=True) for url, files in outputs],
            )
        except DosnaError as error:
            raise Doomed(f"its data cannot be staged: {error}") from None

    def _request(self, url: str, files: list[str], **how: Any) -> dict[str, Any]:
        from dosna.pilot import data

        return dict(data.request_for(self._session, id_of(url), files, **how))

    def _require_done(self, other: str) -> None:
        row = self._store.get("compute_units", other)
        if row is None:
            raise Doomed(f"it depends on {other}, which is unknown")
        if row["state"] in (State.Failed, State.Canceled):
            raise Doomed(f"it depends on {other}, which is {row['state']}: {row['reason']}")
        if row["state"] != State.Done:
            raise Blocked(f"{other}, on which it depends, is {row['state']}")

    def _require_written(self, data_unit: str, number: int) -> None:
        """Wait for units that were submitted earlier and write this data unit."""
        outputs, units = TABLES["outputs"], TABLES["compute_units"]
        query = (
            sa.select(units.c.id, units.c.state, units.c.reason)
            .join(outputs, outputs.c.compute_unit == units.c.id)
            .where(outputs.c.data_unit == data_unit, outputs.c.number < number)
            .where(units.c.state != "Done")
        )
        rows = self._store.ask(query.limit(100))
        for writer, state, reason in rows:
            if state in (State.Failed, State.Canceled):
                raise Doomed(
                    f"its input {data_unit} lacks what {writer} writes, which is {state}: {reason}"
                )
        if rows:
            raise Blocked(f"{rows[0][0]} writes its input {data_unit}, and is {rows[0][1]}")

    def _require_ready(self, data_unit: str) -> None:
        row = self._store.get("data_units", data_unit)
        if row is None:
            raise Doomed(f"there is no data unit {data_unit}")
        if row["state"] in (State.Failed, State.Canceled):
            raise Doomed(f"its data unit {data_unit} is {row['state']}: {row['reason']}")
        if row["state"] not in (State.Running, State.Done):
            no_place = not self._store.count("replicas", data_unit=data_unit)
            cause = ", and in no pilot data" if no_place and row["state"] == State.New else ""
            raise Blocked(f"its data unit {data_unit} is {row['state']}{cause}")
