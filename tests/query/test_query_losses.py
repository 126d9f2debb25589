"""Queries whose workers are killed: rows are as without, or there is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, mpiexec, require

import dosna as dn

distributed, pa = require("distributed"), require("pyarrow")

from services.dask import start_dask  # noqa: E402

from dosna.query import planning  # noqa: E402

pytestmark = pytest.mark.slow

N, STEP = 2400, 8


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Give the folder of a connection whose tree has 300 ranges."""
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    folder = str(tmp_path / "data")
    Path(folder).mkdir()
    with dn.Connection(folder, backend="file", engine="cpu") as con:
        arrays = {"x": np.arange(N), "l": [[n] * (n % 3) for n in range(N)]}
        put_tree(con, "T", arrays, STEP, chunk_entries=STEP)
    return folder


@pytest.fixture
def slow_down():
    """Return a function that makes ranges take long in the process that calls it."""

    def slow_down():  # within a function it travels by value: workers have no modules of tests
        import time

        from dosna.query import scan

        one = scan.Scan.one

        def slowly(self, piece, reads):
            time.sleep(0.02)
            return one(self, piece, reads)

        scan.Scan.one = slowly

    return slow_down


def test_a_killed_worker_costs_time_and_no_rows(tree, tmp_path, slow_down):
    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as cluster:
        for name in ("a", "b"):
            cluster.worker(name, nanny=name == "b")
        engine_kw = {"address": cluster.address, "timeout": HANG}
        with (
            distributed.Client(cluster.address, set_as_default=False) as client,
            dn.Connection(tree, backend="file", engine="dask", engine_kw=engine_kw) as con,
        ):
            cluster.await_workers(client, 2)
            client.run(slow_down)
            told = []

            def kill_one(done, total):
                if done and "a" in cluster.processes:
                    told.append((done, total))
                    cluster.kill("a")

            query = con.query("T", "x % 7 == 0", progress=kill_one)
            table = query.to_arrow()
            assert told, "it was killed after the end"
            assert told[0][0] < told[0][1]
            assert table["x"].to_pylist() == list(range(0, N, 7))
            assert table["l"].to_pylist() == [[n] * (n % 3) for n in range(0, N, 7)]


def test_a_killed_rank_is_an_error_and_no_result(tree):
    script = (
        "import os, signal, sys\n"
        "import dosna as dn\n"
        "from dosna.query import planning, scan\n"
        "planning.LEAST_ROWS = 1\n"
        "one, done = scan.Scan.one, []\n"
        "with dn.Connection(sys.argv[1], backend='file', engine='mpi') as con:\n"
        "    def dying(self, piece, reads):\n"
        "        done.append(piece)\n"
        "        if con.runner.rank and len(done) == 5:\n"
        "            print('dying', flush=True)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return one(self, piece, reads)\n"
        "    scan.Scan.one = dying\n"
        "    print('rows', con.query('T', 'x % 7 == 0').to_arrow().num_rows, flush=True)\n"
    )
    done = subprocess.run(
        [*mpiexec(2), sys.executable, "-c", script, tree],
        capture_output=True,
        text=True,
        timeout=HANG,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode != 0
    assert "dying" in done.stdout, done.stderr
    assert "rows" not in done.stdout
