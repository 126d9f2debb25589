"""The input of placement: labels and their distances, the needs of units, and sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Costs", "Input", "Label", "Move", "Needs", "Placement", "Site", "distance"]

MACHINE, DATACENTER, REGION, ELSEWHERE = range(4)
"""The distances of two labels, the nearest first."""


@dataclass(frozen=True)
class Label:
    """The affinity labels of a pilot, a store or a unit.

    Parameters
    ----------
    datacenter : str
        The label of the datacenter, with parts joined by '/', the widest first, such as
        ``europe/didcot``.
    machine : str
        The label of the machine within the datacenter.
    """

    datacenter: str = ""
    machine: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.datacenter, self.machine))) or "no label"

    def allows(self, other: Label) -> bool:
        """Return True if a place with the label `other` satisfies this label."""
        if self.machine and self.machine != other.machine:
            return False
        wanted = _parts(self.datacenter)
        return wanted == _parts(other.datacenter)[: len(wanted)]


def _parts(datacenter: str) -> tuple[str, ...]:
    return tuple(filter(None, datacenter.split("/")))


@lru_cache(maxsize=1 << 16)
def distance(one: Label, other: Label) -> int:
    """Return the distance of two labels: 0 for the same machine, 3 for nothing in common.

    A label without a machine stands for the whole datacenter; an empty label is close to nothing.
    """
    ours, theirs = _parts(one.datacenter), _parts(other.datacenter)
    if ours == theirs:
        if one.machine and one.machine == other.machine:
            return MACHINE
        if ours:
            return DATACENTER
    return REGION if ours and theirs and ours[0] == theirs[0] else ELSEWHERE


@dataclass(frozen=True)
class Costs:
    """The costs of transfers and waiting.

    Parameters
    ----------
    rates : tuple of float
        The bytes per second between two places on one machine, in one datacenter, in datacenters
        whose labels have the same beginning, and between all others.
    start : float
        The seconds before the first byte of a transfer from another machine.
    unit : float
        The estimated run time of a compute unit, in seconds.
    """

    rates: tuple[float, float, float, float] = (math.inf, 1e9, 2.5e8, 1e8)
    start: float = 0.1
    unit: float = 10.0

    def transfer(self, nbytes: int, far: int) -> float:
        """Return the seconds of a transfer over a distance."""
        return 0.0 if far == MACHINE else self.start + nbytes / self.rates[far]


USUAL = Costs()


@dataclass(frozen=True)
class Input:
    """A data unit that a compute unit reads.

    Parameters
    ----------
    name : str
        The data unit.
    nbytes : int
        The number of bytes that are read from it.
    at : tuple of Label
        The labels of the stores that have it.
    readers : int
        The number of units, including this one, that wait for it.
    """

    name: str
    nbytes: int
    at: tuple[Label, ...]
    readers: int = 1


@dataclass(frozen=True)
class Needs:
    """The needs of a compute unit.

    Parameters
    ----------
    name : str
        The unit.
    inputs : tuple of Input
        The data units that it reads.
    label : Label
        The place where it should run, if there is such a place.
    slots : int
        The number of processors that it occupies.
    """

    name: str
    inputs: tuple[Input, ...] = ()
    label: Label = Label()
    slots: int = 1


@dataclass(frozen=True)
class Site:
    """A place where units can run.

    Parameters
    ----------
    name : str
        The pilot.
    label : Label
        Its labels.
    slots : int
        The number of processors.
    room : int
        The free space in a store beside it, in which inputs can be kept for later units.
    """

    name: str
    label: Label
    slots: int = 1
    room: int = 0


@dataclass(frozen=True)
class Move:
    """A transfer that a unit needs before it runs.

    Parameters
    ----------
    name : str
        The data unit.
    source : Label
        The nearest store that has it.
    nbytes : int
        The bytes.
    replicate : bool
        Whether to keep it in the store beside the pilot, because other units wait for it.
    """

    name: str
    source: Label
    nbytes: int
    replicate: bool


@dataclass(frozen=True)
class Placement:
    """The place where a unit runs, and the reason.

    Attributes
    ----------
    unit, site : str
        The unit, and the pilot on which it runs.
    moves : tuple of Move
        The transfers from other machines.
    transfer, wait : float
        The estimated seconds of the transfers, and of the queue.
    reason : str
        The reason, as a text.
    """

    unit: str
    site: str
    moves: tuple[Move, ...]
    transfer: float
    wait: float
    reason: str = ""

    @property
    def seconds(self) -> float:
        """The estimated seconds before the unit runs."""
        return self.transfer + self.wait

    @property
    def moved(self) -> int:
        """The number of bytes that are transferred from other machines."""
        return sum(move.nbytes for move in self.moves)
