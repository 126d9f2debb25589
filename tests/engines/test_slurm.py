"""The dask engine on a real Slurm: by dask-jobqueue, with jobs cancelled and a node drained."""

from __future__ import annotations

import numpy as np
import pytest
from support import HANG, require, wait_until

import dosna as dn
from dosna import errors

distributed = require("distributed")
jobqueue = require("dask_jobqueue")

pytestmark = pytest.mark.slow

VALUES = np.arange(200.0)


@pytest.fixture(scope="module")
def slurm(start_slurm):
    with start_slurm() as started:
        yield started


@pytest.fixture
def cluster(slurm, tmp_path, monkeypatch):
    """Give a Dask cluster without jobs; `start` gives it some."""
    monkeypatch.setenv("SLURM_CONF", slurm.conf)
    with jobqueue.SLURMCluster(
        queue="debug",
        walltime="01:00:00",
        cores=1,
        processes=1,
        memory="2GB",
        job_directives_skip=["--mem"],
        death_timeout=HANG,
        local_directory=str(tmp_path / "local"),
        log_directory=str(tmp_path / "log"),
        worker_extra_args=["--host", "127.0.0.1", "--no-dashboard"],
        scheduler_options={"host": "127.0.0.1", "dashboard_address": None},
    ) as opened:
        yield opened
    wait_until(lambda: not slurm.run("squeue", "-h"))


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as opened:
        yield opened


@pytest.fixture
def connect(tmp_path, client):
    """Return a function that connects to a folder by the engine."""

    def connect(**engine_kw):
        (tmp_path / "data").mkdir(exist_ok=True)
        engine_kw = {"client": client, "timeout": HANG, **engine_kw}
        return dn.Connection(
            str(tmp_path / "data"), backend="file", engine="dask", engine_kw=engine_kw
        )

    return connect


def start(cluster, client, jobs):
    """Start so many jobs, each with a worker."""
    cluster.scale(jobs=jobs)
    client.wait_for_workers(jobs, timeout=HANG)


def once(act):
    """Return a function for `progress`, which acts in the middle of the work."""
    acts = [act]

    def progress(done, total):
        if done >= 20 and acts:
            acts.pop()()

    return progress


def test_work_in_jobs_equals_numpy(cluster, client, connect, slurm):
    start(cluster, client, 2)
    assert len(slurm.jobs()) == 2
    data = np.arange(6000.0).reshape(60, 100)
    with connect() as con:
        ds = con.create_dataset("a", data=data, chunk_size=(7, 30))
        assert np.array_equal(ds.map(np.sqrt, "b")[...], np.sqrt(data))
        assert ds.sum() == data.sum()


def test_a_job_that_is_cancelled_costs_time_and_nothing_else(
    cluster, client, connect, slurm, slowly
):
    start(cluster, client, 2)
    with connect() as con:
        ds = con.create_dataset("a", data=VALUES, chunk_size=1)
        cancel = once(lambda: slurm.run("scancel", slurm.jobs()[0]))
        out = ds.map(slowly, "b", progress=cancel)
        assert np.array_equal(out[...], VALUES + 1)
        assert out.verify().good
    wait_until(lambda: len(slurm.jobs()) == 1)


@pytest.mark.parametrize(
    "signals", [[], pytest.param(["--signal=KILL", "--full"], marks=pytest.mark.fault)]
)
def test_apply_names_what_a_cancelled_job_had_begun(
    cluster, client, connect, slurm, slowly, signals
):
    start(cluster, client, 2)
    with connect() as con:
        ds = con.create_dataset("a", data=VALUES, chunk_size=1)
        error = None
        try:
            ds.apply(
                slowly, progress=once(lambda: slurm.run("scancel", *signals, slurm.jobs()[0]))
            )
        except errors.OutcomeUnknown as caught:
            error = caught
        unknown = set() if error is None else set(error.chunks)
        untouched = set() if error is None else set(error.untouched)
        changed = ds[...] - VALUES
        for (number,) in np.ndindex(200):
            if (number,) in untouched:
                assert changed[number] == 0
            elif (number,) in unknown:
                assert changed[number] in (0, 1)
            else:
                assert changed[number] == 1
        assert len(unknown) < 100
        wait_until(lambda: len(slurm.jobs()) == 1)


@pytest.fixture
def drain(slurm, cluster, client):
    """Return a function that drains the node; jobs that are asked for after it have to wait."""

    def drain():
        slurm.set_node("drain")
        cluster.scale(jobs=2)

    yield drain
    slurm.set_node("resume")


def test_a_node_that_is_drained_ends_its_work(cluster, client, connect, slurm, slowly, drain):
    start(cluster, client, 1)
    with connect() as con:
        ds = con.create_dataset("a", data=VALUES, chunk_size=1)
        out = ds.map(slowly, "b", progress=once(drain))
        assert np.array_equal(out[...], VALUES + 1)
    assert len(slurm.jobs()) == 1


@pytest.mark.fault
def test_without_a_job_that_could_run_the_work_ends_with_an_error(
    cluster, client, connect, slurm, slowly, drain
):
    start(cluster, client, 1)

    def lose():
        drain()
        slurm.run("scancel", slurm.jobs()[0])

    with connect(timeout=5) as con:
        ds = con.create_dataset("a", data=VALUES, chunk_size=1)
        with pytest.raises(errors.WorkerError, match="no worker"):
            ds.map(slowly, "b", progress=once(lose))
        assert "b" not in con
