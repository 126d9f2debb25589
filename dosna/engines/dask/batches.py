"""The tasks of a call, taken in batches, where possible near their data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from dosna.core.plan import Plan
from dosna.engines.base import Tasks

__all__ = ["Batches"]

# Tasks that are looked at beyond those that can be sent, to find some for each place.
_AHEAD = 20_000
# Where data are on many hosts, those of the first tasks may have no workers.
_LOOKED_AT = 16


class Batches:
    """The tasks that are left.

    Parameters
    ----------
    tasks : sized iterable
        The tasks.
    locations : callable, optional
        A function of a task that names the places of its data, the best first.
    places : sequence of frozenset of str
        The names of the place of each worker.
    """

    def __init__(
        self,
        tasks: Tasks[Any],
        locations: Callable[[Any], Sequence[str]] | None,
        places: Sequence[frozenset[str]],
    ) -> None:
        self.left = len(tasks)
        self.places = frozenset[str]().union(*places)
        """The places that have workers."""
        self._taken = 0
        self._locations = locations
        self._queues: dict[str, deque[Any]] = {}
        self._ahead = 0
        # Looked at for a few tasks: if every worker is as near to each, nothing is gained.
        few = islice(tasks, _LOOKED_AT) if locations is not None else ()
        labels = {self._label_of(task) for task in few} - {""}
        self.located = any(label not in place for label in labels for place in places)
        self._plan = tasks if isinstance(tasks, Plan) and not self.located else None
        self._source: Iterator[Any] = iter(()) if self._plan is not None else iter(tasks)

    def take(self, size: int, labels: frozenset[str]) -> Plan | list[Any]:
        """Take up to `size` tasks, of data at one of some places if there are any.

        Parameters
        ----------
        size : int
            The most tasks.
        labels : frozenset of str
            The names of the places.

        Returns
        -------
        Plan or list
            The tasks, a `Plan` where all are one; empty if none is left for these places.
        """
        if self._plan is not None:
            end = min(self._taken + size, len(self._plan))
            part = self._plan.between(self._taken, end)
            self._taken, self.left = end, self.left - len(part)
            return part
        if not self.located:
            return self._counted(list(islice(self._source, size)))
        return self._counted(self._near(size, labels))

    def rest(self) -> Iterator[Any]:
        """Return all tasks that were not taken."""
        if self._plan is not None:
            return iter(self._plan.between(self._taken, len(self._plan)))
        return chain(*self._queues.values(), self._source)

    def _counted(self, tasks: list[Any]) -> list[Any]:
        self.left -= len(tasks)
        return tasks

    def _near(self, size: int, labels: frozenset[str]) -> list[Any]:
        found: list[Any] = []
        mine = [label for label in self._queues if label in labels]
        for label in mine:
            self._move(label, size, found)
        while len(found) < size and self._ahead < _AHEAD:
            task = next(self._source, self)
            if task is self:
                break
            label = self._label_of(task)
            if label in labels:
                found.append(task)
            else:
                self._queues.setdefault(label, deque()).append(task)
                self._ahead += 1
        if not found:
            # Of no place that has workers; and then of the place that has most left.
            homeless = [label for label in self._queues if label not in self.places]
            for label in homeless:
                self._move(label, size, found)
        if not found and self._queues:
            longest = max(self._queues, key=lambda label: len(self._queues[label]))
            # Single tasks may take long, and more than it takes to fetch their data.
            if len(self._queues[longest]) > (8 * size if size > 1 else 1):
                self._move(longest, size, found)
        return found

    def _move(self, label: str, size: int, found: list[Any]) -> None:
        waiting = self._queues.get(label)
        while waiting and len(found) < size:
            found.append(waiting.popleft())
            self._ahead -= 1
        if waiting is not None and not waiting:
            del self._queues[label]

    def _label_of(self, task: Any) -> str:
        assert self._locations is not None
        names = self._locations(task)
        return next((name for name in names if name in self.places), "")
