"""Units with several possible sites, which are planned together and assigned when there is room.

A site with free processors gets the units whose data are there, even if others were submitted
earlier: these wait for their own site as long as the plan says that this takes less time than a
transfer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dosna.pilot.affinity import USUAL, Input, Label, Needs, Placement, Site
from dosna.pilot.crew import Agent
from dosna.pilot.data.nearby import bring_near, room_near
from dosna.pilot.descriptions import ComputeUnitDescription
from dosna.pilot.placement import plan
from dosna.pilot.session import Session

__all__ = ["MOST", "Planned", "freest"]

MOST = 128
"""The most units that are planned together."""
_PLAN_SECONDS = 0.5
"""The least time between two plans of the same units."""


@dataclass
class _Unit:
    row: dict[str, Any]
    unit: ComputeUnitDescription
    needs: Needs
    placement: Placement | None = None


class Planned:
    """The units of the sweep with inputs or labels.

    Parameters
    ----------
    session : Session
        The session of the units.
    labels : mapping of str to Label
        The labels of pilots.
    inputs : callable
        A function that returns the current inputs of a unit; None if it cannot run now.
    """

    def __init__(
        self,
        session: Session,
        labels: Mapping[str, Label],
        inputs: Callable[[dict[str, Any], ComputeUnitDescription], list[Input] | None],
    ) -> None:
        self._session, self._labels, self._inputs = session, labels, inputs
        self._units: dict[str, _Unit] = {}
        self._sites: set[str] = set()
        self._planned_at = 0.0
        self._is_stale = False

    def __len__(self) -> int:
        return len(self._units)

    def __contains__(self, unit: str) -> bool:
        return unit in self._units

    def add(
        self, row: dict[str, Any], unit: ComputeUnitDescription, inputs: Sequence[Input]
    ) -> None:
        """Add a unit to be planned."""
        label = Label(unit.affinity_datacenter_label, unit.affinity_machine_label)
        needs = Needs(row["id"], tuple(inputs), label, unit.number_of_processes)
        if not self._units:
            self._planned_at = 0.0
        self._units[row["id"]] = _Unit(row, unit, needs)
        self._is_stale = True

    def forget(self, unit: str) -> None:
        """Remove a unit."""
        self._units.pop(unit, None)

    def give(
        self,
        agents: Iterable[Agent],
        to: Callable[[Agent, dict[str, Any], ComputeUnitDescription, str], object],
    ) -> None:
        """Assign units to agents of their sites that have room."""
        if not self._units:
            return
        pilots: dict[str, list[Agent]] = {}
        for agent in agents:
            if agent.is_connected and not agent.is_draining:
                pilots.setdefault(agent.pilot, []).append(agent)
        self._is_stale |= self._sites != pilots.keys() or self._is_idle(pilots)
        if self._is_stale and time.monotonic() - self._planned_at >= _PLAN_SECONDS:
            self._plan(pilots)
        for id, one in list(self._units.items()):
            if one.placement is None or one.placement.site not in pilots:
                continue
            agent_ = freest(one.needs.slots, pilots[one.placement.site])
            if agent_ is None:
                continue
            if self._is_brought(one.placement):
                self._is_stale = True
                continue
            del self._units[id]
            to(agent_, one.row, one.unit, one.placement.reason)

    def _is_idle(self, pilots: Mapping[str, Sequence[Agent]]) -> bool:
        """Return whether a site has free processors, and no unit is planned there."""
        busy = {one.placement.site for one in self._units.values() if one.placement is not None}
        return any(
            pilot not in busy and any(agent.occupied < agent.slots for agent in agents)
            for pilot, agents in pilots.items()
        )

    def _plan(self, pilots: Mapping[str, Sequence[Agent]]) -> None:
        for id, one in list(self._units.items()):
            inputs = self._inputs(one.row, one.unit)
            if inputs is None:
                del self._units[id]
            else:
                one.needs = replace(one.needs, inputs=tuple(inputs))
        units = list(self._units.values())
        everybody = [agent for agents in pilots.values() for agent in agents]
        if units and everybody:
            queued = {
                pilot: sum(agent.occupied for agent in agents) for pilot, agents in pilots.items()
            }
            seconds = sum(agent.unit_seconds for agent in everybody) / len(everybody)
            sites = [self._site(pilot, agents) for pilot, agents in pilots.items()]
            costs = replace(USUAL, unit=seconds)
            found = plan([one.needs for one in units], sites, queued, costs)
            for one, placement in zip(units, found, strict=True):
                one.placement = placement
                if placement is None:  # no site is large enough, but others may be added
                    self.forget(one.row["id"])
        self._sites, self._is_stale = {*pilots}, False
        self._planned_at = time.monotonic()

    def _site(self, pilot: str, agents: Iterable[Agent]) -> Site:
        label = self._labels.get(pilot, Label())
        slots = sum(agent.slots for agent in agents)
        return Site(pilot, label, slots, room_near(self._session, label))

    def _is_brought(self, placement: Placement) -> bool:
        """Replicate inputs that other units also read; return whether any is being transferred."""
        label = self._labels.get(placement.site, Label())
        moves = [move for move in placement.moves if move.replicate]
        brought = [bring_near(self._session, move.name, label) for move in moves]
        return any(brought)


def freest(slots: int, agents: Iterable[Agent]) -> Agent | None:
    """Return the agent with the most room among those with enough processors."""
    able = [agent for agent in agents if agent.slots >= slots and agent.room >= slots]
    return min(able, key=lambda agent: agent.occupied / agent.slots, default=None)
