"""Units while pilots, agents, supervisors and the manager are killed at random."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pilot.test_pilots import agents
from pilot.test_units import MARK, marked
from support import require

UNITS = """
import sys, time
from dosna.pilot import ComputeDataService, PilotComputeService, PilotDataService

url, folder, count, mark = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
pilots, units = PilotComputeService(url), ComputeDataService(url)
stores = PilotDataService(url)
store = stores.create_pilot({"service_url": f"file://{folder}/store"})
if not units.list_compute_units():
    # Of each unit an output of 300 lines, and one that names the attempt; a setsid child stays.
    script = (
        'setsid sleep 1000 & seq 1 300 > whole.txt; sleep 0.1;'
        'echo "$DOSNA_PILOT_ATTEMPT" > by.txt; test $0 -lt 190 || exit 7'
    )
    for number in range(count):
        output = store.submit_data_unit({"file_urls": [], "name": str(number)})
        units.submit_compute_unit(
            {
                "executable": "sh",
                "arguments": ["-c", script, str(number * 200 // count)],
                "environment": [mark],
                "output_data": [{output.get_url(): ["*.txt"]}],
                "retries": 1,
                "name": str(number),
            }
        )
print("ready", flush=True)
while not units.wait(timeout=1):
    running = [pilots.get_pilot(one).get_state() for one in pilots.list_pilots()]
    for _ in range(2 - sum(not state.is_final for state in running)):
        pilots.create_pilot(
            {"service_url": "fork://localhost", "number_of_processes": 2,
             "working_directory": folder}
        )
pilots.cancel()
print("done", flush=True)
"""


class _Pilot:
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "kills"), [(16, 4), pytest.param(200, 40, marks=pytest.mark.fault)]
)
def test_every_unit_ends_and_nothing_is_left(tmp_path: Path, count: int, kills: int) -> None:
    for package in ("psij", "fsspec", "cryptography"):
        require(package)
    url, mark = f"sqlite:///{tmp_path}/state.db", f"faults-{os.getpid()}-{count}"
    command = [sys.executable, "-c", UNITS, url, str(tmp_path), str(count), f"{MARK}={mark}"]
    chance = random.Random(count)
    manager = start(command)
    for _ in range(kills):
        time.sleep(chance.uniform(0.2, 1.5))
        if chance.random() < 0.2:
            manager.send_signal(signal.SIGKILL)
            manager.communicate()
            manager = start(command)
        else:
            kill_one(tmp_path, chance)
    out, _ = manager.communicate(timeout=1000)
    assert b"done" in out
    check(url, tmp_path, count)
    end = time.monotonic() + 60
    while marked(mark):
        assert time.monotonic() < end
        time.sleep(0.1)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill_one(folder: Path, chance: random.Random) -> None:
    """Kill a watcher, an agent or a supervisor of a pilot."""
    found = [process for path in folder.glob("bj-*") for process in agents(_Pilot(path.name))]
    if found:
        with contextlib.suppress(psutil.Error):  # it has just ended
            chance.choice(found).kill()


def check(url: str, folder: Path, count: int) -> None:
    from dosna.pilot.data import DataUnit
    from dosna.pilot.session import Session

    session = Session(url)
    units = list(session.store.rows("compute_units", order="number"))
    assert len(units) == count
    done = 0
    for unit in units:
        assert unit["state"] in ("Done", "Failed"), unit
        name = unit["description"]["output_data"][0]
        data_unit = DataUnit(session, next(iter(name)).rpartition(":")[2])
        if unit["state"] == "Failed":
            assert unit["reason"]
            continue
        done += 1
        target = folder / "results" / unit["id"]
        data_unit.export(str(target))
        assert (target / "whole.txt").read_text().split() == [str(n) for n in range(1, 301)]
        # Of one attempt, and of the one that counts.
        assert (target / "by.txt").read_text().strip() == unit["attempt"]
    assert done >= count // 2
    session.close()
