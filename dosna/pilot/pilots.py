"""One pilot from its submission to its end, as the manager sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

from dosna.errors import DosnaError
from dosna.pilot.crew import Agent, Crew
from dosna.pilot.descriptions import PilotComputeDescription
from dosna.pilot.keys import Keys
from dosna.pilot.launching import Launcher
from dosna.pilot.session import Session
from dosna.pilot.states import State

__all__ = ["Pilot"]

_Any = TypeVar("_Any")
_log = logging.getLogger("dosna.pilot")

LOST_SECONDS = 90.0
"""After which a silent agent is given up, while its job is said to run."""
PATIENCE_SECONDS = 600.0
"""For which an agent looks for a manager that is gone."""
DRAIN_SECONDS = 10.0
"""After which an agent in Slurm asks again whether its node is drained."""
_SAID = {
    "completed": "has ended",
    "failed": "has failed",
    "canceled": "was canceled",
    "gone": "is gone",
}
_END_SECONDS = 30.0
_LAST_SECONDS = 30.0
"""Before the end of a batch job at most: time to end its units in order."""


class Pilot:
    """The job of a pilot and its agents. All methods run in the manager's loop.

    Parameters
    ----------
    session : Session
        The session of the pilot.
    row : mapping
        The row of the pilot in the state.
    crew : Crew
        The agents.
    keys : Keys
        The keys of the state.
    ended : callable
        Called with the id when the pilot has ended.
    released : callable
        Called with the id, a reason and the names of all agents but those that are lost.
    """

    def __init__(
        self,
        session: Session,
        row: Mapping[str, Any],
        crew: Crew,
        keys: Keys,
        ended: Callable[[str], object],
        released: Callable[[str, str, Container[str]], None],
    ) -> None:
        self.id: str = row["id"]
        self.description = PilotComputeDescription.of(row["description"])
        self._session, self._crew, self._keys = session, crew, keys
        self._ended, self._released = ended, released
        self._details = dict(row["details"])
        self._launcher = Launcher(self.description)
        self._state = State(row["state"])
        self._news = asyncio.Event()
        self._bye: str | None = None
        self._is_canceled = False
        self._silent_since: float | None = None
        self._since = asyncio.get_running_loop().time()
        self._is_old = "submitting" in self._details  # an earlier manager's, which had agents
        self._end_is = (State.Failed, "")

    # --- what it hears ---

    def joined(self) -> None:
        """Record that an agent is connected."""
        if self._state in (State.New, State.Pending, State.Unknown):
            self._set(State.Running, "")
        self._silent_since = None
        self._news.set()

    def left(self) -> None:
        """Record that the connection of an agent is lost."""
        self._news.set()

    def bye(self, reason: str) -> None:
        """Record that an agent has ended, and why."""
        self._bye = reason
        self._news.set()

    def cancel(self) -> None:
        """End it."""
        self._is_canceled = True
        self._news.set()

    # --- what it does ---

    async def run(self) -> None:
        """Start the job if it has none, and watch it to its end."""
        try:
            await self._watch()
            while not self._is_told():
                await asyncio.sleep(1)
        finally:
            await _in_thread(self._launcher.close)

    async def _watch(self) -> None:
        try:
            if not self._is_canceled:
                await self._start()
            while not await self._has_ended():
                self._news.clear()
                try:
                    async with asyncio.timeout(self._pause()):
                        await self._news.wait()
                except TimeoutError:
                    pass
        except DosnaError as error:
            self._end(State.Failed, str(error))
        except Exception as error:
            _log.exception("pilot %s", self.id)
            self._end(State.Failed, f"{type(error).__name__}: {error}")

    async def _start(self) -> None:
        port = await self._crew.port(self._launcher.needs_all_interfaces)
        if "folder" not in self._details:
            own = {"certificate": self._keys.certificate, "token": self._keys.token(self.id)}
            options = {
                "seconds": self._seconds(),
                "patience": PATIENCE_SECONDS,
                "drain_every": DRAIN_SECONDS,
                "apart": not self._launcher.is_batch,
            }
            deploy = self._launcher.deploy
            self._note(folder=await _in_thread(deploy, self.id, own, options))
        folder = self._details["folder"]
        if not self._details.get("submitting"):
            await _in_thread(self._launcher.connect, folder, port)
            # A manager that is killed between these lines leaves a job with an unknown id. Its
            # agent is recognised by the token; if none connects, the pilot is given up.
            self._note(submitting=True)
            native = await _in_thread(self._launcher.submit, self.id, folder)
            self._note(native=native)
        if self._state == State.New:
            self._set(State.Pending, "")

    def _seconds(self) -> float:
        """Return the time for which an agent accepts units, slightly less than the job may run."""
        seconds = self.description.walltime * 60
        if self._launcher.is_batch:
            seconds = seconds or 3600
            seconds -= min(_LAST_SECONDS, seconds / 10)
        return seconds

    def _pause(self) -> float:
        if any(agent.is_connected for agent in self._crew.of_pilot(self.id)):
            return 5.0
        # Querying a queue, or by SSH, is done by threads.
        return 2.0 if self._launcher.is_batch or self._launcher.is_by_ssh else 0.3

    async def _has_ended(self) -> bool:
        if self._is_canceled:
            await self._cancel()
            return True
        agents = self._crew.of_pilot(self.id)
        now = asyncio.get_running_loop().time()
        if any(agent.is_connected for agent in agents):
            self._give_up_lost(agents, now)
            return False
        # Of several agents, those that are out of reach for a moment may come back.
        if self._bye is not None and not agents:
            self._end_by_bye(self._bye)
            return True
        return await self._has_job_ended(now)

    def _end_by_bye(self, reason: str) -> None:
        is_regular = "walltime" in reason or "drained" in reason
        self._end(State.Done if is_regular else State.Failed, reason)

    def _give_up_lost(self, agents: list[Agent], now: float) -> None:
        """Let the units of agents that are lost for long go elsewhere, while others work."""
        self._silent_since = None
        there = {
            agent.name
            for agent in agents
            if agent.lost_at is None or now - agent.lost_at <= LOST_SECONDS
        }
        is_late = self._is_old and now - self._since > LOST_SECONDS
        if is_late or len(there) < len(agents):
            self._released(self.id, "its agent does not answer", there)
            self._is_old = self._is_old and not is_late

    async def _has_job_ended(self, now: float) -> bool:
        native = self._details.get("native")
        state, message = "active", ""
        try:
            port = await self._crew.port(self._launcher.needs_all_interfaces)
            await _in_thread(self._launcher.connect, self._details["folder"], port)
            if native is not None:
                look = self._launcher.look
                state, message = await _in_thread(look, native, self._details["folder"])
        except DosnaError as error:
            # A network or a queue may be out of reach for a while.
            message = str(error)
        if any(agent.is_connected for agent in self._crew.of_pilot(self.id)):
            return False  # one came in the meantime
        if state in _SAID:
            said = f"the pilot's job {_SAID[state]}"
            if self._bye is not None:
                self._end_by_bye(self._bye)
            else:
                self._end(State.Failed, f"{said}: {message}" if message else said)
            return True
        if state != "active":  # it waits in a queue
            self._silent_since = None
            return False
        self._silent_since = self._silent_since or now
        if now - self._silent_since <= LOST_SECONDS:
            return False
        with contextlib.suppress(DosnaError):
            if native is not None:
                await _in_thread(self._launcher.cancel, native)
        said = "the pilot's agent does not answer"
        self._end(State.Failed, f"{said}: {message}" if message else said)
        return True

    async def _cancel(self) -> None:
        """Make the agents end their units, and then the job; kill it if this takes too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _END_SECONDS
        agents = self._crew.of_pilot(self.id)
        has_agent = any(agent.is_connected for agent in agents)
        for agent in agents:
            agent.send(kind="stop", reason="the pilot was canceled")
        while loop.time() < end and any(agent.is_connected for agent in agents):
            await asyncio.sleep(0.02)
        native = self._details.get("native")
        if native is not None and not (has_agent and self._bye is not None):
            try:
                await _in_thread(self._launcher.cancel, native)
            except DosnaError as error:
                self._end(State.Canceled, f"its job may still be there: {error}")
                return
        self._end(State.Canceled, "it was canceled")

    # --- the state ---

    def _note(self, **details: Any) -> None:
        self._details.update(details)
        self._session.store.update("pilots", self.id, details=self._details)

    def _set(self, state: State, reason: str) -> None:
        self._state = state
        self._session.set_state("pilots", self.id, state, reason)

    def _end(self, state: State, reason: str) -> None:
        self._end_is = state, reason

    def _is_told(self) -> bool:
        """Tell of the end; say whether the state has it."""
        state, reason = self._end_is
        try:
            # Whoever sees that it has ended also sees that its units wait again.
            self._released(self.id, reason, ())
            self._set(state, reason)
            self._ended(self.id)
        except DosnaError as error:
            _log.warning("pilot %s: %s", self.id, error)
            return False
        return True


async def _in_thread(call: Callable[..., _Any], *arguments: Any) -> _Any:
    """Run a blocking function in a thread; Python's own pool would end before `atexit`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Any] = loop.create_future()

    def set_result(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call(*arguments)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(set_result, result, error)

    threading.Thread(target=run, name="dosna.pilot.launching", daemon=True).start()
    return await future
