"""Which unit goes to which agent, and when: units wait in the state, and few are in memory.

A sweep goes over the waiting units in the order of their submission, page by page, as long as
agents have room. What cannot be placed now is forgotten, and met again by the next sweep: so
memory does not grow with the units, and none that waits for something keeps others from running.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dosna.pilot.affinity import Input, Label
from dosna.pilot.crew import Agent, Crew
from dosna.pilot.descriptions import ComputeUnitDescription
from dosna.pilot.inputs import Blocked, Doomed, Inputs
from dosna.pilot.ledger import Ledger
from dosna.pilot.planned import MOST, Planned, freest
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import TABLES

__all__ = ["Scheduler"]

_PAGE = 256
_MOST_PAGES = 4
_SWEEP_SECONDS = 1.0
"""After which units that wait for something are looked at again, though nothing was heard."""


class Scheduler:
    """The sweep over waiting units.

    Parameters
    ----------
    session : Session
        Whose units they are.
    crew : Crew
        The agents.
    ledger : Ledger
        Where assignments are noted.
    """

    def __init__(self, session: Session, crew: Crew) -> None:
        self._session, self._crew = session, crew
        self._inputs = Inputs(session)
        self._page: deque[dict[str, Any]] = deque()
        self._after = 0
        self._is_at_end = False
        self._sweep_at = 0.0
        self.labels: dict[str, Label] = {}
        """Of the pilots."""
        self._planned = Planned(session, self.labels, self._needed)
        self.ledger = Ledger(session, self.look_again_at)

    def look_again_at(self, number: int) -> None:
        """Let the sweep come to a unit that was placed before."""
        self._after = min(self._after, number - 1)
        self._page.clear()
        self._is_at_end = False

    def look_again(self) -> None:
        """Begin another sweep at the end of this one, for something has changed."""
        self._is_at_end = False

    def forget(self, unit: str) -> None:
        """Leave out a unit that was canceled."""
        self._page = deque(row for row in self._page if row["id"] != unit)
        self._planned.forget(unit)

    def assign(self) -> None:
        """Give units to agents that have room, write it down, and tell the agents."""
        self.ledger.flush()  # what ended makes room, and what is run again waits
        self._tell(self._give_planned())
        told: list[tuple[Agent, dict[str, Any]]] = []
        pages = 0
        while room := sum(agent.room for agent in self._crew.agents.values()):
            if not self._page:
                pages += 1
                if pages > _MOST_PAGES or not self._turn():
                    break
            rows = [self._page.popleft() for _ in range(min(room, len(self._page)))]
            told += self._place(rows)
        self._tell([*told, *self._give_planned()])

    def _tell(self, told: list[tuple[Agent, dict[str, Any]]]) -> None:
        if self.ledger.flush():
            for agent in self._crew.agents.values():
                agent.send_all([{"kind": "run", **one} for to, one in told if to is agent])

    def _turn(self) -> bool:
        """Read the next page of waiting units; say whether there is one."""
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

    def _place(self, rows: list[dict[str, Any]]) -> list[tuple[Agent, dict[str, Any]]]:
        told = []
        for row in rows:
            unit = ComputeUnitDescription.of(row["description"])
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
                told += self._give(agent, row, unit, "it needs nothing that is elsewhere")
        return told

    def _needed(self, row: Mapping[str, Any], unit: ComputeUnitDescription) -> list[Input] | None:
        """Return the inputs of a unit, or None if it cannot run now."""
        try:
            return self._inputs.needed(unit, row["number"])
        except Blocked:
            return None
        except Doomed as error:
            values = {"state": str(State.Failed), "reason": str(error)}
            self.ledger.change("compute_units", row["id"], **values)
            return None

    def _give_planned(self) -> list[tuple[Agent, dict[str, Any]]]:
        told: list[tuple[Agent, dict[str, Any]]] = []
        given: set[str] = set()

        def give(agent: Agent, row: dict[str, Any], *unit: Any) -> None:
            given.add(row["id"])
            told.extend(self._give(agent, row, *unit))

        self._planned.give(self._crew.agents.values(), give)
        if given:
            # A page that was read meanwhile has them as units that wait.
            self._page = deque(row for row in self._page if row["id"] not in given)
        return told

    def _give(
        self, agent: Agent, row: Mapping[str, Any], unit: ComputeUnitDescription, placement: str
    ) -> list[tuple[Agent, dict[str, Any]]]:
        try:
            label = self.labels.get(agent.pilot, Label())
            inputs, outputs = self._inputs.requests(unit, label)
        except Doomed as error:
            values = {"state": str(State.Failed), "reason": str(error)}
            self.ledger.change("compute_units", row["id"], **values)
            return []
        assigned = self.ledger.assign(agent, row, placement)
        message = {
            "attempt": assigned.attempt,
            "unit": row["description"],
            "inputs": inputs,
            "outputs": outputs,
        }
        return [(agent, message)]
