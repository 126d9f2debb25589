"""The placement of compute units: beside their data, unless a transfer costs less than waiting.

It is pure: it knows neither pilots nor stores, but only their labels, sizes and queues. The cost
of a site is the estimated time that the units wait there: for the transfers of missing inputs, and
for the queued work. docs/design/pilot-placement.md explains why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from dosna.core.sizes import format_size
from dosna.pilot.affinity import (
    MACHINE,
    USUAL,
    Costs,
    Input,
    Label,
    Move,
    Needs,
    Placement,
    Site,
    distance,
)

__all__ = ["Costs", "Input", "Label", "Move", "Needs", "Placement", "Site", "plan"]

_STEPS, _MOST_STEPS = 100, 1600
"""The steps of a search for each unit, and for all units of a plan."""
_OTHERS = (0, 1, 2, 4, 8, 12)
"""The numbers of units that are put anew together with one."""
_OVERLOOKED = 0.05
"""The share of sites that a step overlooks, so that not all steps end at the same plan."""
_SLACK = 1.6
"""The cost that the first steps may have above the best, in units' transfers."""
_FEW_SITES = 8
"""So many sites are all looked at for each unit."""
_NOTHING = 1e-9


def plan(
    units: Sequence[Needs],
    sites: Sequence[Site],
    queued: Mapping[str, int],
    costs: Costs = USUAL,
) -> list[Placement | None]:
    """Choose the sites of units that wait together.

    Parameters
    ----------
    units : sequence of Needs
        The needs of the units, those that have waited longest first.
    sites : sequence of Site
        The pilots that accept units.
    queued : mapping of str to int
        The processors that units occupy or wait for, by site.
    costs : Costs
        The costs of transfers and waiting.

    Returns
    -------
    list of Placement or None
        The site of each unit; None if no site has enough processors. Sites that the label of a
        unit does not allow are used only if there are no others.
    """
    search = _Search(units, sites, queued, costs)
    search.improve()
    return search.placements()


class _Search:
    """An assignment of units to sites that is improved step by step.

    The first steps reduce the time of transfers and waiting together; later steps reduce transfers
    alone, without making the longest queue longer. Inputs of several units at a site are moved
    there once, if there is room for them.
    """

    def __init__(
        self,
        units: Sequence[Needs],
        sites: Sequence[Site],
        queued: Mapping[str, int],
        costs: Costs,
    ) -> None:
        self.units, self.sites, self.costs = units, sites, costs
        self.load = [queued.get(site.name, 0) for site in sites]
        self.most: list[float] = [math.inf] * len(sites)
        self.waits = True
        self.chosen = [-1] * len(units)
        # Inputs are represented by numbers, because mappings of them are looked up very often.
        numbers = {one: n for n, one in enumerate({one: 0 for u in units for one in u.inputs})}
        self.reads = [[numbers[one] for one in needs.inputs] for needs in units]
        self.inputs = list(numbers)
        self.readers: list[dict[int, int]] = [{} for _ in numbers]
        self.near = [[_nearest(one, site.label, costs) for site in sites] for one in numbers]
        self.homes = [[n for n, (took, _) in enumerate(near) if not took] for near in self.near]
        self.allowed = [_allowed(needs, sites) for needs in units]
        self.random = Random(len(units))

    # -- cost -----------------------------------------------------------------------------

    def added(self, unit: int, site: int) -> float:
        """Return the additional cost of a unit at a site."""
        place, cost = self.sites[site], 0.0
        for one in self.reads[unit]:
            seconds = self.near[one][site][0]
            if seconds and not self._stays(one, site):
                cost += seconds
        if self.waits:
            load, more = self.load[site], self.units[unit].slots
            rounds = _waits(load + more, place.slots) - _waits(load, place.slots)
            cost += rounds * self.costs.unit
        return cost

    def _stays(self, one: int, site: int) -> bool:
        """Return True if other units at a site read an input, and there is room for it."""
        return bool(
            self.readers[one].get(site) and self.inputs[one].nbytes <= self.sites[site].room
        )

    def put(self, unit: int, site: int) -> None:
        self.chosen[unit] = site
        self._count(unit, site, 1)

    def take(self, unit: int) -> float:
        """Remove a unit from its site, and return its cost."""
        site = self.chosen[unit]
        self._count(unit, site, -1)
        return self.added(unit, site)

    def _count(self, unit: int, site: int, by: int) -> None:
        self.load[site] += by * self.units[unit].slots
        for one in self.reads[unit]:
            readers = self.readers[one]
            readers[site] = readers.get(site, 0) + by

    # -- search ---------------------------------------------------------------------------

    def improve(self) -> None:
        """Assign a site to all units, and search for cheaper ones."""
        for unit in sorted(range(len(self.units)), key=self._largest, reverse=True):
            if self.allowed[unit]:
                self._insert(unit, 0.0)
        self._search()
        pairs = list(zip(self.load, self.sites, strict=True))
        rounds = max((-(-load // site.slots) for load, site in pairs), default=0)
        self.most = [rounds * site.slots for site in self.sites]
        self.waits = False
        self._search()

    def _largest(self, unit: int) -> int:
        return max((one.nbytes for one in self.units[unit].inputs), default=0)

    def _search(self) -> None:
        """Repeatedly remove some related units, and insert them where they cost least."""
        placed = [u for u, site in enumerate(self.chosen) if site >= 0 and self.reads[u]]
        units_of: list[list[int]] = [[] for _ in self.inputs]
        for unit in placed:
            for one in self.reads[unit]:
                units_of[one].append(unit)
        steps = min(_STEPS * len(placed), _MOST_STEPS) if len(placed) > 1 else 0
        worse, best, kept = 0.0, 0.0, list(self.chosen)
        slack = _SLACK * self._total() / max(1, len(placed))
        for step in range(steps):
            # A slightly worse assignment may lead to a better one; less and less is tolerated.
            allowed = best + slack * (1 - step / steps) - worse
            worse -= self._replace(self._related(placed, units_of), allowed)
            if worse < best - _NOTHING:
                best, kept = worse, list(self.chosen)
        for unit in placed:
            self.take(unit)
        for unit in placed:
            self.put(unit, kept[unit])

    def _related(self, placed: list[int], units_of: list[list[int]]) -> list[int]:
        """Choose a random unit, and units at its site with common inputs."""
        random = self.random
        first = random.choice(placed)
        some = [first, *random.choices(placed, k=random.choice(_OTHERS))]
        for one in self.reads[first]:
            others = random.choices(units_of[one], k=random.choice(_OTHERS))
            some += [unit for unit in others if self.chosen[unit] == self.chosen[first]]
        some = list(dict.fromkeys(some))
        random.shuffle(some)
        return some

    def _total(self) -> float:
        """Return the seconds of all transfers."""
        cost = 0.0
        for one, readers in enumerate(self.readers):
            for site, count in readers.items():
                shared = self.inputs[one].nbytes <= self.sites[site].room
                cost += self.near[one][site][0] * (min(count, 1) if shared else count)
        return cost

    def _replace(self, units: list[int], allowed: float) -> float:
        """Insert units again, each where it costs least, and return the gain.

        If this costs more than is allowed, they return to where they were.
        """
        before = [self.chosen[unit] for unit in units]
        gained = sum([self.take(unit) for unit in units])
        for number, unit in enumerate(units):
            gained -= self._insert(unit)
            if gained < -allowed - _NOTHING:
                for other in units[: number + 1]:
                    if self.chosen[other] >= 0:
                        self._count(other, self.chosen[other], -1)
                for other, site in zip(units, before, strict=True):
                    self.put(other, site)
                return 0.0
        return gained

    def _insert(self, unit: int, overlooked: float = _OVERLOOKED) -> float:
        """Insert a unit where it costs least, and return the cost."""
        slots = self.units[unit].slots
        best, cost = -1, math.inf
        for site in self._candidates(unit):
            full = self.load[site] + slots > self.most[site]
            if not full and self.random.random() >= overlooked:
                other = self.added(unit, site)
                if other < cost:
                    best, cost = site, other
        self.chosen[unit] = best
        if best >= 0:
            self._count(unit, best, 1)
        return cost

    def _candidates(self, unit: int) -> Iterable[int]:
        """Return the candidate sites of a unit: those near its inputs, and the least busy ones."""
        allowed = self.allowed[unit]
        if len(allowed) <= _FEW_SITES:
            return allowed
        found = {min(allowed, key=lambda site: self.load[site] / self.sites[site].slots)}
        for one in self.reads[unit]:
            found.update(self.homes[one], [s for s, n in self.readers[one].items() if n])
        return found.intersection(allowed)

    # -- result ---------------------------------------------------------------------------

    def placements(self) -> list[Placement | None]:
        """Return the result, with the queue that each unit finds in turn."""
        queue = list(self.load)
        for needs, site in zip(self.units, self.chosen, strict=True):
            if site >= 0:
                queue[site] -= needs.slots
        there: set[tuple[int, int]] = set()
        found: list[Placement | None] = []
        for unit, site in enumerate(self.chosen):
            if site < 0:
                found.append(None)
                continue
            found.append(self._placement(unit, queue[site], there))
            queue[site] += self.units[unit].slots
        return found

    def _placement(self, unit: int, queue: int, there: set[tuple[int, int]]) -> Placement:
        needs, site = self.units[unit], self.chosen[unit]
        place, moves, transfer = self.sites[site], [], 0.0
        for number, one in zip(self.reads[unit], needs.inputs, strict=True):
            seconds, source = self.near[number][site]
            if source is None or (number, site) in there:
                continue
            readers = max(one.readers, self.readers[number][site])
            stays = readers > 1 and one.nbytes <= place.room
            if stays:
                there.add((number, site))
            moves.append(Move(one.name, source, one.nbytes, stays))
            transfer += seconds
        rounds = max(0, -(-(queue + needs.slots - place.slots) // place.slots))
        wait = rounds * self.costs.unit
        unmet = (
            "" if needs.label.allows(place.label) else f"; no pilot has the label {needs.label}"
        )
        reason = f"{place.name}: {_told(needs, moves, transfer)}; {_queue(queue, wait)}{unmet}"
        return Placement(needs.name, place.name, tuple(moves), transfer, wait, reason)


def _told(needs: Needs, moves: Sequence[Move], seconds: float) -> str:
    """Return a text that says where the inputs are."""
    if not needs.inputs:
        return "the unit has no inputs"
    total = sum(one.nbytes for one in needs.inputs)
    if not moves:
        return f"all {format_size(total)} of its inputs are there"
    told = ", ".join(
        f"{format_size(move.nbytes)} of {move.name} from {move.source}"
        f"{' to stay' if move.replicate else ''}"
        for move in moves
    )
    there = format_size(total - sum(move.nbytes for move in moves))
    return f"{there} of {format_size(total)} of its inputs are there, {told} ({seconds:.3g} s)"


def _queue(queue: int, wait: float) -> str:
    return f"{queue} of its processors are taken or waited for ({wait:.3g} s)"


def _allowed(needs: Needs, sites: Sequence[Site]) -> tuple[int, ...]:
    big = [number for number, site in enumerate(sites) if site.slots >= needs.slots]
    allowed = [number for number in big if needs.label.allows(sites[number].label)]
    return tuple(allowed or big)


def _waits(load: int, slots: int) -> float:
    """Return the total waiting time of all units in a queue, in rounds."""
    rounds, rest = divmod(load, slots)
    return slots * rounds * (rounds - 1) / 2 + rest * rounds


def _nearest(one: Input, label: Label, costs: Costs) -> tuple[float, Label | None]:
    """Return the seconds of a transfer, and the nearest store on another machine."""
    if not one.at:
        return 0.0, None  # Another unit writes it.
    far, _, source = min((distance(at, label), n, at) for n, at in enumerate(one.at))
    return costs.transfer(one.nbytes, far), (None if far == MACHINE else source)
