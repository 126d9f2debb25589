"""The connected agents, and the port to which they connect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dosna.pilot.keys import Keys

__all__ = ["Agent", "Assigned", "Crew"]

VERSION = 1
"""Of the messages between agents and managers."""
_QUIET_SECONDS = 60
LONGEST = 64 << 20
"""The largest message, in bytes."""
_GREETING = 4 << 20
"""The largest first message, whose sender is not known yet, in bytes."""
_PIECE = 1 << 20
_AHEAD_SECONDS, _MOST_AHEAD = 0.25, 32
"""For how long units are sent ahead, so that short ones do not wait for messages."""


@dataclass
class Assigned:
    """An attempt assigned to an agent, with what is needed when it ends."""

    attempt: str
    unit: str
    number: int
    slots: int
    retries: int
    details: dict[str, Any]
    before: int = 0
    """The attempts that were made before it."""
    is_started: bool = False
    started_at: float = 0.0


@dataclass
class Agent:
    """An agent, connected or recently lost.

    Attributes
    ----------
    assigned : dict
        Its attempts, by id.
    lost_at : float or None
        The time on the loop's clock when its connection was lost.
    unit_seconds : float
        The average run time of its last units.
    """

    pilot: str
    name: str
    host: str
    slots: int
    writer: asyncio.StreamWriter | None = None
    assigned: dict[str, Assigned] = field(default_factory=dict)
    is_draining: bool = False
    lost_at: float | None = None
    unit_seconds: float = 1.0

    @property
    def is_connected(self) -> bool:
        """True if messages reach it, as far as is known."""
        return self.writer is not None

    @property
    def room(self) -> int:
        """The number of processors for which it accepts units now, including some in advance."""
        if not self.is_connected or self.is_draining:
            return 0
        rounds = min(_MOST_AHEAD, int(_AHEAD_SECONDS / max(self.unit_seconds, 1e-3)))
        return max(0, self.slots * (1 + rounds) - self.occupied)

    @property
    def occupied(self) -> int:
        """The number of processors that its attempts occupy or wait for."""
        return sum(one.slots for one in self.assigned.values())

    def send(self, **message: Any) -> None:
        """Send a message, if it is connected."""
        self.send_all([message])

    def send_all(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Send messages together, if it is connected."""
        if self.writer is not None and not self.writer.is_closing():
            lines = [json.dumps(message).encode() + b"\n" for message in messages]
            if lines:
                self.writer.write(b"".join(lines))


class Crew:
    """The server for agents. All methods run in the manager's loop.

    Parameters
    ----------
    keys : Keys
        The keys that identify agents.
    joined : callable
        Called with an agent and its attempts; returns False if the pilot is unknown.
    said : callable
        Called with an agent and each of its messages.
    left : callable
        Called with an agent whose connection is lost.
    """

    def __init__(
        self,
        keys: Keys,
        joined: Callable[[Agent, list[str]], bool],
        said: Callable[[Agent, dict[str, Any]], None],
        left: Callable[[Agent], None],
    ) -> None:
        self._keys, self._joined, self._said, self._left = keys, joined, said, left
        self._servers: dict[str, asyncio.Server] = {}
        self._opening = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()
        self.agents: dict[tuple[str, str], Agent] = {}

    async def port(self, everywhere: bool) -> int:
        """Return the port to which agents connect, from this machine or from everywhere."""
        host = "0.0.0.0" if everywhere else "127.0.0.1"
        async with self._opening:
            if host not in self._servers:
                self._servers[host] = await asyncio.start_server(
                    self._serve, host, 0, ssl=self._keys.context(), limit=_PIECE
                )
        return int(self._servers[host].sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the port and all connections."""
        for server in self._servers.values():
            server.close()
        for writer in list(self._open):
            writer.close()
        end = asyncio.get_running_loop().time() + 5
        while self._open and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)

    def of_pilot(self, pilot: str) -> list[Agent]:
        """Return the agents of a pilot, including lost ones."""
        return [agent for agent in self.agents.values() if agent.pilot == pilot]

    def forget(self, agent: Agent) -> None:
        """Forget an agent that will not come back."""
        self.agents.pop((agent.pilot, agent.name), None)
        if agent.writer is not None:
            agent.writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent = None
        self._open.add(writer)
        try:
            agent = await self._greet(reader, writer)
            while agent is not None:
                message = await _read(reader, LONGEST)
                self._said(agent, message)
        except (OSError, ValueError, KeyError, TypeError, TimeoutError, EOFError):
            pass  # lost, or not an agent at all
        finally:
            self._open.discard(writer)
            writer.close()
            if agent is not None and agent.writer is writer:
                agent.writer = None
                agent.lost_at = asyncio.get_running_loop().time()
                self._left(agent)

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Agent | None:
        hello = await _read(reader, _GREETING)
        pilot, name = str(hello["pilot"]), str(hello["agent"])
        if not self._keys.is_token(pilot, hello.get("token")):
            return None
        if hello.get("version") != VERSION:
            reason = "the manager is of another version of dosna: start pilots anew"
            writer.write(json.dumps({"kind": "refused", "reason": reason}).encode() + b"\n")
            await writer.drain()
            return None
        agent = self.agents.get((pilot, name))
        if agent is None:
            agent = Agent(pilot, name, str(hello["host"]), int(hello["slots"]))
        elif agent.writer is not None:
            agent.writer.close()
        agent.writer, agent.lost_at = writer, None
        self.agents[pilot, name] = agent
        is_known = None
        try:
            is_known = self._joined(agent, list(hello["attempts"]))
        finally:
            if is_known is None:  # the state cannot be used now: it comes again
                agent.writer, agent.lost_at = None, asyncio.get_running_loop().time()
        if not is_known:
            agent.send(kind="refused")
            self.agents.pop((pilot, name), None)
            await writer.drain()
            return None
        return agent


async def _read(reader: asyncio.StreamReader, most: int) -> dict[str, Any]:
    pieces: list[bytes] = []
    async with asyncio.timeout(_QUIET_SECONDS):
        while not pieces or not pieces[-1].endswith(b"\n"):
            try:
                pieces.append(await reader.readuntil(b"\n"))
            except asyncio.LimitOverrunError as error:
                pieces.append(await reader.readexactly(error.consumed))
            if sum(map(len, pieces)) > most:
                raise ValueError("a message is too long")
    message = json.loads(b"".join(pieces))
    if not isinstance(message, dict):
        raise ValueError("a message is not a mapping")
    return message
