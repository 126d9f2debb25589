"""The assignment of units to agents: units wait in the state, and only few are in memory.

A sweep goes through the waiting units in the order of their submission, page by page, as long as
agents have room. Units that cannot be placed now are dropped, and found again by the next sweep.
Therefore memory does not grow with the number of units, and a unit that waits does not keep others
from running.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dosna.core.names import printable
from dosna.errors import ConfigurationError, SourceNotFoundError
from dosna.pilot.affinity import Input, Label
from dosna.pilot.crew import LONGEST, Agent, Crew
from dosna.pilot.descriptions import ComputeUnitDescription
from dosna.pilot.inputs import Blocked, Doomed, Inputs
from dosna.pilot.ledger import Ledger
from dosna.pilot.planned import MOST, Planned, freest
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import TABLES

__all__ = ["Scheduler"]

_PAGE = 256
_MANY_FILES = 10_000
_MARGIN = 1 << 16
_MOST_PAGES = 4
_SWEEP_SECONDS = 1.0
"""After which units that wait for something are looked at again, though nothing was heard."""


class Scheduler:
    """The sweep over waiting units.

    Parameters
    ----------
    session : Session
        The session of the units.
    crew : Crew
        The agents.

    Attributes
    ----------
    ledger : Ledger
        The ledger in which assignments are recorded.
    """

    def __init__(self, session: Session, crew: Crew) -> None:
        self._session, self._crew = session, crew
        self._inputs = Inputs(session)
        self._page: deque[dict[str, Any]] = deque()
        self._after = 0
        self._is_at_end = False
        self._sweep_at = 0.0
        # Kept until the state has them: an agent is sent nothing that could be forgotten.
        self._untold: list[tuple[Agent, dict[str, Any]]] = []
        self.labels: dict[str, Label] = {}
        """Of the pilots."""
        self._planned = Planned(session, self.labels, self._needed)
        self.ledger = Ledger(session, self.look_again_at)

    def look_again_at(self, number: int) -> None:
        """Return to a unit that was already placed."""
        self._after = min(self._after, number - 1)
        self._page.clear()
        self._is_at_end = False

    def look_again(self) -> None:
        """Start another sweep at the end of this one, because something has changed."""
        self._is_at_end = False

    def forget(self, unit: str) -> None:
        """Remove a unit that was canceled."""
        self._page = deque(row for row in self._page if row["id"] != unit)
        self._planned.forget(unit)

    def assign(self) -> None:
        """Assign units to agents that have room, record it, and tell the agents."""
        self._tell()  # units that have ended make room, and units that are run again wait
        self._give_planned()
        self._tell()
        pages = 0
        while room := sum(agent.room for agent in self._crew.agents.values()):
            if not self._page:
                pages += 1
                if pages > _MOST_PAGES or not self._turn():
                    break
            rows = [self._page.popleft() for _ in range(min(room, len(self._page)))]
            self._place(rows)
        self._give_planned()
        self._tell()

    def _tell(self) -> None:
        """Write down what has changed, and then tell agents of their attempts."""
        self.ledger.flush()
        told, self._untold = self._untold, []
        for agent in self._crew.agents.values():
            # One that has come back meanwhile may have lost some of them again.
            mine = [one for to, one in told if to is agent]
            agent.send_all([one for one in mine if one["attempt"] in agent.assigned])

    def _turn(self) -> bool:
        """Read the next page of waiting units; return whether there is one."""
        now = time.monotonic()
        if self._is_at_end and now < self._sweep_at:
            return False
        units = TABLES["compute_units"]
        query = sa.select(units).where(units.c.state == "New", units.c.number > self._after)
        query = query.order_by(units.c.number).limit(_PAGE)
        self._page.extend(dict(row._mapping) for row in self._session.store.ask(query))
        if self._page:
            self._after = self._page[-1]["number"]
            self._is_at_end = False
        else:
            self._after, self._is_at_end, self._sweep_at = 0, True, now + _SWEEP_SECONDS
        return bool(self._page)

    def _place(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            try:
                unit = ComputeUnitDescription.of(row["description"])
            except ConfigurationError as error:  # of another version
                self._fail(row, str(error))
                continue
            labels = unit.affinity_datacenter_label or unit.affinity_machine_label
            has_choice = bool(unit.input_data or labels)
            if has_choice and (len(self._planned) >= MOST or row["id"] in self._planned):
                continue
            inputs = self._needed(row, unit)
            if inputs is None:
                continue
            if has_choice:
                self._planned.add(row, unit, inputs)
                continue
            agent = freest(unit.number_of_processes, self._crew.agents.values())
            if agent is not None:
                self._give(agent, row, unit, "it needs nothing that is elsewhere")

    def _fail(self, row: Mapping[str, Any], reason: str) -> None:
        values = {"state": str(State.Failed), "reason": printable(reason)}
        self.ledger.change("compute_units", row["id"], **values)

    def _needed(self, row: Mapping[str, Any], unit: ComputeUnitDescription) -> list[Input] | None:
        """Return the inputs of a unit, or None if it cannot run now."""
        try:
            return self._inputs.needed(unit, row["number"])
        except Blocked:
            return None
        except (Doomed, ConfigurationError, SourceNotFoundError) as error:
            self._fail(row, str(error))
            return None

    def _give_planned(self) -> None:
        given: set[str] = set()

        def give(agent: Agent, row: dict[str, Any], *unit: Any) -> None:
            given.add(row["id"])
            self._give(agent, row, *unit)

        self._planned.give(self._crew.agents.values(), give)
        if given:
            # A page that was read in the meantime contains them as waiting units.
            self._page = deque(row for row in self._page if row["id"] not in given)

    def _give(
        self, agent: Agent, row: Mapping[str, Any], unit: ComputeUnitDescription, placement: str
    ) -> None:
        try:
            label = self.labels.get(agent.pilot, Label())
            inputs, outputs = self._inputs.requests(unit, label)
        except Doomed as error:
            self._fail(row, str(error))
            return
        message = {
            "kind": "run",
            "unit": row["description"],
            "inputs": inputs,
            "outputs": outputs,
        }
        has_many = sum(len(one["files"]) for one in (*inputs, *outputs)) > _MANY_FILES
        if has_many and len(json.dumps(message)) > LONGEST - _MARGIN:
            self._fail(row, "its data units have too many files for a message: use several")
            return
        assigned = self.ledger.assign(agent, row, placement)
        self._untold.append((agent, {**message, "attempt": assigned.attempt}))
