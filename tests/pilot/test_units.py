"""Compute units on a pilot of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import HANG

from dosna.errors import ConfigurationError, SourceNotFoundError
from dosna.pilot import State

MARK = f"DOSNA_TEST_MARK_{os.getpid()}"


def marked(mark: str) -> list[int]:
    """Find processes by a variable of their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def until(reached: Any, seconds: float = HANG) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_command_with_arguments_environment_and_streams(shared: Any) -> None:
    state, folder = shared.run(
        "sh",
        "-c",
        'printf "%s|" "$@"; echo to-error >&2',
        "sh",
        "two words",
        "$GREETING",
        "${GREETING}s",
        "$NOT_SET_AT_ALL",
        environment=["GREETING=good day", "OTHER=$GREETING!"],
        output="out.txt",
        error="err.txt",
    )
    assert state == State.Done
    assert (folder / "out.txt").read_text() == "two words|good day|good days|$NOT_SET_AT_ALL|"
    assert (folder / "err.txt").read_text() == "to-error\n"
    assert folder.name.startswith("sj-")
    assert folder.parent.name.startswith("bj-")


def test_input_and_working_directory(shared: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("some text")
    state, _ = shared.run("cat", working_directory=str(tmp_path), input="in.txt")
    assert state == State.Done
    assert (tmp_path / "stdout").read_text() == "some text"


def test_mpi(shared: Any) -> None:
    # mpiexec is found on PATH or beside the pilot's Python.
    script = "from mpi4py import MPI; w = MPI.COMM_WORLD; print(w.allreduce(w.rank), w.size)"
    state, folder = shared.run(
        sys.executable, "-c", script, number_of_processes=2, spmd_variation="mpi"
    )
    assert state == State.Done, (folder / "stderr").read_text()
    assert (folder / "stdout").read_text().splitlines() == ["1 2", "1 2"]


def test_variables_for_open_mpi(shared: Any, tmp_path: Path) -> None:
    # Open MPI itself is not on machines that run the tests; units ran under its release 4.1.4.
    launcher = tmp_path / "mpiexec"
    names = ["OMPI_MCA_ras", "OMPI_MCA_hwloc_base_binding_policy"]
    launcher.write_text(f"#!/bin/sh\nprintenv {' '.join(names)}\n")
    launcher.chmod(0o755)
    own = [f"PATH={tmp_path}:{os.environ['PATH']}", f"{names[1]}=core"]
    state, folder = shared.run("true", spmd_variation="mpi", environment=own)
    assert state == State.Done
    assert (folder / "stdout").read_text() == "^slurm\ncore\n"


@pytest.mark.parametrize(
    ("command", "noun"),
    [
        (["sh", "-c", "echo why it fails >&2; exit 3"], "exit code 3: why it fails"),
        (["/no/such/program"], "/no/such/program"),
        (["sh", "-c", "kill -9 $$"], "SIGKILL"),
    ],
)
def test_failing_command(shared: Any, command: list[str], noun: str) -> None:
    unit = shared.unit(*command)
    assert unit.wait(timeout=HANG) == State.Failed
    assert noun in unit.get_details()["reason"]


def test_walltime_of_a_unit(shared: Any) -> None:
    unit = shared.unit("sleep", "1000", walltime=0.001, environment=[f"{MARK}=unit-walltime"])
    assert unit.wait(timeout=HANG) == State.Failed
    assert "walltime" in unit.get_details()["reason"]
    assert not marked("unit-walltime")


def test_full_disk(shared: Any) -> None:
    unit = shared.unit("sh", "-c", "echo text || exit 9", output="/dev/full")
    assert unit.wait(timeout=HANG) == State.Failed
    assert "exit code 9" in unit.get_details()["reason"]


def test_unit_is_run_again_as_another_attempt(shared: Any, tmp_path: Path) -> None:
    script = 'echo "$DOSNA_PILOT_ATTEMPT" >> log; test "$(wc -l < log)" -ge 3'
    unit = shared.unit("sh", "-c", script, working_directory=str(tmp_path), retries=2)
    assert unit.wait(timeout=HANG) == State.Done
    details = unit.get_details()
    attempts = (tmp_path / "log").read_text().split()
    assert len(set(attempts)) == 3
    assert attempts[-1] == details["attempt"]
    assert details["attempts"] == 3
    assert len(details["reasons"]) == 2


def test_nothing_of_a_unit_outlives_it(shared: Any) -> None:
    script = "setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000 & :"
    state, folder = shared.run("sh", "-c", script, environment=[f"{MARK}={id(script)}"])
    assert state == State.Done, folder
    assert not marked(str(id(script)))


def test_cancel_ends_all_that_a_unit_has_started(shared: Any) -> None:
    script = "trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000 & wait"
    unit = shared.unit("sh", "-c", script, environment=[f"{MARK}=canceled"])
    until(lambda: len(marked("canceled")) == 3)
    until(lambda: unit.get_state() == State.Running)
    assert unit.wait(timeout=0.01) == State.Running
    unit.cancel()
    assert unit.wait(timeout=HANG) == State.Canceled
    assert not marked("canceled")


def test_dependants_are_told(shared: Any) -> None:
    first = shared.unit("sh", "-c", "exit 5")
    second = shared.unit("true", depends_on=[first.get_url()])
    third = shared.unit("true", depends_on=[second.get_url()])
    assert third.wait(timeout=HANG) == State.Failed
    assert "exit code 5" in second.get_details()["reason"]
    assert second.id in third.get_details()["reason"]
    done = shared.unit("true")
    assert shared.unit("true", depends_on=[done.get_url()]).wait(timeout=HANG) == State.Done


def test_unit_of_an_unknown_data_unit_fails(shared: Any) -> None:
    unit = shared.unit("true", input_data=["du-unknown"])
    assert unit.wait(timeout=HANG) == State.Failed
    assert "du-unknown" in unit.get_details()["reason"]


def test_units_wait_for_a_pilot(room: Any) -> None:
    unit = room.unit("true")
    assert not room.units.wait(timeout=0.05)
    assert unit.get_state() == State.New
    pilot = room.pilot()
    assert room.units.wait(timeout=HANG)
    assert pilot.get_state() == State.Running
    assert room.pilots.list_pilots() == [pilot.get_url()]
    assert room.units.list_compute_units() == [unit.get_url()]
    again = room.units.get_compute_unit(unit.get_url())
    assert again.get_state() == State.Done


def test_label_decides_where_a_unit_runs(room: Any) -> None:
    room.pilot(affinity_datacenter_label="europe/one")
    other = room.pilot(affinity_datacenter_label="europe/two")
    for url in room.pilots.list_pilots():
        until(lambda url=url: room.pilots.get_pilot(url).get_state() == State.Running)
    units = [room.unit("true", affinity_datacenter_label="europe/two") for _ in range(6)]
    assert room.units.wait(timeout=HANG)
    assert {unit.get_details()["pilot"] for unit in units} == {other.id}
    assert units[0].get_details()["placement"]


def test_what_is_refused(shared: Any) -> None:
    with pytest.raises(ConfigurationError, match="kind"):
        shared.pilot("carrier-pigeon://localhost")
    with pytest.raises(ConfigurationError, match="host"):
        shared.pilot("ssh://")
    with pytest.raises(ConfigurationError, match="program"):
        shared.units.submit_compute_unit({"program": "true"})
    with pytest.raises(SourceNotFoundError, match="cu-none"):
        shared.units.get_compute_unit("cu-none").get_state()


def test_what_others_may_read_has_no_token(shared: Any) -> None:
    assert shared.run("true")[0] == State.Done
    token = (shared.folder / shared.unit("true").get_details().get("pilot", "")).is_dir()
    assert token
    for path in shared.folder.rglob("*"):
        if path.name in ("agent.json", "manager.json", "manager.pem"):
            assert path.stat().st_mode & 0o077 == 0
    secret = "PRIVATE KEY"
    assert secret not in str((shared.folder / "state.db").read_bytes())
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # what ran the unit ends meanwhile
            assert "token" not in " ".join(process.cmdline())


def test_what_a_unit_waits_for(room: Any) -> None:
    unit = room.unit("true", number_of_processes=3)
    assert "no pilot" in unit.get_details()["waits_for"]
    room.pilot()
    first = room.unit("true")
    assert first.wait(timeout=HANG) == State.Done
    assert "waits_for" not in first.get_details()
    told = unit.get_details()["waits_for"]
    assert "3 processors" in told
    assert "the most are 2" in told
    assert "srun" not in told
    wide = room.unit("true", number_of_processes=3, spmd_variation="mpi")
    assert "srun" in wide.get_details()["waits_for"]
    wide.cancel()
    assert wide.wait(timeout=HANG) == State.Canceled
    other = room.unit("true", depends_on=[unit.get_url()])
    assert unit.id in other.get_details()["waits_for"]
    from dosna.pilot.report import status

    waiting = status(room.pilots._session)["waiting"]
    assert {row["id"] for row in waiting} == {unit.id, other.id}
    room.units.cancel()
    assert other.get_state() == State.Canceled


def test_labels_may_be_none(room: Any) -> None:
    room.pilot(affinity_datacenter_label=None)
    unit = room.unit("true", affinity_datacenter_label=None, affinity_machine_label="x")
    assert unit.wait(timeout=HANG) == State.Done
    assert "no pilot has the label" in unit.get_details()["placement"]
    with pytest.raises(ConfigurationError, match="affinity_machine_label"):
        room.unit("true", affinity_machine_label=5)


ENDED_BY_A_SIGNAL = """
import json, os, signal, sys
from dosna.pilot.agent import supervisor

folder, code, canceled = sys.argv[1:]
own = supervisor._Supervisor(folder, 1, 0)
own._command = lambda begun: int(code)
supervisor._SIGNALS_SECONDS = 0
if canceled == "canceled":
    supervisor.time.sleep = lambda seconds: signal.raise_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, own._canceled)
unit = {"executable": "x", "working_directory": "", "error": "", "output": ""}
own._do({"attempt": "sj-1", "unit": unit, "permit": 1})
"""


@pytest.mark.parametrize("code", [-15, 143])
@pytest.mark.parametrize("canceled", ["canceled", "alone"])
def test_a_command_that_is_signalled_before_its_supervisor(
    tmp_path: Path, code: int, canceled: str
) -> None:
    # As by `scancel`, which signals all processes of a job one after the other.
    command = [sys.executable, "-c", ENDED_BY_A_SIGNAL, str(tmp_path), str(code), canceled]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    started, ended = map(json.loads, done.stdout.splitlines())
    assert started == {"started": "sj-1"}
    assert ended.get("canceled", False) == (canceled == "canceled")
    assert ended["code"] == (None if canceled == "canceled" else code)


def test_output_and_error_in_one_file(shared: Any) -> None:
    script = "for n in 1 2 3; do echo out$n; echo err$n >&2; done"
    state, folder = shared.run("sh", "-c", script, output="log", error="log")
    assert state == State.Done
    assert (folder / "log").read_text().split() == [
        f"{name}{number}" for number in (1, 2, 3) for name in ("out", "err")
    ]


def test_unforeseen_errors_of_staging_hold_no_credentials(tmp_path: Path) -> None:
    from dosna.pilot.agent.supervisor import _Supervisor

    found = _Supervisor(str(tmp_path), 1, 0)
    found.unit = {"working_directory": ""}
    request = {"data_unit": "du-1", "place": {}, "files": [{"name": {"my-password": 1}}]}
    with pytest.raises(RuntimeError) as caught:
        found._stage("stage_in", [request])
    assert "Error" in str(caught.value)
    assert "my-password" not in str(caught.value)
