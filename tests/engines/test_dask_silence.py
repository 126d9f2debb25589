"""The dask engine when a scheduler or a worker is stopped: connected, and silent."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import HANG, require, wait_until

from dosna import errors

require("distributed")
require("h5py")

from distributed.comm import CommClosedError  # noqa: E402

from dosna.engines.dask.cluster import Worker  # noqa: E402
from dosna.engines.dask.dispatch import Call  # noqa: E402
from dosna.engines.dask.ending import leave  # noqa: E402

pytestmark = pytest.mark.slow


def test_a_scheduler_that_is_stopped_is_an_error_in_time(cluster, client, connect, slowly):
    cluster.worker("one")
    cluster.await_workers(client, 1)
    scheduler = cluster.processes["scheduler"].pid
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.arange(300.0), chunk_size=1)
        runner = con.runner
        ds.sum()  # the worker is known
        runner._params["timeout"] = 2.0

        def stop(done, total):
            if done:
                os.killpg(scheduler, signal.SIGSTOP)

        with pytest.raises(errors.WorkerError, match="did not answer"):
            ds.map(slowly, "b", progress=stop)
        with pytest.raises(errors.WorkerError, match="did not answer"):
            ds.sum()
        with pytest.raises(errors.WorkerError, match="did not answer"):
            assert runner.sharers
        os.killpg(scheduler, signal.SIGCONT)
        runner._params["timeout"] = HANG
        assert ds.sum() == np.arange(300.0).sum()
        assert "b" not in con


@pytest.fixture
def pids(cluster, client):
    """Return the processes of two workers by address."""
    for name in ("one", "two"):
        cluster.worker(name)
    cluster.await_workers(client, 2)
    return client.run(os.getpid)


def test_results_of_a_worker_that_is_stopped_are_made_again(
    pids, client, connect, slowly, monkeypatch
):
    stopped = []

    async def give_up(address, dask_scheduler):
        await dask_scheduler.remove_worker(address, stimulus_id="test", close=False)

    def gather(call, futures):
        if not stopped:
            address = next(iter(client.who_has(list(futures.values())).values()))[0]
            os.kill(pids[address], signal.SIGSTOP)
            stopped.append(address)
            threading.Timer(1.0, client.run_on_scheduler, [give_up, address]).start()
        return fetch(call, futures)

    fetch = Call._gather
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.arange(100.0), chunk_size=1)
        assert ds.sum() == np.arange(100.0).sum()
        monkeypatch.setattr(Call, "_gather", gather)
        out = ds.map(slowly, "b")
        assert stopped
        assert np.array_equal(out[...], np.arange(100.0) + 1)


def test_workers_close_their_connections_to_one_that_has_left(pids, client, tmp_path):
    one, two = pids
    asked = tmp_path / "asked"

    async def ask(dask_worker):
        dask_worker.rpc.reuse(one, await dask_worker.rpc.connect(one))
        os.kill(pids[one], signal.SIGSTOP)
        asked.touch()
        return await dask_worker.rpc(one).identity()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.run, ask, workers=[two])
        wait_until(asked.exists)
        leave(client, [Worker(one, "process", "one", 1)], [])
        with pytest.raises(CommClosedError):
            answer.result(HANG)


def test_apply_knows_a_worker_that_was_restarted_at_its_address(
    cluster, client, connect, slowly, free_port
):
    cluster.worker("one", "--worker-port", str(free_port), nanny=True)
    cluster.await_workers(client, 1)
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.zeros(20), chunk_size=1)
        ds.apply(slowly)
        (address,) = client.nthreads()
        client.restart(timeout=HANG)
        assert [*client.nthreads()] == [address]
        ds.apply(slowly)
        assert set(ds[...]) == {2.0}
