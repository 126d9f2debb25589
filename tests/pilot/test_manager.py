"""The manager while its state, its agents or its own process have troubles."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pilot.test_units import MARK, marked, until
from support import HANG

from dosna.errors import ConfigurationError, LockError, StorageError
from dosna.pilot import State, manager, pilots
from dosna.pilot.manager import Manager
from dosna.pilot.session import Session
from dosna.pilot.store import StateStore
from dosna.testing.timing import patience


def fail_once(monkeypatch: pytest.MonkeyPatch, one: Any, name: str, error: Exception) -> list[Any]:
    """Let the next call of a method fail; give a list that has it then."""
    called: list[Any] = []
    right = getattr(one, name)

    def method(*arguments: Any, **named: Any) -> Any:
        if called:
            return right(*arguments, **named)
        called.append((arguments, named))
        raise error

    monkeypatch.setattr(one, name, method)
    return called


def test_assignments_that_could_not_be_written_are_told_later(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = room.pilot()
    until(lambda: pilot.get_state() == State.Running)
    time.sleep(0.1)
    manager = Manager.of(room.pilots._session)
    unit = room.unit("true")
    ledger = manager._scheduler.ledger
    right = ledger.flush
    failed = []

    def flush() -> bool:
        if ledger._rows and not failed:
            failed.append(True)
            raise StorageError("the state has no room")
        return right()

    monkeypatch.setattr(ledger, "flush", flush)
    other = room.unit("true")
    assert unit.wait(timeout=HANG) == other.wait(timeout=HANG) == State.Done
    assert failed


@pytest.mark.parametrize("error", [StorageError("the state is gone"), RuntimeError("unforeseen")])
@pytest.mark.parametrize("name", ["_adopt_pilots", "_do_what_is_wanted"])
def test_errors_do_not_end_the_manager(
    room: Any, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    manager = Manager.of(room.pilots._session)
    called = fail_once(monkeypatch, manager, name, error)
    room.pilot()
    assert room.unit("true").wait(timeout=HANG) == State.Done
    assert called


def test_end_of_a_pilot_is_written_later(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot = room.pilot()
    unit = room.unit("sleep", "1000")
    until(lambda: unit.get_state() == State.Running)
    watched = Manager.of(room.pilots._session)._pilots[pilot.id]
    called = fail_once(monkeypatch, watched, "_set", StorageError("the state has no room"))
    pilot.cancel()
    assert pilot.wait(timeout=HANG) == State.Canceled
    assert called
    assert unit.get_state() == State.New
    unit.cancel()


def test_waiting_bears_a_state_out_of_reach(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = room.unit("true")
    room.pilot()
    called = fail_once(monkeypatch, unit, "get_state", StorageError("it is started again"))
    assert unit.wait(timeout=HANG) == State.Done
    assert called


def test_units_of_a_lost_node_go_to_the_others(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot = room.pilot(number_of_processes=1)
    until(lambda: pilot.get_state() == State.Running)
    folder = room.folder / pilot.id
    # As on the second node of a job.
    other = subprocess.Popen([sys.executable, folder / "agent.pyz"])
    manager = Manager.of(room.pilots._session)
    until(lambda: len(manager._crew.of_pilot(pilot.id)) == 2)
    script = f"while ! test -e {folder}/again; do sleep 0.05; done"
    units = [room.unit("sh", "-c", script, environment=[f"{MARK}=lost-node"]) for _ in range(2)]
    until(lambda: len(marked("lost-node")) >= 2)
    until(lambda: all(unit.get_state() == State.Running for unit in units))
    monkeypatch.setattr(pilots, "LOST_SECONDS", 0.5)
    # The agent first: when its watcher ends, it would take leave.
    watcher = psutil.Process(other.pid)
    for process in [*watcher.children(True), watcher]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    other.wait()
    until(lambda: any(unit.get_state() == State.New for unit in units))
    (folder / "again").touch()
    assert all(unit.wait(timeout=HANG) == State.Done for unit in units)
    reasons = [reason for unit in units for reason in unit.get_details().get("reasons", [])]
    assert len(reasons) == 1
    assert "does not answer" in reasons[0]
    assert pilot.get_state() == State.Running


def test_units_of_an_agent_that_did_not_come_back(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = room.pilot()
    until(lambda: pilot.get_state() == State.Running)
    session = room.pilots._session
    Manager.of(session).close()
    # In which the agent that is there comes back.
    monkeypatch.setattr(pilots, "LOST_SECONDS", patience(2))
    unit = room.units._shared  # the manager of this state is made again by what follows
    description = {"executable": "true"}
    from dosna.pilot import ComputeUnitDescription

    fields = ComputeUnitDescription.of(description).fields()
    row = {"id": "cu-1", "number": 1, "description": fields, "state": "Running"}
    unit.store.add("compute_units", [{**row, "pilot": pilot.id, "attempt": "sj-1", "attempts": 1}])
    ghost = {"compute_unit": "cu-1", "pilot": pilot.id, "details": {"agent": "ghost"}}
    unit.store.add("attempts", [{"id": "sj-1", "state": "Running", **ghost}])
    assert room.units.wait(timeout=HANG)
    assert room.units.get_compute_unit("cu-1").get_details()["attempts"] == 2


def test_unit_that_was_canceled_while_there_was_no_manager(room: Any) -> None:
    room.pilot()
    unit = room.unit("sleep", "1000", environment=[f"{MARK}=no-manager"])
    until(lambda: unit.get_state() == State.Running)
    session = room.pilots._session
    Manager.of(session).close()
    session.store.update("compute_units", unit.id, wanted="Canceled")
    Manager.of(session)
    assert unit.wait(timeout=HANG) == State.Canceled
    until(lambda: not marked("no-manager"))
    assert room.unit("true").wait(timeout=HANG) == State.Done
    assert unit.get_state() == State.Canceled


PROGRAM = """
import os, signal, sys, time
from dosna.pilot import ComputeDataService, PilotComputeService

os.chdir(sys.argv[1])
pilots, units = PilotComputeService("sqlite:///state.db"), ComputeDataService("sqlite:///state.db")
os.mkdir("elsewhere")
os.chdir("elsewhere")
pilot = pilots.create_pilot({"service_url": "fork://localhost", "working_directory": sys.argv[1]})
while pilot.get_state() != "Running":
    time.sleep(0.05)
child = os.fork()
if not child:
    sys.exit(0)  # and what is to be done at exit
os.waitpid(child, 0)
try:
    os.killpg(0, signal.SIGINT)  # as Ctrl-C does
    time.sleep(1)
except KeyboardInterrupt:
    pass
time.sleep(1)
unit = units.submit_compute_unit({"executable": "true"})
print(unit.wait(timeout=100), pilot.get_state())
"""


def test_children_interrupts_and_folders_of_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG, start_new_session=True
    )
    assert done.stdout == "Done Running\n", done.stderr
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_state_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        StateStore(url)


def end_connections(url: str) -> None:
    """End all connections to a database of PostgreSQL."""
    import psycopg

    end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute(f"{end} and datname = current_database()")


def holders(url: str) -> set[int]:
    """Return the connections that have locked a database of PostgreSQL: one or none."""
    import psycopg

    find = "select l.pid from pg_locks l join pg_database d on d.oid = l.database"
    find += " where locktype = 'advisory' and datname = current_database()"
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        return {pid for (pid,) in other.execute(find)}


def test_server_that_has_closed_its_connections(postgres: str) -> None:
    session = Session(postgres)
    store = session.store
    store.add("compute_units", [{"id": "cu-1", "number": 1}])
    end_connections(postgres)
    assert store.count("compute_units") == 1
    # What was written before a connection was lost is written again.
    rows = {"attempts": [{"id": "sj-1", "compute_unit": "cu-1", "pilot": "bj-1"}]}
    for _ in range(2):
        store.write(rows=rows, changes=[("compute_units", "cu-1", {"state": "Running"})])
    assert store.count("attempts") == 1
    session.close()


def test_managers_of_two_machines(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "LET_GO_SECONDS", 0.2)
    # The folder of what is not in the state is another one on another machine.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    first = Session(postgres.replace("+psycopg", ""))
    ousted = Manager.of(first)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    second = Session(postgres)
    mine = f"{socket.gethostname()}:{os.getpid()} manages it"
    with pytest.raises(LockError, match=mine):
        Manager.of(second)
    # A manager that loses its connection takes the lock again.
    before = holders(postgres)
    end_connections(postgres)
    until(lambda: holders(postgres) - before)
    with pytest.raises(LockError, match=mine):
        Manager.of(second)
    # If another one is faster, it ends.
    until(lambda: end_connections(postgres) or not second.store.hold("another host"))
    until(lambda: not ousted._thread.is_alive())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    with pytest.raises(LockError, match="another host manages it"):
        Manager.of(first)
    second.store.let_go()
    monkeypatch.setattr(manager, "LET_GO_SECONDS", 100.0)
    Manager.of(first).close()
    first.close()
    second.close()


def test_nothing_is_written_once_another_manager_has_the_lock(postgres: str) -> None:
    first, second = StateStore(postgres), StateStore(postgres)
    first.add("compute_units", [{"id": "cu-1", "number": 1}])
    assert not first.hold("first")
    end_connections(postgres)
    first.update("compute_units", "cu-1", state="Running")
    assert second.hold("second") == "first"
    until(lambda: end_connections(postgres) or not second.hold("second"))
    for _ in range(2):
        with pytest.raises(StorageError, match="second manages it now"):
            first.update("compute_units", "cu-1", state="Done")
    second.let_go()
    first.update("compute_units", "cu-1", reason="it has the lock again")
    assert second.hold("second") == "first"
    first.let_go()
    row = second.get("compute_units", "cu-1")
    assert row is not None
    assert row["state"] == "Running"
    first.close()
    second.close()


def test_forked_process_has_connections_of_its_own(postgres: str) -> None:
    session = Session(postgres)
    session.store.add("compute_units", [{"id": "cu-1", "number": 1}])
    assert not session.store.hold("the parent")
    with session.store.change():  # another thread may be in the middle of this
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                session.store.update("compute_units", "cu-1", state="Running")
                code = 0 if session.store.hold("a child") == "the parent" else 2
                gc.collect()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session.store.get("compute_units", "cu-1")["state"] == "Running"  # type: ignore[index]
    assert not session.store.hold("the parent")
    session.close()
