"""The dask engine when workers, a scheduler or results are lost: once, and no chunk twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future as Gathered
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import HANG, require, taking_ctrl_c, wait_until

import dosna as dn
from dosna import errors

distributed = require("distributed")
require("h5py")

from services.dask import LOCAL, local_client  # noqa: E402

from dosna.engines.dask import tasks  # noqa: E402
from dosna.engines.dask.dispatch import Call, _Lane, _Pending  # noqa: E402
from dosna.engines.dask.local import within  # noqa: E402
from dosna.engines.dask.tasks import Batch, Outcome  # noqa: E402

pytestmark = pytest.mark.slow


def check_once(ds, error, before=0):
    """Check that each chunk was changed once, or is named by the error."""
    unknown, untouched = (), ()
    if error is not None:
        unknown, untouched = error.chunks, error.untouched
    for chunk in ds.iter_chunks():
        found = set(np.unique(chunk[...]))
        if chunk.idx in untouched:
            assert found == {before}
        elif chunk.idx in unknown:
            assert found in ({before}, {before + 1})
        else:
            assert found == {before + 1}, (chunk.idx, found)


def test_a_killed_worker_costs_time_and_nothing_else(connect, slowly):
    with connect(**LOCAL) as con, local_client() as client:
        ds = con.create_dataset("a", data=np.arange(200.0), chunk_size=1)
        pids = client.run(os.getpid)

        def kill_one(done, total):
            if done and pids:
                os.kill(pids.popitem()[1], signal.SIGKILL)
                pids.clear()

        out = ds.map(slowly, "b", progress=kill_one)
        assert np.array_equal(out[...], np.arange(200.0) + 1)
        assert out.verify().good


def test_a_scheduler_that_dies_is_an_error(cluster, client, connect, slowly):
    cluster.worker("one")
    cluster.await_workers(client, 1)
    with connect(address=cluster.address, timeout=5) as con:
        ds = con.create_dataset("a", data=np.arange(300.0), chunk_size=1)
        threading.Timer(1.0, cluster.kill, ["scheduler"]).start()
        with pytest.raises(errors.WorkerError):
            ds.map(slowly, "b")
        assert "b" not in con


@pytest.mark.parametrize("call", ["map", "apply"])
@pytest.mark.parametrize("what", ["restart", "close"])
def test_a_cluster_that_forgets_a_call_is_an_error(connect, tmp_path, call, what):
    """Another program restarts the cluster in the middle, or it is closed."""
    middle = str(tmp_path / "middle")

    def slowly(block):
        time.sleep(0.3 if os.path.exists(middle) else 0.03)  # so that it does not end before
        return block + 1

    options = {"dashboard_address": ":0", "silence_logs": 50, "n_workers": 2}
    with (
        distributed.LocalCluster(threads_per_worker=1, **options) as own,
        distributed.Client(own, set_as_default=False) as mine,
        distributed.Client(own.scheduler_address, set_as_default=False) as other,
        connect(client=mine, timeout=5) as con,
        ThreadPoolExecutor(1) as pool,
    ):
        ds = con.create_dataset("a", data=np.zeros(300), chunk_size=1)
        forget = {"restart": other.restart, "close": own.close}[what]
        forgetting = []

        def forget_once(done, total):
            if done >= 20 and not forgetting:
                Path(middle).touch()
                forgetting.append(pool.submit(forget))

        if call == "map":
            with pytest.raises(errors.WorkerError):
                ds.map(slowly, "b", progress=forget_once)
            assert "b" not in con
        else:
            with pytest.raises(errors.OutcomeUnknown) as caught:
                ds.apply(slowly, progress=forget_once)
            assert len(caught.value.chunks) < 100
            assert caught.value.untouched
        forgetting[0].result(HANG)
        if call == "apply":
            check_once(ds, caught.value)


def test_an_outcome_that_arrives_after_its_batch_was_given_up_is_left_alone():
    call, future = idle_call(), Outcomes("k", "finished")
    call._asked, call._gathering = {"k": future}, Gathered()
    call._gathering.set_result({"k": Outcome(1.0)})
    assert call._gathered() == []


def test_a_result_that_is_lost_before_it_was_asked_for_is_waited_for(monkeypatch):
    call, future = idle_call(), Outcomes("k", "lost")
    call._pending[future] = _Pending(Batch("c", 1, [0]), "", None)
    call._gathering = Gathered()  # of others, under way
    call._done.put(future)
    monkeypatch.setattr(call, "_send", lambda: None)
    call._receive()
    assert call._finished == {"k": future}


def test_tasks_that_could_not_be_sent_are_named(monkeypatch):
    call = idle_call()

    def refuse(*_):
        raise OSError("closed")

    monkeypatch.setattr(call, "_submitted", refuse)
    with pytest.raises(errors.WorkerError, match="closed"):
        call._submit(_Lane("", [], 1), [3, 4])
    assert call.lost == [3, 4]


def test_a_long_batch_is_not_begun_again_after_many_short_ones(monkeypatch):
    monkeypatch.setattr(tasks, "_KEPT_BATCHES", 1)
    worker = SimpleNamespace(name="one", address="tcp://127.0.0.1:1")
    monkeypatch.setattr(tasks, "get_worker", lambda: worker)

    def once(work, number):
        batch = Batch(f"call {work.__name__}", number, [0], owner=tasks.PROCESS)
        return tasks.run(b"", batch)

    again = []

    def short(_):
        return 1

    def long(_):
        for number in range(3):
            assert once(short, number).result == 1
        again.append(once(long, 7).begun_before)
        return 2

    monkeypatch.setattr(tasks, "_unpack", lambda call, _: {"short": short, "long": long}[call[5:]])
    assert once(long, 7).result == 2
    assert again == [True]
    assert once(long, 7).begun_before


class Outcomes:
    """A future of a batch."""

    def __init__(self, key, status):
        self.key, self.status = key, status


def idle_call():
    client = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://127.0.0.1:1"))
    return Call(client, len, b"", [0], None, None, 1.0)


def test_ctrl_c_spares_a_process_whose_threads_are_the_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_THREADS)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=HANG
    )
    ended = (done.stdout.split()[-1:], done.returncode)
    assert ended == (["interrupted"], 0), done.stderr


IN_THREADS = """
import os, signal, sys, threading, time
import dosna as dn, numpy as np
from distributed import Client

def slow(block):
    main = threading.main_thread().ident
    threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT]).start()
    time.sleep(5)
    return block

signal.signal(signal.SIGINT, signal.default_int_handler)  # where it was ignored at the start
client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0")
dn.use(engine="dask", backend="file", engine_kw={"client": client})
with dn.Connection(sys.argv[1]) as con:
    ds = con.create_dataset("a", data=np.arange(2.0), chunk_size=2)
    try:
        ds.map(slow, "b", dtype="f8")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        os._exit(0)
"""


@pytest.mark.parametrize(("timeout", "error"), [(HANG, "KeyboardInterrupt"), (2, "WorkerError")])
def test_a_start_that_is_given_up_leaves_no_worker(tmp_path, timeout, error):
    # Workers that never come up; they are told from other processes by how they were started.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif '--multiprocessing-fork' in sys.orig_argv: time.sleep(1000)\n"
    )
    (tmp_path / "script.py").write_text(GIVEN_UP)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(timeout)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout.split() == [error, "alone"], done.stderr


def test_ctrl_c_that_another_thread_receives_ends_a_wait():
    def interrupt():
        time.sleep(0.2)  # until the wait has begun
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        time.sleep(HANG)

    with taking_ctrl_c(), pytest.raises(KeyboardInterrupt):
        within(HANG / 2, interrupt)


GIVEN_UP = """
import os, signal, sys, threading, time
import psutil
from dosna.engines.dask.runner import DaskRunner
from dosna.errors import WorkerError

def workers():
    try:
        children = psutil.Process().children()
        return [c for c in children if "--multiprocessing-fork" in c.cmdline()]
    except psutil.Error:
        return workers()

def interrupt():
    while not workers():
        time.sleep(0.01)
    # The main thread is named: the kernel may give a signal of the process to this one instead,
    # and the main thread would sleep on.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner = DaskRunner(n_workers=2, threads_per_worker=1, timeout=int(sys.argv[1]))
    if int(sys.argv[1]) > 10:
        threading.Thread(target=interrupt, daemon=True).start()
    try:
        runner.spread(len, [1, 2])
    except (KeyboardInterrupt, WorkerError) as error:
        print(type(error).__name__, flush=True)
    while workers():
        time.sleep(0.01)
    print("alone", flush=True)
    os._exit(0)
"""


# -- once, and no chunk twice --------------------------------------------------------------------


def kill_at_times(client, stop, generator, kills, killed, counts):
    """Kill workers, each when more chunks are done than at the last: one must have worked."""
    before = 0
    while not stop.wait(generator.uniform(0.05, 0.6)) and len(killed) < kills:
        if not counts or counts[-1] == before:
            continue
        before = counts[-1]
        pids = list(client.run(os.getpid, on_error="ignore").values())
        if pids:
            pid = generator.choice(pids)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.append(pid)


def apply_under_kills(con, client, slowly, kills, seed):
    generator, killed = random.Random(seed), []
    ds = con.create_dataset("a", data=np.zeros((240, 50)), chunk_size=(2, 25))
    rounds = 0
    while len(killed) < kills:
        stop, counts = threading.Event(), []
        killer = threading.Thread(
            target=kill_at_times, args=(client, stop, generator, kills, killed, counts)
        )
        killer.start()
        error = None
        try:
            ds.apply(slowly, progress=lambda done, _, counts=counts: counts.append(done))
        except errors.OutcomeUnknown as caught:
            error = caught
        finally:
            stop.set()
            killer.join()
        check_once(ds, error)
        ds.load(np.zeros((240, 50)))
        rounds += 1
    return rounds


def test_apply_changes_no_chunk_twice_when_workers_are_killed(connect, slowly):
    with connect(**LOCAL) as con, local_client() as client:
        apply_under_kills(con, client, slowly, 3, 1)


@pytest.mark.fault
@pytest.mark.timeout(1500)
def test_apply_under_a_hundred_kills(connect, slowly):
    with connect(**LOCAL) as con, local_client() as client:
        apply_under_kills(con, client, slowly, 100, 2)


@pytest.mark.parametrize("nanny", [False, True])
def test_apply_names_what_a_lost_worker_had_begun(
    cluster, client, connect, slowly, nanny, free_port
):
    # Behind a nanny a worker that was killed comes back at the same address.
    options = ["--worker-port", str(free_port)] if nanny else []
    cluster.worker("one", *options, nanny=nanny)
    cluster.await_workers(client, 1)
    if not nanny:
        cluster.worker("two")
        cluster.await_workers(client, 2)
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.zeros(200), chunk_size=1)
        pids = client.run(os.getpid)

        def kill_one(done, total):
            if done >= 20 and pids:
                os.kill(pids.popitem()[1], signal.SIGKILL)
                pids.clear()

        with pytest.raises(errors.OutcomeUnknown) as caught:
            ds.apply(slowly, progress=kill_one)
        assert 0 < len(caught.value.chunks) < 100
        check_once(ds, caught.value)


@pytest.mark.parametrize("jlbackend", ["loky", "multiprocessing"])
def test_apply_in_processes_of_joblib_names_what_is_unknown(tmp_path, jlbackend):
    require("joblib")
    engine_kw = {"njobs": 2, "jlbackend": jlbackend}
    marker, killed = tmp_path / "pid", tmp_path / "killed"

    def tell(block):
        marker.with_suffix(f".{os.getpid()}").touch()
        # Slow until then, so that a late kill comes in the middle as well.
        time.sleep(0.02 if killed.exists() else 0.2)
        return block + 1

    def kill():
        wait_until(lambda: list(tmp_path.glob("pid.*")))
        time.sleep(0.5)
        killed.touch()
        os.kill(int(next(tmp_path.glob("pid.*")).suffix[1:]), signal.SIGKILL)

    with dn.Connection(str(tmp_path), backend="file", engine="joblib", engine_kw=engine_kw) as con:
        ds = con.create_dataset("a", data=np.zeros(100), chunk_size=1)
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(errors.OutcomeUnknown) as caught:
            ds.apply(tell)
        killer.join()
        assert caught.value.chunks
        check_once(ds, caught.value)
