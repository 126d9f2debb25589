"""The mpi engine under mpiexec: its suite on several numbers of ranks, and what ends them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from services.s3 import make_bucket
from support import HANG, mpiexec, require

from dosna.testing.timing import patience

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(1300)


def run(ranks, *command, cwd=None, timeout=1200):
    return subprocess.run(
        [*mpiexec(ranks), *command],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def passes(ran):
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.findall(r"(?m)^=* ?\d+ (\w+)", ran.stdout)[-1:] == ["passed"], ran.stdout


def run_parts(ranks, *parts, options=()):
    fixed = ["-c", ROOT / "pyproject.toml", "-o", "timeout_method=thread"]
    tests = [ROOT / "tests" / "mpi" / part for part in parts]
    return run(ranks, sys.executable, "-m", "mpi4py", "-m", "pytest", *fixed, *options, *tests)


# More ranks than cores take turns at every step: all of the kit is for two.


def test_suite():
    require("h5py")
    passes(run_parts(5, "suite.py"))


def test_suite_and_kit():
    require("h5py")
    passes(run(2, "sh", ROOT / "run_tests.sh"))


def test_kit_of_engines_on_one_rank():
    require("h5py")
    passes(run_parts(1, "kit.py::TestEngine"))


@pytest.mark.parametrize(("ranks", "part"), [(1, "kit.py"), (3, "kit.py::TestWork")])
def test_kit_on_file(ranks, part, tmp_path):
    passes(run_parts(ranks, part, options=["--backend", "file", "--connection", tmp_path]))


# What makes, replaces and deletes: the rest is the same in each layout.
NAMES = "sequence or handle or attributes or fails or clone or copy or clear or shrink"


@pytest.mark.parametrize("layout", ["one bucket", "buckets"])
def test_kit_on_s3(gateway, layout):
    require("boto3")
    require("obstore")
    options, few = [f"endpoint_url={gateway.endpoint_url}"], ["-k", NAMES]
    if layout == "one bucket":
        options.append(f"bucket={make_bucket(gateway.endpoint_url)}")
        few = []
    where = ["--backend", "s3", "--connection-options", *options, "--"]
    passes(run_parts(2, "kit.py::TestWork", options=[*few, *where]))


def test_suite_and_kit_on_ceph(secured):
    options = [f"conffile={secured.conf}", "client_id=dosna"]
    where = ["--backend", "ceph", "--connection", "kit", "--connection-options", *options, "--"]
    passes(run_parts(2, "suite.py", "kit.py::TestWork", options=where))


def test_ranks_lose_nothing_on_s3(gateway):
    require("boto3")
    require("obstore")
    options = [f"endpoint_url={gateway.endpoint_url}"]
    options.append(f"bucket={make_bucket(gateway.endpoint_url)}")
    few = ["-k", "parts_of_one_chunk or one_rank_alone or copy"]
    where = ["--backend", "s3", "--connection-options", *options, "--"]
    passes(run_parts(3, "suite.py", options=[*few, *where]))


def test_suite_of_one_rank_on_a_named_backend(tmp_path, monkeypatch):
    require("h5py")
    (tmp_path / "store").mkdir()
    # Of the kit, whose tests on one rank are run above, a few tell that it is run too.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-v -k 'suite or resize'")
    ran = run(
        *(1, "sh", ROOT / "run_tests.sh", "--backend", "hdf5", "--connection", "store"),
        *("--connection-options", f"directory={tmp_path}", "durable=no"),
    )
    passes(ran)
    assert re.search(r"kit\.py::TestWork::test_resize PASSED", ran.stdout), ran.stdout
    assert [path.name for path in (tmp_path / "store").iterdir()] in ([], [".lock"])


def test_a_failure_on_one_rank_is_shown_by_the_first(tmp_path):
    require("h5py")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "tests" / "mpi", clone / "tests" / "mpi")
    for name in ("run_tests.sh", "venv.sh", "pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, clone / name)
    (clone / "tests/mpi/suite.py").write_text(
        "from conftest import WORLD\n"
        "def test_a():\n    assert WORLD.rank != 1, 'only there'\n"
        "def test_b():\n    assert WORLD.allreduce(1) == 2\n"
    )
    # In lockstep no rank waits for one that has ended the test, and all read the same.
    (clone / "tests/mpi/kit.py").write_text(
        "import dosna as dn\n"
        "import lockstep\n"
        "import numpy as np\n"
        "import pytest\n"
        "from conftest import WORLD\n"
        "@pytest.fixture\n"
        "def ds(folder):\n"
        "    with dn.Connection(str(folder), backend='hdf5', engine=lockstep.NAME) as con:\n"
        "        yield con.create_dataset('a', data=np.arange(4))\n"
        "def test_c(ds):\n"
        "    assert WORLD.rank != 1, 'before the others'\n"
        "    ds.apply(np.negative)\n"
        "def test_d(ds):\n"
        "    assert ds[WORLD.rank] == WORLD.rank\n"
        "def test_e(ds):\n"
        "    ds[0] = 5 + WORLD.rank  # by one rank\n"
        "    assert WORLD.allgather(int(ds[0])) == [6, 6]\n"
    )
    ran = run(2, "sh", clone / "run_tests.sh")
    assert ran.returncode == 1
    assert "3 failed, 2 passed" in ran.stdout, ran.stdout
    assert "on rank 1:" in ran.stdout
    for text in ("only there", "before the others", "rank 0: np.int64(0)", "rank 1: np.int64(1)"):
        assert text in ran.stdout


def test_a_rank_that_never_calls_is_bounded(tmp_path):
    require("h5py")
    (tmp_path / "script.py").write_text(
        "import time\n"
        "import dosna as dn\n"
        "dn.use('mpi', 'hdf5', {'collective_timeout': 200})\n"
        "with dn.Connection('.') as con:\n"
        "    ds = con.create_dataset('a', (4, 4))\n"
        "    if con.mpi_is_root:\n"
        "        time.sleep(1000)\n"
        "    con.runner.collective_timeout = 0.5\n"
        "    ds.clear()\n"
    )
    ran = run(2, sys.executable, "-m", "mpi4py", "script.py", cwd=tmp_path, timeout=HANG)
    assert ran.returncode != 0
    assert "rank 1 of 2 waited 0.5 s in the collective call 'clear'" in ran.stderr


def test_a_timeout_does_not_bound_the_work_itself(tmp_path):
    require("h5py")
    seconds = patience(0.3)
    (tmp_path / "script.py").write_text(
        "import time\n"
        "import dosna as dn, dosna.engines.mpi.scripts as dn_mpi\n"
        "dn.use('mpi', 'hdf5', {'collective_timeout': 200})\n"
        "with dn.Connection('.') as con:\n"
        "    ds = con.create_dataset('a', (2,), chunk_size=1)\n"
        f"    con.runner.collective_timeout = {seconds}\n"
        f"    ds.apply(lambda block: time.sleep({2.5 * seconds}) or block + 1)\n"
        "    con.runner.collective_timeout = 200\n"
        "    dn_mpi.pprint(ds.sum())\n"
    )
    ran = run(2, sys.executable, "-m", "mpi4py", "script.py", cwd=tmp_path)
    assert (ran.returncode, sorted(ran.stdout.split())) == (0, ["2.0", "2.0", "|0)", "|1)"]), (
        ran.stderr
    )


def test_run_mpi_ends_all_ranks_when_one_fails(tmp_path):
    require("mpi4py")
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "from dosna.engines.mpi.scripts import mpi_barrier, mpi_rank\n"
        "assert sys.argv[1:] == ['a b', '--c'], sys.argv\n"
        "if mpi_rank() == 1:\n"
        "    raise ValueError('only here')\n"
        "mpi_barrier()\n"
    )
    ran = subprocess.run(
        ["sh", ROOT / "run_mpi.sh", "2", "script.py", "a b", "--c"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode != 0  # which mpiexec tells, if not always the traceback


@pytest.mark.parametrize("arguments", [[], ["2"], ["two", "script.py"], ["-n", "2", "a.py"]])
def test_run_mpi_refuses_wrong_arguments(arguments):
    ran = subprocess.run(["sh", ROOT / "run_mpi.sh", *arguments], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "usage" in ran.stderr


def test_without_an_mpi_library_the_error_says_what_to_do(tmp_path):
    """As mpi4py's wheel behaves where there is none."""
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')")
    code = (
        "import dosna as dn\n"
        "from dosna.engines.mpi.scripts import mpi_comm, mpi_size\n"
        "assert (mpi_comm(), mpi_size()) == (None, 1)\n"
        "try:\n    dn.use('mpi')\n"
        "except dn.errors.MissingDependencyError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert "cannot load MPI library" in ran.stdout, ran.stderr
    assert "pip install mpich" in ran.stdout


def test_the_benchmark_runs(tmp_path):
    for package in ("h5py", "scipy", "mpi4py"):
        require(package)
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "mpi.py", "--quick", "--folder", tmp_path],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"(?m)^ +mpi 2: \d\.\d+ s, \d+\.\d\d e", ran.stdout)) == 3
    assert "collective on an empty dataset, 4 ranks" in ran.stdout
    assert list(tmp_path.iterdir()) == []
