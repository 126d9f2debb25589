"""Pools of worker processes: when they end, and what a call does whose pool works no more."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context

import pytest
from support import HANG, require, wait_until

from dosna.engines import processes
from dosna.errors import OutcomeUnknown, WorkerError

pytestmark = pytest.mark.slow


class Ids:
    """Work that tells in which process it is done, after a while."""

    def __init__(self, seconds=0.0, repeatable=True):
        self.seconds, self.repeatable = seconds, repeatable

    def __call__(self, tasks):
        time.sleep(self.seconds)
        return {os.getpid() for _ in tasks}

    def chunks_of(self, tasks):
        return [(task,) for task in tasks]


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["loky", "multiprocessing"])
def runner(request, monkeypatch):
    require("joblib")
    from dosna.engines import joblib

    monkeypatch.setattr(joblib, "_process_pools", {})
    found = joblib.JoblibRunner(njobs=2, jlbackend=request.param)
    yield found
    with found._processes().used() as pool:
        pool.kill()


def workers(runner, work):
    return set().union(*runner.spread(work, range(2)))


def test_processes_end_when_no_call_uses_them(runner, monkeypatch):
    monkeypatch.setattr(processes, "IDLE_SECONDS", 0.01)
    before = workers(runner, Ids())
    wait_until(lambda: not any(map(is_alive, before)))
    # A call that takes longer than they may be idle, and one that begins meanwhile.
    assert workers(runner, Ids(0.5)).isdisjoint(before)
    assert len(workers(runner, Ids())) > 0


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_worker_that_was_lost_between_calls_costs_nothing(runner, repeatable):
    before = workers(runner, Ids())
    with runner._processes().used() as pool:
        thread = pool._thread
    os.kill(before.pop(), signal.SIGKILL)
    wait_until(lambda: not thread.is_alive())
    assert len(workers(runner, Ids(repeatable=repeatable))) > 0
    wait_until(lambda: not any(map(is_alive, before)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("repeatable", [True, False])
def test_a_call_ends_if_no_thread_hands_out_tasks(runner, repeatable):
    """As where a warning of loky's, which it makes in this thread, is an error."""
    before = workers(runner, Ids())
    with runner._processes().used() as pool:
        thread = pool._thread
    thread.process_result_item = None  # which it calls
    with pytest.raises(WorkerError if repeatable else OutcomeUnknown) as caught:
        workers(runner, Ids(repeatable=repeatable))
    if not repeatable:
        assert sorted([*caught.value.chunks, *caught.value.untouched]) == [(0,), (1,)]
    assert not thread.is_alive()
    wait_until(lambda: not any(map(is_alive, before)))
    assert workers(runner, Ids()).isdisjoint(before)


def work_here(jlbackend):
    """Return where the work was done, and the id of this process."""
    from dosna.engines import joblib

    processes.IDLE_SECONDS = 1e6
    runner = joblib.JoblibRunner(njobs=1, jlbackend=jlbackend)
    return workers(runner, Ids()), os.getpid()


@pytest.mark.parametrize("jlbackend", ["loky", "multiprocessing"])
def test_a_child_that_used_processes_ends(jlbackend):
    require("joblib")
    child = get_context("spawn").Process(target=work_here, args=(jlbackend,))
    child.start()
    try:
        child.join(HANG)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("jlbackend", ["loky", "multiprocessing"])
def test_a_worker_of_a_pool_that_may_have_no_children_works_by_itself(jlbackend):
    require("joblib")
    with get_context("spawn").Pool(1) as pool:
        used, process = pool.apply_async(work_here, (jlbackend,)).get(HANG)
    assert used == {process}


def test_a_worker_of_joblib_that_may_start_no_processes_works_by_itself():
    found = require("joblib").Parallel(2, backend="loky")(
        require("joblib").delayed(work_here)("multiprocessing") for _ in range(2)
    )
    assert all(used == {process} for used, process in found)
