"""The manager: a thread that starts pilots, assigns units to them, and records the outcomes."""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Container
from contextlib import suppress
from typing import Any, ClassVar

import sqlalchemy as sa

from dosna.errors import DosnaError, LockError, StorageError
from dosna.pilot.crew import Agent, Assigned, Crew
from dosna.pilot.keys import Keys
from dosna.pilot.pilots import Pilot
from dosna.pilot.placement import Label
from dosna.pilot.scheduling import Scheduler
from dosna.pilot.session import Session, private_folder
from dosna.pilot.states import NOT_FINAL, State
from dosna.pilot.store import TABLES

__all__ = ["Manager"]

_ACTIVE = [str(State.Pending), str(State.Running)]
LET_GO_SECONDS = 5.0
"""For how long a new manager waits for the lock of one that was killed just now."""
_log = logging.getLogger("dosna.pilot")


class Manager:
    """The manager of the pilots and compute units of one state, in one process at a time.

    Parameters
    ----------
    session : Session
        The state.

    Raises
    ------
    LockError
        Another process manages this state.
    """

    _of_sessions: ClassVar[dict[int, Manager]] = {}
    _making = threading.Lock()

    @classmethod
    def of(cls, session: Session) -> Manager:
        """Return the manager of a session, which all its services share; started if needed."""
        with cls._making:
            found = cls._of_sessions.get(id(session))
            if found is not None and found._is_ousted:
                found.close()
                found = None
            if found is None:
                found = cls._of_sessions[id(session)] = cls(session)
            return found

    def __init__(self, session: Session) -> None:
        self.session = session
        self._process = os.getpid()
        self._name = f"dosna.pilot {socket.gethostname()}:{self._process}"
        folder = private_folder(session.url)
        self._keys = Keys(folder)
        self._lock = _lock(folder / "lock", session.store.shown)
        try:
            self._hold()
        except BaseException:
            os.close(self._lock)
            raise
        self._pilots: dict[str, Pilot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = threading.Lock()
        units = TABLES["compute_units"]
        self._number = session.store.ask(sa.select(sa.func.max(units.c.number)))[0][0] or 0
        self._crew = Crew(self._keys, self._joined, self._said, self._left)
        self._scheduler = Scheduler(session, self._crew)
        self._loop = asyncio.new_event_loop()
        self._wanted = asyncio.Event()
        self._is_closing = self._is_ousted = self._look = False
        self._thread = threading.Thread(target=self._run, name="dosna.pilot", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def next_number(self) -> int:
        """Return the number of the next unit, which determines the order."""
        with self._numbers:
            self._number += 1
            return self._number

    def wake(self) -> None:
        """Make the manager look for news in the state. Any thread may call this."""
        if not self._is_closing:
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._look = True
        self._scheduler.look_again()
        self._wanted.set()

    def close(self) -> None:
        """Stop managing. Pilots and units continue, and wait for another manager for a while."""
        if self._of_sessions.get(id(self.session)) is self:
            del self._of_sessions[id(self.session)]
            self._is_closing = True
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._wanted.set)
            self._thread.join()
            os.close(self._lock)
            atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """End the pilots, because units can no longer be assigned to them."""
        # A process that was forked from the manager's has neither its thread nor its pilots.
        if self._is_closing or os.getpid() != self._process:
            return
        try:
            for row in list(self.session.store.rows("pilots", state=NOT_FINAL)):
                self.session.store.update("pilots", row["id"], wanted="Canceled")
            self.wake()
            self.session.wait_until(
                lambda: not self.session.store.count("pilots", state=NOT_FINAL), timeout=60
            )
        except DosnaError as error:
            # The agents end by themselves when they find no manager.
            _log.warning("pilots: %s", error)
        self.close()

    def _hold(self) -> None:
        """Hold the state, for a database that several machines use."""
        end = time.monotonic() + LET_GO_SECONDS
        while other := self.session.store.hold(self._name):
            # The server may not know yet that a manager was killed.
            if time.monotonic() > end:
                raise LockError(
                    f"state {self.session.store.shown}: {other} manages it. Use another state, "
                    "or end that process."
                )
            time.sleep(0.1)

    def _holds(self) -> bool:
        """Check that this manager still holds the state; stop managing if another does."""
        other = self.session.store.hold(self._name)
        if other:
            _log.error("state %s: %s manages it now", self.session.store.shown, other)
            self._is_closing = self._is_ousted = True
        return not other

    # --- the thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._manage())
        finally:
            self._loop.close()
            self.session.store.let_go()

    async def _manage(self) -> None:
        look_at = 0.0  # other processes write to the state too
        while not self._is_closing:
            try:
                if self._loop.time() > look_at and not self._holds():
                    break
                if self._look or self._loop.time() > look_at:
                    self._look, look_at = False, self._loop.time() + 1
                    self._adopt_pilots()
                    self._do_what_is_wanted()
                self._scheduler.assign()
            except DosnaError as error:
                # The state cannot be used now; changes are kept and written later.
                _log.warning("pilots: %s", error)
                await asyncio.sleep(1)
            except Exception:
                # Whatever it is, it keeps the other units and pilots from nothing.
                _log.exception("pilots")
                await asyncio.sleep(1)
            try:
                async with asyncio.timeout(1):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(0.01)  # for what else comes: it is written together
            self._wanted.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._crew.close()

    def _adopt_pilots(self) -> None:
        """Start to watch the pilots of the state that are not watched yet."""
        for row in list(self.session.store.rows("pilots", state=NOT_FINAL)):
            if row["id"] in self._pilots:
                continue
            try:
                pilot = Pilot(
                    self.session, row, self._crew, self._keys, self._pilots.pop, self._release
                )
            except DosnaError as error:
                self.session.set_state("pilots", row["id"], State.Failed, str(error))
                continue
            self._pilots[pilot.id] = pilot
            described = pilot.description
            self._scheduler.labels[pilot.id] = Label(
                described.affinity_datacenter_label, described.affinity_machine_label
            )
            task = self._loop.create_task(pilot.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _do_what_is_wanted(self) -> None:
        """Cancel the pilots and units that are marked for this in the state."""
        store = self.session.store
        self._scheduler.ledger.flush()  # what has ended is not canceled
        for row in list(store.rows("pilots", wanted="Canceled")):
            store.update("pilots", row["id"], wanted="")
            if row["id"] in self._pilots:
                self._pilots[row["id"]].cancel()
            elif not State(row["state"]).is_final:
                self.session.set_state("pilots", row["id"], State.Canceled, "it was canceled")
        # Units remain marked until they are final, because an agent may be lost with its messages.
        for row in list(store.rows("compute_units", wanted="Canceled")):
            self._cancel_unit(row)

    def _cancel_unit(self, row: dict[str, Any]) -> None:
        values = {"wanted": ""}
        if not State(row["state"]).is_final:
            agent = self._agent_of(row["pilot"], row["attempt"])
            if agent is not None and agent.is_connected:
                agent.send(kind="cancel", attempt=row["attempt"])
                return
            self._scheduler.forget(row["id"])
            if agent is not None:
                agent.assigned.pop(row["attempt"])
            values.update(state="Canceled", reason="it was canceled")
            if row["attempt"]:
                self._scheduler.ledger.change("attempts", row["attempt"], state="Canceled")
        self._scheduler.ledger.change("compute_units", row["id"], **values)

    def _agent_of(self, pilot: str, attempt: str) -> Agent | None:
        for agent in self._crew.of_pilot(pilot):
            if attempt in agent.assigned:
                return agent
        return None

    # --- agents ---

    def _joined(self, agent: Agent, known: list[str]) -> bool:
        """Compare the attempts of an agent with the state; return False if its pilot has ended."""
        pilot = self._pilots.get(agent.pilot)
        if pilot is None:
            return False
        self._adopt_attempts(agent)
        for attempt, assigned in list(agent.assigned.items()):
            if attempt not in known:
                del agent.assigned[attempt]
                self._scheduler.ledger.lost(assigned, "its agent did not get it")
        for attempt in known:
            if attempt not in agent.assigned:
                # An attempt at a unit that was assigned to another pilot, or canceled.
                agent.send(kind="cancel", attempt=attempt)
        pilot.joined()
        self._wake()
        return True

    def _adopt_attempts(self, agent: Agent) -> None:
        """Take over the attempts of an earlier manager from the state."""
        self._scheduler.ledger.flush()
        store = self.session.store
        for row in list(store.rows("attempts", pilot=agent.pilot, state=_ACTIVE)):
            if row["details"].get("agent") == agent.name and row["id"] not in agent.assigned:
                unit = self._unit_of(row)
                if unit is not None:
                    agent.assigned[row["id"]] = _assigned(row, unit)

    def _unit_of(self, attempt: dict[str, Any]) -> dict[str, Any] | None:
        """Return the unit of an attempt, if it is the one that counts."""
        unit = self.session.store.get("compute_units", attempt["compute_unit"])
        is_its_last = unit is not None and unit["attempt"] == attempt["id"]
        return unit if is_its_last and unit is not None and unit["state"] in _ACTIVE else None

    def _said(self, agent: Agent, message: dict[str, Any]) -> None:
        kind = message["kind"]
        ledger = self._scheduler.ledger
        if kind == "started":
            ledger.started(agent, str(message["attempt"]))
        elif kind == "ended":
            ledger.ended(agent, message)
            self._scheduler.look_again()
        elif kind == "returned":
            # What it gets ahead waits, so it gets nothing ahead for now.
            agent.unit_seconds = max(agent.unit_seconds, 1.0)
            for attempt in message["attempts"]:
                if attempt in agent.assigned:
                    ledger.returned(agent.assigned.pop(attempt))
        elif kind in ("draining", "bye"):
            agent.is_draining = True
            kept = message.get("attempts") or ()
            for attempt, assigned in list(agent.assigned.items()):
                if attempt not in kept:
                    del agent.assigned[attempt]
                    ledger.lost(assigned, str(message["reason"]))
            if kind == "bye":
                self._crew.forget(agent)
                self._pilots[agent.pilot].bye(str(message["reason"]))
        if kind != "ping":
            self._wanted.set()

    def _left(self, agent: Agent) -> None:
        if agent.pilot in self._pilots:
            self._pilots[agent.pilot].left()

    def _release(self, pilot: str, reason: str, spare: Container[str] = ()) -> None:
        """Let the units of a pilot go elsewhere, but for those of some agents.

        That are also units of agents that an earlier manager had, and that did not come back.
        """
        for agent in self._crew.of_pilot(pilot):
            if agent.name in spare:
                continue
            for assigned in agent.assigned.values():
                self._scheduler.ledger.lost(assigned, reason)
            agent.assigned.clear()
            self._crew.forget(agent)
        self._scheduler.ledger.flush()  # attempts that have ended are not lost
        store = self.session.store
        for row in list(store.rows("attempts", pilot=pilot, state=_ACTIVE)):
            unit = None if row["details"].get("agent") in spare else self._unit_of(row)
            if unit is not None:
                self._scheduler.ledger.lost(_assigned(row, unit), reason)
        self._scheduler.ledger.flush()
        self._wake()


def _forked() -> None:
    # The locks are of the process that has the threads.
    for manager in Manager._of_sessions.values():
        os.close(manager._lock)
    Manager._of_sessions.clear()


os.register_at_fork(after_in_child=_forked)


def _assigned(attempt: dict[str, Any], unit: dict[str, Any]) -> Assigned:
    """Return an attempt from the state."""
    return Assigned(
        attempt=attempt["id"],
        unit=unit["id"],
        number=unit["number"],
        slots=unit["description"]["number_of_processes"],
        retries=unit["description"]["retries"],
        details=dict(unit["details"]),
        before=unit["attempts"] - 1,
        is_started=attempt["state"] == State.Running,
    )


def _lock(path: Any, shown: str) -> int:
    """Return a lock that is released when this process ends."""
    lock = -1
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        owner = os.read(lock, 100).decode() or "another process"
        os.close(lock)
        raise LockError(
            f"state {shown}: process {owner} manages it. Use another state, or end that process."
        ) from None
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise StorageError(
            f"state {shown} cannot be locked: {path}: {error.strerror}. Make it possible to "
            "write there, or use another state"
        ) from error
    return lock
