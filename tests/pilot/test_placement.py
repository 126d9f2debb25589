"""Where units are placed: labels, transfers, queues, and how near it comes to the best."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pytest

from dosna.pilot.affinity import distance
from dosna.pilot.placement import Costs, Input, Label, Needs, Placement, Site, plan

GIB = 1 << 30
DIDCOT = Label("europe/didcot", "scarf1")
HAMBURG = Label("europe/hamburg", "max1")
CHICAGO = Label("america/chicago", "polaris1")
SITES = [Site("didcot", DIDCOT), Site("hamburg", HAMBURG), Site("chicago", CHICAGO)]


def place(needs: Needs, sites: Sequence[Site] = SITES, **queued: int) -> Placement:
    (found,) = plan([needs], sites, queued)
    assert found is not None
    return found


def test_labels_are_a_hierarchy() -> None:
    neighbour = Label("europe/didcot", "scarf2")
    assert [distance(DIDCOT, other) for other in (DIDCOT, neighbour, HAMBURG, CHICAGO)] == [
        0,
        1,
        2,
        3,
    ]
    assert distance(DIDCOT, Label("europe/didcot")) == 1
    assert distance(Label(), Label()) == 3
    assert distance(Label("", "laptop"), Label("", "laptop")) == 0
    assert Label("europe").allows(DIDCOT)
    assert Label().allows(CHICAGO)
    assert not Label("europe/did").allows(DIDCOT)
    assert not Label("europe", "max1").allows(DIDCOT)


def test_a_unit_runs_where_most_of_its_bytes_are() -> None:
    inputs = (Input("du-a", 3 * GIB, (CHICAGO,)), Input("du-b", GIB, (DIDCOT,)))
    found = place(Needs("cu", inputs))
    assert found.site == "chicago"
    assert found.moved == GIB
    assert [(move.name, move.source) for move in found.moves] == [("du-b", DIDCOT)]
    for told in ("chicago", "3.0 GiB of 4.0 GiB", "1.0 GiB of du-b from europe/didcot/scarf1"):
        assert told in found.reason


def test_a_long_queue_sends_a_unit_elsewhere() -> None:
    needs = Needs("cu", (Input("du", GIB, (DIDCOT,)),))
    assert place(needs, didcot=1).site == "hamburg"  # 4 s of transfer against 10 s of waiting
    assert place(needs, didcot=1, hamburg=1, chicago=1).site == "didcot"
    big = Needs("cu", (Input("du", 100 * GIB, (DIDCOT,)),))
    assert place(big, didcot=1).site == "didcot"


def test_the_nearest_replica_is_taken() -> None:
    found = place(Needs("cu", (Input("du", GIB, (CHICAGO, HAMBURG)),)), SITES[:1])
    assert found.moves[0].source == HAMBURG


def test_labels_of_a_unit_come_before_its_data() -> None:
    inputs = (Input("du", GIB, (DIDCOT,)),)
    assert place(Needs("cu", inputs, Label("america"))).site == "chicago"
    nowhere = place(Needs("cu", inputs, Label("asia")))
    assert nowhere.site == "didcot"
    assert "no pilot has the label asia" in nowhere.reason


def test_units_need_enough_processors() -> None:
    sites = [replace(SITES[0], slots=2), replace(SITES[2], slots=8)]
    assert place(Needs("cu", (Input("du", GIB, (DIDCOT,)),), slots=4), sites).site == "chicago"
    assert plan([Needs("cu", slots=9)], sites, {}) == [None]
    assert plan([Needs("cu")], [], {}) == [None]


def test_what_several_units_read_is_moved_once_where_there_is_room() -> None:
    one = Input("du", GIB, (DIDCOT,))
    units = [Needs(f"cu{number}", (one,), Label("america")) for number in range(3)]
    roomy = [replace(SITES[2], room=2 * GIB)]
    assert [[m.replicate for m in p.moves] for p in plan(units, roomy, {}) if p] == [
        [True],
        [],
        [],
    ]
    full = plan(units, [replace(SITES[2], room=GIB // 2)], {})
    assert [[m.replicate for m in p.moves] for p in full if p] == [[False]] * 3


def test_an_input_that_does_not_exist_yet_costs_nothing() -> None:
    assert place(Needs("cu", (Input("du", 0, ()),))).transfer == 0


def test_units_without_inputs_fill_all_processors() -> None:
    sites = [Site("a", DIDCOT, 3), Site("b", CHICAGO, 1)]
    found = Counter(p.site for p in plan([Needs(f"cu{n}") for n in range(8)], sites, {}) if p)
    assert found == {"a": 6, "b": 2}


# -- how good it is -------------------------------------------------------------------------


@dataclass
class World:
    """Sites, each in one of some datacenters, data units of some bytes, and what units read."""

    sites: list[Site]
    data: dict[str, Input]
    reads: list[list[str]]

    def units(self, begin: int = 0, end: int | None = None) -> list[Needs]:
        return [
            Needs(f"cu{number}", tuple(self.data[name] for name in names))
            for number, names in enumerate(self.reads[begin:end], begin)
        ]


def make_world(seed: int, sites: int, data: int, units: int, inputs: int) -> World:
    """Make one where some data units are read much more often than others."""
    rng = random.Random(seed)
    centres = max(2, sites // 5)
    places = [
        Site(
            f"pilot{n}",
            Label(f"region{n % centres % 3}/centre{n % centres}", f"machine{n}"),
            slots=rng.randint(1, 4),
            room=1 << 50,
        )
        for n in range(sites)
    ]
    names = [f"du{n}" for n in range(data)]
    found = {
        name: Input(name, int(2 ** rng.uniform(27, 34)), (rng.choice(places).label,))
        for name in names
    }
    often = list(accumulate((1 + n) ** -0.7 for n in range(data)))
    reads = [
        list(dict.fromkeys(rng.choices(names, cum_weights=often, k=rng.randint(1, inputs))))
        for _ in range(units)
    ]
    return World(places, found, reads)


def run(world: World, batch: int, at_random: random.Random | None = None) -> tuple[int, float]:
    """Place units as they come, and return the bytes moved and the seconds that units wait."""
    labels = {site.name: site.label for site in world.sites}
    queued: Counter[str] = Counter()
    moved, seconds = 0, 0.0
    for begin in range(0, len(world.reads), batch):
        units = world.units(begin, begin + batch)
        if at_random is None:
            found = plan(units, world.sites, queued)
        else:
            found = [plan([u], [at_random.choice(world.sites)], queued)[0] for u in units]
        for one in filter(None, found):
            queued[one.site] += 1
            moved += one.moved
            seconds += one.seconds
            for move in one.moves:
                if move.replicate:
                    known = world.data[move.name]
                    world.data[move.name] = replace(known, at=(*known.at, labels[one.site]))
    return moved, seconds


@pytest.mark.slow
def test_ten_thousand_units_move_little() -> None:
    world = make_world(1, 50, 2000, 10_000, inputs=3)
    moved, seconds = run(replace(world, data=dict(world.data)), batch=2500)
    # What is moved at random stays there too, so that the next unit finds it.
    world.data = {name: replace(one, readers=2) for name, one in world.data.items()}
    moved_at_random, seconds_at_random = run(world, 1, random.Random(2))
    assert moved <= 0.3 * moved_at_random
    assert seconds <= 0.8 * seconds_at_random


def least_transfer(world: World, rounds: int) -> float:
    """Return the least seconds of transfers with which all units run in so many rounds.

    Variables are "unit u runs at site s" and "data unit d comes to site s".
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    sites, names = len(world.sites), list(world.data)
    units = len(world.reads) * sites
    cost = np.zeros(units + len(names) * sites)
    for d, name in enumerate(names):
        one = world.data[name]
        for s, site in enumerate(world.sites):
            far = distance(one.at[0], site.label)
            cost[units + d * sites + s] = Costs().transfer(one.nbytes, far)
    rows, low, high = [], [], []

    def constrain(variables: dict[int, int], least: float, most: float) -> None:
        row = np.zeros(len(cost))
        row[list(variables)] = list(variables.values())
        rows.append(row)
        low.append(least)
        high.append(most)

    for u, reads in enumerate(world.reads):
        constrain({u * sites + s: 1 for s in range(sites)}, 1, 1)
        for name in reads:
            for s in range(sites):
                comes = units + names.index(name) * sites + s
                constrain({u * sites + s: 1, comes: -1}, -1, 0)
    for s, site in enumerate(world.sites):
        queue = {u * sites + s: 1 for u in range(len(world.reads))}
        constrain(queue, 0, rounds * site.slots)
    found = milp(
        cost / cost.max(),
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=np.arange(len(cost)) < units,
        bounds=Bounds(0, 1),
    )
    assert found.success
    return float(found.fun * cost.max())


@pytest.mark.parametrize("seed", range(12))
def test_small_plans_are_near_the_optimum(seed: int) -> None:
    pytest.importorskip("scipy")
    world = make_world(seed, 4, 6, 16, inputs=2)
    found = [one for one in plan(world.units(), world.sites, {}) if one]
    queues = Counter(one.site for one in found)
    rounds = max(math.ceil(queues[site.name] / site.slots) for site in world.sites)
    assert sum(one.transfer for one in found) <= 1.3 * least_transfer(world, rounds) + 1e-6


def test_a_plan_is_the_same_each_time() -> None:
    world = make_world(3, 12, 20, 30, inputs=3)
    assert plan(world.units(), world.sites, {}) == plan(world.units(), world.sites, {})
