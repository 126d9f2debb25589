"""The outcomes of attempts: the states of units, and whether one is run again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dosna.core.names import printable
from dosna.errors import ConfigurationError
from dosna.pilot.crew import Agent, Assigned
from dosna.pilot.data.files import File
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import new_id

__all__ = ["Ledger"]

LOSSES = 3
"""The number of times that a unit is run again after the loss of its pilot, despite `retries`."""
_KEPT_REASONS = 5
_IDS = 500
"""Of rows in one query."""


class Ledger:
    """Changes that are not yet in the state; `flush` writes them together.

    Parameters
    ----------
    session : Session
        The session of the state.
    requeued : callable
        Called with the number of a unit that has to be placed again.
    """

    def __init__(self, session: Session, requeued: Callable[[int], None]) -> None:
        self._session = session
        self._requeued = requeued
        # By table; within a table, the order of the changes matters.
        self._changes: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        self._recorded: list[tuple[Agent, str]] = []

    def assign(self, agent: Agent, row: Mapping[str, Any], placement: str) -> Assigned:
        """Assign a unit to an agent, as a new attempt."""
        description, details = row["description"], dict(row["details"])
        details.update(placement=placement, host=agent.host)
        assigned = Assigned(
            attempt=new_id("sj"),
            unit=row["id"],
            number=row["number"],
            slots=description["number_of_processes"],
            retries=description["retries"],
            details=details,
            before=row["attempts"],
        )
        agent.assigned[assigned.attempt] = assigned
        self._rows.setdefault("attempts", []).append(
            {
                "id": assigned.attempt,
                "state": str(State.Pending),
                "compute_unit": row["id"],
                "pilot": agent.pilot,
                "details": {"agent": agent.name},
            }
        )
        values = {
            "state": str(State.Pending),
            "pilot": agent.pilot,
            "attempt": assigned.attempt,
            "attempts": row["attempts"] + 1,
            "reason": "",
            "details": details,
        }
        self.change("compute_units", row["id"], **values)
        return assigned

    def started(self, agent: Agent, attempt: str) -> None:
        """Record that an attempt is running."""
        assigned = agent.assigned.get(attempt)
        if assigned is not None and not assigned.is_started:
            assigned.is_started, assigned.started_at = True, time.monotonic()
            self.change("attempts", attempt, state="Running")
            self.change("compute_units", assigned.unit, state="Running")

    def ended(self, agent: Agent, result: Mapping[str, Any]) -> None:
        """Record the result of an attempt, and that its agent may forget it."""
        assigned = agent.assigned.pop(str(result["attempt"]), None)
        self._recorded.append((agent, str(result["attempt"])))
        if assigned is None:
            return
        if assigned.started_at:
            seconds = time.monotonic() - assigned.started_at
            agent.unit_seconds += (seconds - agent.unit_seconds) / 8
        # What a command said may have characters that no database takes.
        reason = printable(str(result.get("reason") or ""))
        try:
            files = _files_of(result)
        except (ConfigurationError, KeyError, TypeError, ValueError) as error:
            self._failed(assigned, f"its agent tells of files that cannot be: {error}")
            return
        if result.get("lost"):
            self.lost(assigned, reason)
        elif result.get("canceled"):
            self._finish(assigned, State.Canceled, reason)
        elif reason or result.get("code") != 0:
            self._failed(assigned, reason)
        else:
            for data_unit, listed in files:
                self._add_files(data_unit, listed, assigned)
            self._finish(assigned, State.Done, "")

    def _add_files(self, data_unit: str, files: Iterable[File], assigned: Assigned) -> None:
        now, since = time.time(), 0.0
        if assigned.started_at:
            since = now - (time.monotonic() - assigned.started_at)
        self._rows.setdefault("files", []).extend(
            {
                "id": f"{data_unit}/{file.name}",
                "state": "Running",
                "data_unit": data_unit,
                "name": file.name,
                "size": file.size,
                "checksum": file.checksum,
                "details": {"unit": assigned.unit, "since": since, "at": now},
            }
            for file in files
        )

    def lost(self, assigned: Assigned, reason: str) -> None:
        """Record that an attempt was lost with its pilot; another follows, within limits."""
        losses = assigned.details.get("losses", 0) + assigned.is_started
        assigned.details["losses"] = losses
        self._again(assigned, reason, losses <= max(LOSSES, assigned.retries))

    def returned(self, assigned: Assigned) -> None:
        """Note that an attempt was not begun, for others before it take long."""
        self.change("attempts", assigned.attempt, state="Canceled", reason="it was not begun")
        values = {"state": "New", "reason": "", "attempt": "", "attempts": assigned.before}
        self.change("compute_units", assigned.unit, **values)
        self._requeued(assigned.number)

    def _failed(self, assigned: Assigned, reason: str) -> None:
        failures = assigned.details.get("failures", 0) + 1
        assigned.details["failures"] = failures
        self._again(assigned, reason, failures <= assigned.retries)

    def _again(self, assigned: Assigned, reason: str, is_allowed: bool) -> None:
        reasons = [*assigned.details.get("reasons", []), f"{assigned.attempt}: {reason}"]
        assigned.details["reasons"] = reasons[-_KEPT_REASONS:]
        if not is_allowed:
            self._finish(assigned, State.Failed, reason)
            return
        self.change("attempts", assigned.attempt, state="Failed", reason=reason)
        values = {"state": "New", "reason": reason, "attempt": "", "details": assigned.details}
        self.change("compute_units", assigned.unit, **values)
        self._requeued(assigned.number)

    def _finish(self, assigned: Assigned, state: State, reason: str) -> None:
        values: dict[str, Any] = {"state": str(state), "reason": reason}
        self.change("attempts", assigned.attempt, **values)
        values.update(details=assigned.details, wanted="")
        self.change("compute_units", assigned.unit, **values)

    def change(self, table: str, id: str, **values: Any) -> None:
        """Change columns of a row, with the others."""
        self._changes.setdefault(table, []).append((table, id, values))

    def flush(self) -> bool:
        """Write all changes, and notify waiters and agents; return whether there were any."""
        if not (self._changes or self._rows or self._recorded):
            return False
        changes = itertools.chain.from_iterable(self._changes.values())
        rows = dict(self._rows)
        if rows.get("files"):
            rows["files"] = self._with_others(rows["files"])
        self._session.store.write(rows=rows, changes=changes)
        by_agent: dict[int, tuple[Agent, list[str]]] = {}
        for agent, attempt in self._recorded:
            by_agent.setdefault(id(agent), (agent, []))[1].append(attempt)
        for agent, attempts in by_agent.values():
            agent.send(kind="recorded", attempts=attempts)
        self._changes, self._rows, self._recorded = {}, {}, []
        self._session.notify()
        return True

    def _with_others(self, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return rows of files that also accept what other units wrote at the same time.

        Each of these versions is whole. The last one to be stored counts, and that may be another
        one than the last one to be told of.
        """
        before: dict[str, Mapping[str, Any]] = {}
        ids = [row["id"] for row in files]
        for start in range(0, len(ids), _IDS):
            found = self._session.store.rows("files", id=ids[start : start + _IDS])
            before.update((row["id"], row) for row in found)
        rows = []
        for row in files:
            unit, since, at = (row["details"][name] for name in ("unit", "since", "at"))
            old = before.get(row["id"], {"details": {}})
            known = list(old["details"].get("others", ()))
            if old["details"].get("unit", unit) != unit:
                known.append([old["size"], old["checksum"], old["details"]["at"]])
            others = [one for one in known if one[2] > since]
            details = {"unit": unit, "at": at, "others": others}
            before[row["id"]] = {**row, "details": details}
            rows.append(before[row["id"]])
        return rows


def _files_of(result: Mapping[str, Any]) -> list[tuple[str, list[File]]]:
    """Return the files of each data unit that an attempt has written, checked."""
    return [
        (str(data_unit), [File.of({**one, "size": int(one["size"]), "url": ""}) for one in files])
        for data_unit, files in result.get("files") or []
    ]
