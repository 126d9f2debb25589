"""The benchmarks run; what they measure is not judged here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support import HANG, require

RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"

for module in ("zarr", "tensorstore", "h5py", "scipy", "joblib"):
    require(module)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=HANG
    )


def test_a_row_prints_times_and_ratios(tmp_path: Path) -> None:
    done = run("--quick", "--only", "ram-points", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"1000 points: dosna [\d.]+ µs/point; .*h5py [\d.]+, [\d.]+ x", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_row_is_refused() -> None:
    done = run("--only", "no-such-row")
    assert done.returncode == 2
    assert "no row begins with" in done.stderr
    assert "ram-points" in done.stderr


def test_one_table_of_scale_is_chosen() -> None:
    done = subprocess.run(
        [sys.executable, str(RUN.parent / "scale.py"), "--only", "datasets", "--datasets", "300"],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\w.*$", done.stdout, re.M) == ["Datasets of one chunk"]
    assert "| ingest | 300 |" in done.stdout


def test_growth_prints_ratios(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN.parent / "growth.py"), "--quick", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    for row in ("hdf5: append a chunk", "ram: create a dataset"):
        assert re.search(rf"{row}: .* [\d.]+ ms, [\d.]+ x", done.stdout)
    assert list(tmp_path.iterdir()) == []
