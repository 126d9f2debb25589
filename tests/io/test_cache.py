from __future__ import annotations

import os
import threading

import pytest
from support import HANG

from dosna.errors import ConnectionError
from dosna.io.cache import Cache
from dosna.io.fork import ForkGuard
from dosna.io.parallel import Workers


def test_a_value_is_made_once_for_all_threads():
    cache, made, go = Cache(10), [], threading.Event()

    def make():
        go.wait(HANG)
        made.append(1)
        return "value"

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.get("key", make))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(HANG)
    assert (found, made) == (["value"] * 4, [1])


def test_the_least_recently_used_goes_first():
    cache = Cache(10, len)
    for key, value in (("a", "1234"), ("b", "1234")):
        cache.put(key, value)
    cache.get("a", lambda: pytest.fail("it is there"))
    cache.put("c", "123456")
    assert [cache.peek(key) for key in "abc"] == ["1234", None, "123456"]
    cache.put("d", "longer than all that is allowed")
    assert [cache.peek(key) for key in "acd"] == [None, None, "longer than all that is allowed"]


def test_what_was_found_stays_longer():
    cache = Cache(10, len)
    for key in "abcd":
        cache.put(key, "12")
    assert (cache.find("a"), cache.find("nothing")) == ("12", None)
    cache.put("e", "1234")
    assert [cache.peek(key) for key in "abcde"] == ["12", None, "12", "12", "1234"]
    for key in "acde":
        cache.find(key)
    cache.put("f", "12345")  # all were found, so those that came first go
    assert [cache.peek(key) for key in "acdef"] == ["12", None, None, None, "12345"]


def test_a_value_is_replaced_and_its_size_with_it():
    cache = Cache(10, len)
    cache.put("a", "12345678")
    cache.put("a", "1")
    cache.put("b", "123456789")
    assert (cache.peek("a"), cache.peek("b")) == ("1", "123456789")
    cache.drop("a")
    cache.drop("a")
    assert cache.peek("a") is None
    cache.put("c", "1")
    assert (cache.peek("b"), cache.peek("c")) == ("123456789", "1")


def test_what_cannot_be_made_is_not_kept():
    cache = Cache(10)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: 2) == 2


def in_child(work):
    """Return the exit status of a forked child that does some work."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_locks_and_threads_are_made_anew_in_a_forked_child():
    cache, workers = Cache(10), Workers("test", 2, 100, blocking=True)
    cache.put("a", 1)
    workers.for_each(lambda _: None, range(4), 1)
    held, end = threading.Event(), threading.Event()

    def hold():
        with cache._lock, workers._lock:
            held.set()
            end.wait(HANG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(HANG)

    def work():
        done = []
        workers.for_each(done.append, range(4), 1)
        return cache.get("a", lambda: 2) == 2 and sorted(done) == [0, 1, 2, 3]

    try:
        assert in_child(work) == 0
    finally:
        end.set()
        thread.join(HANG)
        workers.close()
    assert cache.peek("a") == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_does_not_survive_a_fork_is_refused_there():
    guard = ForkGuard("a library")
    guard.check()
    guard.check()

    def work():
        with pytest.raises(ConnectionError, match="a library"):
            guard.check()
        return guard.inherited

    assert in_child(work) == 0
    assert not guard.inherited
