"""Pilots that end, and managers that are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pilot.test_units import MARK, marked, until
from support import HANG

from dosna.errors import LockError, StorageError
from dosna.pilot import ComputeDataService, PilotComputeService, State
from dosna.pilot.manager import Manager
from dosna.pilot.session import Session
from dosna.testing.timing import patience


def agents(pilot: Any) -> list[psutil.Process]:
    """Find the processes of a pilot's agent: its watcher, itself, and supervisors."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line and line[-1].endswith(f"{pilot.id}/agent.pyz") and "sh" not in line[0]:
            found.append(process)
    return found


def kind(process: psutil.Process, kind: str) -> bool:
    """Tell an agent (a child of its watcher) from a supervisor (its child)."""
    depth = 0
    parent = process.parent()
    while parent is not None and parent.cmdline()[-1:] == process.cmdline()[-1:]:
        if "sh" in Path(parent.cmdline()[0]).name:
            break
        depth, parent = depth + 1, parent.parent()
    return ["watcher", "agent", "supervisor"][min(depth, 2)] == kind


@pytest.mark.parametrize("killed", ["watcher", "agent", "supervisor"])
def test_units_of_a_killed_process_run_again(room: Any, killed: str, tmp_path: Path) -> None:
    pilot = room.pilot()
    script = f"test -e {tmp_path}/again || {{ setsid sleep 1000 & sleep 1000; }}"
    unit = room.unit("sh", "-c", script, environment=[f"{MARK}={killed}"])
    until(lambda: len(marked(killed)) >= 3)
    first = unit.get_details()["attempt"]
    (tmp_path / "again").touch()
    for process in [process for process in agents(pilot) if kind(process, killed)]:
        process.kill()
    if killed != "supervisor":
        room.pilot()
    assert unit.wait(timeout=HANG) == State.Done
    assert unit.get_details()["attempt"] != first
    until(lambda: not marked(killed))
    if killed != "supervisor":
        assert pilot.wait(timeout=HANG) == State.Failed
        assert "job" in pilot.get_details()["reason"]


def test_signals_that_reach_a_command_before_the_agent(room: Any) -> None:
    pilot = room.pilot(number_of_processes=1)
    unit = room.unit("sleep", "1000", environment=[f"{MARK}=signals"])
    until(lambda: unit.get_state() == State.Running)
    until(lambda: len(marked("signals")) == 1)
    # As who cancels a job of Slurm: all of its processes are signalled, one after the other.
    (command,) = marked("signals")
    others = [process for process in agents(pilot) if kind(process, "agent")]
    os.kill(command, signal.SIGTERM)
    time.sleep(0.3)
    for process in others:
        process.terminate()
    assert pilot.wait(timeout=100) == State.Failed
    assert unit.get_state() == State.New, unit.get_details()
    unit.cancel()


def test_walltime_ends_a_pilot(room: Any) -> None:
    pilot = room.pilot(walltime=patience(3) / 60)
    unit = room.unit("sleep", "1000", environment=[f"{MARK}=walltime"])
    assert pilot.wait(timeout=HANG) == State.Done
    assert "walltime" in pilot.get_details()["reason"]
    assert unit.get_state() == State.New
    assert "walltime" in unit.get_details()["reason"]
    assert not marked("walltime")


def test_canceled_pilot_gives_its_units_back(room: Any) -> None:
    pilot = room.pilot()
    unit = room.unit("sleep", "1000", environment=[f"{MARK}=canceled-pilot"])
    until(lambda: marked("canceled-pilot"))
    pilot.cancel()
    assert pilot.wait(timeout=HANG) == State.Canceled
    assert not marked("canceled-pilot")
    assert unit.get_state() == State.New
    unit.cancel()
    assert unit.wait(timeout=HANG) == State.Canceled


def test_pilot_that_cannot_start_fails(room: Any) -> None:
    pilot = room.pilot(python="/no/such/python")
    assert pilot.wait(timeout=HANG) == State.Failed
    assert "/no/such/python" in pilot.get_details()["reason"]


def test_pilot_on_a_full_disk_says_where_it_is(room: Any, small_disk: Path) -> None:
    with open(small_disk / "full", "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    pilot = room.pilot(working_directory=str(small_disk))
    assert pilot.wait(timeout=HANG) == State.Failed
    reason = pilot.get_details()["reason"]
    assert f"{small_disk}/{pilot.id} cannot be written: No space" in reason
    assert "Look at" not in reason
    assert os.listdir(small_disk / pilot.id) == []


def test_lock_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    session = Session(f"sqlite:///{tmp_path}/state.db")
    (tmp_path / "state.db.private" / "lock").mkdir(parents=True)
    with pytest.raises(StorageError, match="private/lock: Is a directory"):
        Manager(session)
    session.close()


def test_strangers_are_refused(room: Any) -> None:
    import socket
    import ssl

    pilot = room.pilot()
    until(lambda: pilot.get_state() == State.Running)
    manager = Manager.of(room.pilots._session)
    host, port = manager._crew._servers["127.0.0.1"].sockets[0].getsockname()
    context = ssl.create_default_context(cadata=manager._keys.certificate)
    context.check_hostname = False
    with (
        socket.create_connection((host, port), timeout=20) as plain,
        context.wrap_socket(plain) as link,
    ):
        hello = f'{{"kind": "hello", "pilot": "{pilot.id}", "agent": "x", "token": "no"'
        link.sendall(hello.encode() + b', "host": "x", "slots": 9, "attempts": []}\n')
        assert link.recv(100) == b""
    assert all(agent.name != "x" for agent in manager._crew.agents.values())


def test_one_manager_for_a_state(room: Any) -> None:
    other = Session(room.url)
    with pytest.raises(LockError, match=str(os.getpid())):
        Manager(other)
    other.close()


MANAGER = """
import sys, time
from dosna.pilot import ComputeDataService, PilotComputeService

url, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
pilots, units = PilotComputeService(url), ComputeDataService(url)
pilots.create_pilot(
    {"service_url": "fork://localhost", "working_directory": folder, "number_of_processes": 2}
)
script = 'echo "$DOSNA_PILOT_ATTEMPT" >> "$0"; while ! test -e go; do sleep 0.05; done'
for number in range(count):
    units.submit_compute_unit(
        {
            "executable": "sh",
            "arguments": ["-c", script, f"{folder}/{number}"],
            "working_directory": folder,
        }
    )
print("submitted", flush=True)
time.sleep(1000)
"""


def test_manager_that_was_killed_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    command = [sys.executable, "-c", textwrap.dedent(MANAGER), url, str(tmp_path), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"submitted\n"
        until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
        first.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    pilots, units = PilotComputeService(url), ComputeDataService(url)
    assert units.wait(timeout=HANG)
    states = {units.get_compute_unit(one).get_state() for one in units.list_compute_units()}
    assert states == {State.Done}
    # Those that were running have not been run again.
    assert all(len((tmp_path / str(number)).read_text().split()) == 1 for number in range(5))
    pilots.cancel()
    Manager.of(pilots._session).close()
