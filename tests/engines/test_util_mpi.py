"""Helpers for parallel scripts, with one process and with several."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support import HANG, mpiexec

from dosna.util import Timer

ROOT = Path(__file__).resolve().parents[2]


def test_timer(capsys):
    with Timer("nothing") as timer:
        sum(range(1000))
    assert timer.time > 0
    assert capsys.readouterr().out == f"nothing: {timer.time:.4f} s\n"


def run(script, *command, path=str(ROOT)):
    ran = subprocess.run(
        [*command, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode == 0, ran.stderr
    return sorted(ran.stdout.splitlines())


SCRIPT = """
from dosna.engines.mpi.scripts import *
import time
assert mpi_root() == mpi_is_root() == (mpi_rank() == 0)
pprint("all", mpi_size())
mpi_barrier()
pprint("one", rank=mpi_size() - 1, end="!\\n")
with MpiTimer("waited", rank=mpi_size() - 1) as timer:
    time.sleep(0.2 if mpi_is_root() else 0)
assert timer.time > 0.19
try:
    with MpiTimer("failed", rank=9):
        raise KeyError
except KeyError:
    pass
"""


def test_one_process_without_mpi4py(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('it is not installed')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    *printed, timed = run(SCRIPT + "assert mpi_comm() is None", path=path)
    assert printed == ["|0) all 1", "|0) one!"]
    assert re.fullmatch(r"\|0\) waited: \d+\.\d{4} s", timed)


def test_two_processes():
    script = SCRIPT + "assert mpi_comm().Get_size() == 2"
    *printed, timed = run(script, *mpiexec(2))
    assert printed == ["|0) all 2", "|1) all 2", "|1) one!"]
    assert re.fullmatch(r"\|1\) waited: \d+\.\d{4} s", timed)
