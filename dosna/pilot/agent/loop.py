"""The agent's loop: it receives units, starts their supervisors, and sends results back."""

from __future__ import annotations

import collections
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from .link import Link, LinkLostError
from .processes import become_subreaper, children_of, end_children, signal_when_parent_ends
from .supervisor import prepare
from .supervisors import Supervisor, may_go_ahead, slots_of

__all__ = ["Agent", "main"]

_PING = 10.0
_VERSION = 1
_RETURN_SECONDS = 2.0
"""After which attempts that have not begun go back to the manager, for other pilots."""


class Agent:
    """The agent, which runs units on one node of a pilot.

    Parameters
    ----------
    folder : str
        Of the pilot.
    options : dict
        ``pilot``, ``slots``, ``seconds`` (its walltime, 0 is none), ``patience`` (the seconds for
        which it looks for a lost manager), ``drain_every`` (the seconds after which it looks
        whether its node is drained).
    """

    def __init__(self, folder: str, options: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        # Containers of one name may have processes of one number.
        self.name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self.link = Link(folder)
        self.waiting: collections.deque[dict[str, Any]] = collections.deque()
        self.supervisors: list[Supervisor] = []
        self.to_cancel: set[str] = set()
        self.unsent: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}  # until the manager has them in its state
        self.selector = selectors.DefaultSelector()
        self.is_ending = False
        self.reason = self.signalled = ""
        self.ends_at = time.monotonic() + options["seconds"] if options["seconds"] else None
        self.lost_at = time.monotonic()
        self.retry_at = 0.0
        self.look_at = time.monotonic()
        self.wakeup, wakes = socket.socketpair()
        self.wakeup.setblocking(False)
        wakes.setblocking(False)
        self._wakes = wakes
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        self.selector.register(self.wakeup, selectors.EVENT_READ, "wakeup")

    def _signalled(self, number: int, frame: object) -> None:
        # The loop may be interrupted at any point.
        self.signalled = self.signalled or signal.Signals(number).name

    def run(self) -> None:
        """Work until the manager, a signal, the walltime, or a lost manager ends the pilot."""
        become_subreaper()
        while not (self.is_ending and not self._is_busy()):
            self._keep_link()
            for key, _ in self.selector.select(self._pause()):
                if key.data == "link":
                    self._receive()
                elif key.data == "wakeup":
                    self.wakeup.recv(4096)
                else:
                    self._read_results(key.data)
            self._tidy()
            self._look_at_time()
            self._send()
        self._say({"kind": "bye", "reason": self.reason})
        self._send()
        self.link.close()
        end_children()

    def end(self, reason: str) -> None:
        """Accept no more units, end running ones, and then end."""
        if not self.is_ending:
            self.is_ending, self.reason = True, reason
            self.waiting.clear()
            for one in self.supervisors:
                one.end("")

    def drain(self, reason: str) -> None:
        """Accept no more units, and end when the running ones have ended."""
        if not self.is_ending:
            self.is_ending, self.reason = True, reason
            self.waiting.clear()
            for one in self.supervisors:
                one.take_back()
                one.close()
            kept = [one["attempt"] for one in self._attempts()]
            self._say({"kind": "draining", "reason": reason, "attempts": kept})

    # --- the manager ---

    def _keep_link(self) -> None:
        now = time.monotonic()
        if self.link.is_open:
            if self.link.quiet_seconds > _PING:
                self._say({"kind": "ping"})
            return
        if now - self.lost_at > self.options["patience"]:
            self.end("the pilot found no manager")
        if now < self.retry_at:
            return
        self.retry_at = now + 1
        known = [*self.results, *(one["attempt"] for one in self._attempts())]
        hello = {
            "kind": "hello",
            "version": _VERSION,
            "pilot": self.options["pilot"],
            "agent": self.name,
            "host": socket.gethostname(),
            "slots": self.options["slots"],
            "attempts": known,
        }
        try:
            self.link.open(hello)
            self.selector.register(self.link, selectors.EVENT_READ, "link")
            for one in self.supervisors:
                if one.begun:  # it may not know yet
                    self._say({"kind": "started", "attempt": one.begun})
            for result in list(self.results.values()):
                self._say({"kind": "ended", **result})
        except (LinkLostError, OSError, ValueError):
            self._lost()

    def _say(self, message: dict[str, Any]) -> None:
        """Send a message together with the others of this iteration of the loop."""
        if self.link.is_open:
            self.unsent.append(message)

    def _send(self) -> None:
        messages, self.unsent = self.unsent, []
        if self.link.is_open and messages:
            try:
                self.link.send(*messages)
            except LinkLostError:
                self._lost()

    def _lost(self) -> None:
        for key in list(self.selector.get_map().values()):
            if key.data == "link":
                self.selector.unregister(key.fileobj)
        self.link.close()
        self.unsent.clear()
        self.lost_at = time.monotonic()

    def _receive(self) -> None:
        try:
            messages = self.link.receive()
        except (LinkLostError, ValueError):
            self._lost()
            return
        for message in messages:
            kind = message["kind"]
            if kind == "run":
                self._take(message)
            elif kind == "recorded":
                for attempt in message["attempts"]:
                    self.results.pop(attempt, None)
            elif kind == "cancel":
                self._cancel_by_name(message["attempt"])
            elif kind == "stop":
                self.end(message["reason"])
            elif kind == "refused":
                self.end(message.get("reason") or "the manager does not know this pilot")
        self._start_waiting()

    # --- units ---

    def _attempts(self) -> list[dict[str, Any]]:
        given = [message for one in self.supervisors for message in one.attempts]
        return [*given, *self.waiting]

    def _is_busy(self) -> bool:
        return any(one.attempts for one in self.supervisors)

    def _take(self, message: dict[str, Any]) -> None:
        name = message["attempt"]
        if self.is_ending or name in self.results:
            return
        if all(one["attempt"] != name for one in self._attempts()):
            self.waiting.append({**message, "came": time.monotonic()})

    def _start_waiting(self) -> None:
        """Give attempts to idle supervisors, or to new ones, and one more to busy ones."""
        free = self.options["slots"] - sum(one.slots for one in self.supervisors)
        if free > len(self.waiting):
            # Better than behind one that may take long.
            self.waiting.extend(filter(None, [one.take_back() for one in self.supervisors]))
        while self.waiting and free >= slots_of(self.waiting[0]):
            message = self.waiting.popleft()
            free -= slots_of(message)
            idle = [one for one in self.supervisors if not (one.attempts or one.is_closed)]
            try:
                supervisor = idle[0] if idle else self._new_supervisor(message)
            except OSError as error:
                reason = f"no process can be started: {error.strerror}"
                self._ended({"attempt": message["attempt"], "code": None, "reason": reason})
                continue
            supervisor.give(message)
        for supervisor in self.supervisors:
            if self.waiting and supervisor.takes_one_more and may_go_ahead(self.waiting[0]):
                supervisor.give(self.waiting.popleft())

    def _new_supervisor(self, message: dict[str, Any]) -> Supervisor:
        prepare(message)
        supervisor = Supervisor(self.folder)
        self.supervisors.append(supervisor)
        self.selector.register(supervisor.told, selectors.EVENT_READ, supervisor)
        return supervisor

    def _cancel_by_name(self, name: str) -> None:
        for supervisor in self.supervisors:
            names = [message["attempt"] for message in supervisor.attempts]
            if name not in names:
                continue
            if name in names[1:] and supervisor.begun != name:
                if supervisor.take_back() is not None:
                    self._ended(_canceled(name))
                else:  # it begins, or the one before it
                    self.to_cancel.add(name)
            else:
                supervisor.end(name)
        for message in list(self.waiting):
            if message["attempt"] == name:
                self.waiting.remove(message)
                self._ended(_canceled(name))

    def _read_results(self, supervisor: Supervisor) -> None:
        got = os.read(supervisor.told, 1 << 16)
        *lines, supervisor.received = (supervisor.received + got).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                supervisor.begun, supervisor.begun_at = message["started"], time.monotonic()
                self._say({"kind": "started", "attempt": supervisor.begun})
                continue
            name, supervisor.begun = message["attempt"], ""
            if message.get("canceled"):
                # If this attempt was not meant, but the pilot, or one that has just ended.
                reason = self.reason or "its supervisor was ended"
                lost = {**message, "lost": True, "reason": reason}
                message = supervisor.result_of_ended(name) or lost
            supervisor.attempts = [one for one in supervisor.attempts if one["attempt"] != name]
            self._ended(message)
        if not got:
            self._bury(supervisor)
        asked, self.to_cancel = self.to_cancel, set()
        for name in asked:
            self._cancel_by_name(name)
        self._start_waiting()

    def _bury(self, supervisor: Supervisor) -> None:
        """Remove a supervisor that has ended; attempts that it has not started go elsewhere."""
        self.selector.unregister(supervisor.told)
        supervisor.close()
        for number in (supervisor.told, *supervisor.permits):
            os.close(number)
        os.waitpid(supervisor.pid, 0)
        self.supervisors.remove(supervisor)
        for message in supervisor.attempts:
            name = message["attempt"]
            ended = supervisor.result_of_ended(name)
            if ended is not None:
                self._ended(ended)
            elif not self.is_ending and supervisor.kill_at:
                self.waiting.appendleft(message)
            else:
                reason = self.reason or "its supervisor was killed"
                self._ended({"attempt": name, "code": None, "reason": reason, "lost": True})

    def _ended(self, result: dict[str, Any]) -> None:
        self.results[result["attempt"]] = result
        self._say({"kind": "ended", **result})

    # --- what time brings ---

    def _pause(self) -> float:
        return 0.2 if self.is_ending or not self.link.is_open else 1.0

    def _tidy(self) -> None:
        """Kill processes that a killed supervisor has left, and supervisors that do not end."""
        own = {one.pid for one in self.supervisors}
        if any(pid not in own for pid in children_of(os.getpid())):
            end_children(spare=own)
        now = time.monotonic()
        for one in self.supervisors:
            if one.kill_at and now > one.kill_at:
                os.kill(one.pid, signal.SIGKILL)

    def _look_at_time(self) -> None:
        now = time.monotonic()
        self._return_late(now)
        for one in self.supervisors:
            one.end_overdue(now)
        if self.signalled:
            self.end(f"the pilot's job got {self.signalled}")
        if self.ends_at is not None and now > self.ends_at:
            self.end("the pilot's walltime has ended")
        if now > self.look_at and "SLURMD_NODENAME" in os.environ:
            self.look_at = now + self.options["drain_every"]
            reason = _drained(os.environ["SLURMD_NODENAME"])
            if reason:
                self.drain(f"the pilot's node is drained: {reason}")

    def _return_late(self, now: float) -> None:
        """Give attempts back that wait behind others that take long."""
        if not self.link.is_open or self.is_ending:
            return
        late = [one for one in self.waiting if now - one["came"] > _RETURN_SECONDS]
        for message in late:
            self.waiting.remove(message)
        for one in self.supervisors:
            if len(one.attempts) == 2 and now - one.attempts[1]["came"] > _RETURN_SECONDS:
                late.extend(filter(None, [one.take_back()]))
        if late:
            self._say({"kind": "returned", "attempts": [one["attempt"] for one in late]})


def _canceled(name: str) -> dict[str, Any]:
    return {"attempt": name, "code": None, "reason": "it was canceled", "canceled": True}


def _drained(node: str) -> str:
    """Return the reason for which a Slurm node is drained; empty if it is not."""
    command = ["sinfo", "-h", "-N", "-n", node, "-o", "%T|%E"]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    state, _, reason = asked.stdout.decode(errors="replace").strip().partition("|")
    return (reason or state) if state.startswith(("drain", "down", "fail")) else ""


def main() -> None:
    """Run the agent of the folder that contains the archive."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    with open(os.path.join(folder, "agent.json")) as file:
        options = json.load(file)["options"]
    os.chdir(folder)
    if options.get("apart"):
        os.setpgid(0, 0)  # Ctrl-C in the manager's program is not meant for its pilots
    watcher = os.getpid()
    agent = os.fork()
    if not agent:
        signal_when_parent_ends(signal.SIGTERM, watcher)
        Agent(folder, options).run()
        return
    sys.exit(_watch(agent))


def _watch(agent: int) -> int:
    """Wait for the agent, and kill what outlives it, if supervisors were killed with it."""
    become_subreaper()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(agent, number))
    while True:
        pid, status = os.wait()
        if pid == agent:
            break
    # Supervisors end by themselves after their agent, and still write their results.
    time.sleep(0.5)
    end_children()
    return os.waitstatus_to_exitcode(status) & 0xFF
