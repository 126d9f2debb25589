"""Threads of stores that are far away: what is under way at once, and what errors do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import HANG, Gathering, require

from dosna.engines.base import reported
from dosna.io.parallel import Workers, in_flight


@pytest.fixture
def workers():
    workers = Workers("test", 4, 100)
    yield workers
    workers.close()


def waits(workers, seconds=0.0):
    """Do what a store does before a request."""
    if workers.batch is not None:
        workers.batch.widen()
    time.sleep(seconds)


def test_each_item_is_worked_on_once(workers):
    done = []

    def work(item):
        waits(workers)
        done.append(item)

    for count in (0, 1, 2, 100):
        workers.for_each(work, iter(range(count)), 1)
        assert sorted(done) == list(range(count))
        done.clear()


@pytest.mark.parametrize(("nbytes", "most"), [(0, 4), (50, 2), (99, 1), (1000, 1)])
def test_threads_are_bounded_by_number_and_bytes(workers, nbytes, most):
    threads = set()
    gathering = Gathering(most)

    def work(item):
        threads.add(threading.get_ident())
        waits(workers)
        with gathering:
            pass

    workers.for_each(work, range(20), nbytes)
    assert len(threads) == gathering.most == most


def test_work_that_waits_for_nothing_stays_in_one_thread(workers):
    threads = set()
    workers.for_each(lambda item: threads.add(threading.get_ident()), range(50), 1)
    assert len(threads) == 1


def test_items_are_taken_when_their_turn_comes(workers):
    taken, done = [], []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    def work(item):
        waits(workers, 0.001)
        done.append(item)
        assert len(taken) - len(done) <= 4

    workers.for_each(work, items(), 1)


def test_an_error_ends_the_work_and_waits_for_what_is_under_way(workers):
    under_way, done = set(), []

    def work(item):
        under_way.add(item)
        waits(workers, 0.02)
        under_way.remove(item)
        if item == 5:
            raise LookupError(item)
        done.append(item)

    with pytest.raises(LookupError, match="5"):
        workers.for_each(work, range(10_000), 1)  # which take a minute
    assert not under_way
    assert len(done) < 9_000
    assert workers.batch is None


def test_an_error_of_the_items_is_raised(workers):
    def items():
        yield from range(10)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        workers.for_each(lambda item: waits(workers, 0.001), items(), 1)


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result(HANG)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("call", [lambda function: function(), in_a_thread])
def test_progress_is_reported_in_the_callers_thread(call, blocking):
    """Also if the callback makes requests itself, of the same store."""
    workers = Workers("test", 4, 100, blocking=blocking)
    told, threads = [], set()

    def report(done):
        waits(workers)
        told.append(done)
        threads.add(threading.get_ident())

    def run():
        workers.for_each(lambda _: waits(workers, 0.001), reported(range(50), report), 1)
        assert threads == {threading.get_ident()}

    call(run)
    assert told == list(range(1, 51))
    workers.close()


@pytest.mark.parametrize("call", [lambda function: function(), in_a_thread])
def test_an_error_of_the_callback_is_raised_and_ends_the_work(workers, call):
    done, told = [], []

    def report(number):
        told.append(number)
        if number == 10:
            raise ValueError("the callback")

    def work(item):
        waits(workers, 0.01)
        done.append(item)

    with pytest.raises(ValueError, match="the callback"):
        call(lambda: workers.for_each(work, reported(range(1000), report), 1))
    assert told[-1] == 10
    assert len(done) < 1000


def test_requests_without_a_thread_are_waited_for_and_bounded(workers):
    ended, most = [], []

    def work(item):
        batch = workers.batch
        batch.begin()
        under_way.add(item)
        most.append(len(under_way))

        if len(under_way) == 4:
            full.set()

        def end():
            full.wait(HANG)
            under_way.remove(item)
            ended.append(item)
            batch.end(LookupError("lost") if item == fails else None)

        threading.Timer(0.01, end).start()

    under_way, full, fails = set(), threading.Event(), None
    workers.for_each(work, range(20), 1)
    assert sorted(ended) == list(range(20))
    assert max(most) == 4
    ended.clear()
    fails = 3
    with pytest.raises(LookupError, match="lost"):
        workers.for_each(work, range(10_000), 1)
    assert not under_way
    assert 4 <= len(ended) < 9_000


def test_callers_share_the_threads(workers):
    done = []

    def work(item):
        waits(workers, 0.002)
        done.append(item)

    callers = [
        threading.Thread(target=workers.for_each, args=(work, range(20), 1)) for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(done) == sorted(list(range(20)) * 6)


@pytest.mark.parametrize("most", [1, 3])
def test_in_flight_bounds_what_is_under_way(most):
    lock, here, peak, done = threading.Lock(), [], [], []

    def work(item):
        with lock:
            here.append(item)
            peak.append(len(here))
        time.sleep(0.001)
        with lock:
            here.remove(item)
            done.append(item)

    in_flight(work, iter(range(30)), most)
    assert sorted(done) == list(range(30))
    assert max(peak) <= most
    # Nested, as where a request needs others.
    in_flight(lambda item: in_flight(work, range(3), most), range(4), most)
    assert len(done) == 42


def test_an_error_ends_what_is_in_flight():
    done = []

    def work(item):
        if item == 3:
            raise KeyError(item)
        done.append(item)

    with pytest.raises(KeyError):
        in_flight(work, iter(range(10_000)), 4)
    assert len(done) < 10_000
    with pytest.raises(ZeroDivisionError):
        in_flight(work, (1 // (2 - n) for n in range(9)), 4)


POOLS = {
    "store": "from dosna.io.parallel import Workers\nkept = Workers('w', 2, 2)\nkept.submit(int)",
    "joblib": "from dosna.engines.joblib import JoblibRunner\n"
    "JoblibRunner(njobs=2).map(list, [1, 2, 3])",
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.slow
def test_ctrl_c_while_a_thread_starts_lets_the_process_end(pool):
    if pool == "joblib":
        require("joblib")
    code = f"""
import subprocess
import sys
import threading
start = threading.Thread.start
def interrupted(thread):
    start(thread)
    threading.Thread.start = start
    raise KeyboardInterrupt
threading.Thread.start = interrupted
try:
    {POOLS[pool].replace(chr(10), chr(10) + "    ")}
except KeyboardInterrupt:
    print("interrupted")
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n"), ran.stderr


@pytest.mark.parametrize("blocking", [False, True])
def test_ctrl_c_while_a_thread_begins_leaves_nothing_under_way(monkeypatch, blocking):
    workers = Workers("trial", 4, 1 << 20, blocking)
    begun, under_way, done = threading.Event(), [], []
    start = threading.Thread.start

    def work(item):
        under_way.append(item)
        begun.set()
        time.sleep(0.1)
        done.append(item)
        under_way.remove(item)

    def start_and_be_interrupted(thread):
        start(thread)
        if threading.current_thread() is threading.main_thread():
            begun.wait(0.3)
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            workers.for_each(work, range(100), 1)
        assert not under_way
        assert len(done) < 100
        workers.for_each(work, range(2), 1)
        assert done[-2:] in ([0, 1], [1, 0])
    finally:
        workers.close()
