"""The convolution example: equal results, the file of times, everything removed at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from services.s3 import make_bucket
from support import HANG, mpiexec, require

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "convolutions.py"


@pytest.fixture(autouse=True)
def components():
    for module in ("h5py", "scipy", "matplotlib", "mpi4py"):
        require(module)


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, np.random.default_rng(1).integers(0, 1000, (21, 30, 25)).astype("i2"))
    return path


def run(tmp_path, *arguments, start=(sys.executable,), script=SCRIPT, succeeds=True):
    scratch = tmp_path / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        [*start, "-W", "error", script, "--out", tmp_path / "out", "--tmp", scratch, *arguments],
        capture_output=True,
        text=True,
        timeout=HANG,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert (ran.returncode == 0) == succeeds, ran.stdout + ran.stderr
    assert list(scratch.iterdir()) == []
    return ran.stdout + ran.stderr


def results(tmp_path):
    import h5py

    found = {}
    with h5py.File(tmp_path / "out" / "result.h5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: (item[...], dict(item.attrs))})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def test_engines_and_backends_are_compared_in_one_file(tmp_path, volume):
    sizes = ["--volume", volume, "--chunk-sizes", "8", "13", "40", "--ntest", "2"]
    two = (*mpiexec(2), sys.executable)
    # What is replaced below.
    run(tmp_path, "--volume", volume, "--chunk-sizes", "13", "--ntest", "1", "--engine", "cpu")
    assert results(tmp_path)["hdf5/1"][0].shape == (1, 1, 3, 1)
    runs = [
        (["--engine", "joblib", "--backend", "ram"], {}),
        ([], {"start": two}),
        ([], {}),
        (["--engine", "cpu"], {}),
    ]
    for arguments, kw in runs:
        printed = run(tmp_path, *sizes, "--check", *arguments, **kw)
        assert printed.count("from scipy's: ") == 4
        assert "skipped chunks of 40" in printed
    found = results(tmp_path)
    ram = next(name for name in found if name.startswith("ram/"))
    assert sorted(found) == sorted(["hdf5/1", "hdf5/1-mpi", "hdf5/2", ram])
    for name, (seconds, attrs) in found.items():
        assert seconds.shape == (1, 3, 3, 2), name
        assert (seconds[:, :2] > 0).all()
        assert np.isnan(seconds[:, 2]).all()
        labels = [attrs[f"axis{axis}_label"] for axis in range(4)]
        assert labels == ["data size", "chunk size", "step", "test"]
        assert attrs["axis0_value"].tolist() == [30]
        assert attrs["axis1_value"].tolist() == [8, 13, 40]
        assert list(attrs["axis2_value"]) == ["load", "3-D", "three 1-D"]
    assert found["hdf5/1"][1]["engine"] == "cpu"
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"times_hdf5.png", "times_ram.png", "hdf5_2_3d_30_8.png"} <= pictures
    assert len(pictures) == 2 + 4 * 2 * 2


KEEPS_RESULTS = f"""
import sys
import numpy as np
sys.path.insert(0, {str(SCRIPT.parent)!r})
import convolutions

compare = convolutions.Run.compare

def keep(self, volume, whole, passed):
    chunk = whole.chunk_size[0]
    np.savez(self.chosen.out / f"results-{{chunk}}.npz", whole=whole[...], passed=passed[...])
    return compare(self, volume, whole, passed)

convolutions.Run.compare = keep
sys.exit(convolutions.main())
"""


@pytest.fixture(params=["s3", "ceph"])
def stores(request):
    """Give the arguments that name a store, for each engine."""
    if request.param == "ceph":
        conf = request.getfixturevalue("ceph").conf
        where = ["--connection", "kit", "--connection-options", f"conffile={conf}"]
        where = ["--backend", "ceph", *where]
        return {"joblib": where, "mpi": where}
    require("boto3")
    require("obstore")
    url = request.getfixturevalue("gateway").endpoint_url
    where = ["--backend", "s3", "--connection-options", f"endpoint_url={url}"]
    return {"joblib": where, "mpi": [*where, f"bucket={make_bucket(url)}"]}


def test_results_equal_those_on_hdf5(tmp_path, volume, stores):
    script = tmp_path / "script.py"
    script.write_text(KEEPS_RESULTS)
    sizes = ["--volume", volume, "--ntest", "1", "--chunk-sizes"]
    run(tmp_path / "expected", *sizes, "9", "16", "--engine", "cpu", "--check", script=script)
    run(tmp_path / "joblib", *sizes, "16", "--engine", "joblib", *stores["joblib"], script=script)
    start = (*mpiexec(2), sys.executable)
    run(tmp_path / "mpi", *sizes, "9", *stores["mpi"], script=script, start=start)
    for engine, chunk in (("joblib", 16), ("mpi", 9)):
        found, expected = (
            dict(np.load(tmp_path / where / "out" / f"results-{chunk}.npz"))
            for where in (engine, "expected")
        )
        assert sorted(found) == ["passed", "whole"]
        for name, values in found.items():
            assert values.dtype == np.float32
            assert values.tobytes() == expected[name].tobytes(), (engine, name, chunk)


def test_sizes_options_and_volumes_of_other_kinds(tmp_path, volume):
    import h5py

    data = np.load(volume)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data"] = np.stack([data, data + 1], axis=-1)
    store = tmp_path / "store"
    store.mkdir()
    few = ["--engine", "cpu", "--ntest", "1", "--chunk-sizes", "9", "--sigma", "0.7", "--check"]
    named = ["--connection", "store", "--connection-options", f"directory={tmp_path}"]
    run(tmp_path, *few, *named, "--volume", f"{tmp_path}/scan.h5:entry/data")
    assert [path.name for path in store.iterdir()] in ([], [".lock"])
    assert results(tmp_path)["hdf5/1"][1]["axis0_value"].tolist() == [30]
    run(tmp_path, *few, "--data-sizes", "12", "18")
    assert results(tmp_path)["hdf5/1"][0].shape == (2, 1, 3, 1)
    run(tmp_path, *few, "--data-sizes", "22", "--volume", volume)
    assert results(tmp_path)["hdf5/1"][1]["axis0_value"].tolist() == [22]


def test_what_it_refuses(tmp_path):
    for arguments, why in (
        (["--engine", "cpu", "--data-sizes", "0"], "positive"),
        (["--engine", "cpu", "--connection-options", "colour=3"], "colour"),
        (["--engine", "cpu", "--volume", "no.npy"], "no.npy"),
    ):
        assert why in run(tmp_path, *arguments, succeeds=False)
    start = (*mpiexec(2), sys.executable)
    assert "without mpiexec" in run(tmp_path, "--engine", "cpu", start=start, succeeds=False)


def test_mpi_demo(tmp_path):
    ran = subprocess.run(
        [*mpiexec(3), sys.executable, "-m", "mpi4py", ROOT / "examples" / "mpi_demo.py"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode == 0, ran.stderr
    assert "|2) checked [0:66]" in ran.stdout
    assert list(tmp_path.iterdir()) == []
