"""The examples of pilots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import require

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pilot"

pytestmark = pytest.mark.slow


def run(name: str, *arguments: str) -> str:
    for package in ("psij", "fsspec", "cryptography", "scipy", "h5py"):
        require(package)
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_convolution_by_units_equals_that_of_the_whole() -> None:
    assert "largest difference" in run("convolution.py", "--size", "32", "--slabs", "3")


def test_sweep_tells_of_each_pair() -> None:
    lines = run("sweep.py").splitlines()
    assert len(lines) == 9
    assert sum("ZeroDivisionError" in line for line in lines) == 3
    assert "root of 9 from 1: 6" in lines
