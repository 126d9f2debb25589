"""The examples of pilots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import HANG, require

import dosna as dn

if TYPE_CHECKING:
    from services import Ceph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pilot"

pytestmark = pytest.mark.slow


def run(name: str, *arguments: str) -> str:
    for package in ("psij", "fsspec", "cryptography", "scipy", "h5py"):
        require(package)
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_convolution_by_units_equals_that_of_the_whole() -> None:
    assert "largest difference" in run("convolution.py", "--size", "32", "--slabs", "3")


def test_convolution_near_a_dataset_in_ceph(ceph: Ceph) -> None:
    store = f"ceph:kit?conffile={ceph.conf}"
    said = run("convolution.py", "--size", "32", "--slabs", "3", "--store", store)
    assert "of its inputs are there" in said
    assert "largest difference" in said
    with dn.Connection("kit", backend="ceph", conffile=ceph.conf) as con:
        assert not [name for name in con if name.startswith(("volume-", "filtered-"))]


def test_sweep_tells_of_each_pair() -> None:
    lines = run("sweep.py").splitlines()
    assert len(lines) == 9
    assert sum("ZeroDivisionError" in line for line in lines) == 3
    assert "root of 9 from 1: 6" in lines
