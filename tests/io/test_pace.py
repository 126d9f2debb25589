"""The pace of requests to a simulated server, by a clock that only moves when told."""

from __future__ import annotations

import time
from email.utils import formatdate
from itertools import pairwise

import pytest

from dosna.errors import StoreTimeoutError
from dosna.io.failure import Failure, pause_of
from dosna.io.pace import Pacer

LATENCY = 0.002


class Clock:
    """What `dosna.io.pace` needs of the module `time`."""

    def __init__(self):
        self.now = 1.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("dosna.io.pace.time", found)
    return found


class Server:
    """A server that takes `rate` requests a second."""

    def __init__(self, clock, rate, burst=1.0):
        self.clock, self.rate, self.burst = clock, rate, burst
        self.tokens, self.filled = burst, clock.now
        self.taken = self.refused = 0
        self.pause = None

    def __call__(self):
        now = max(self.clock.now, self.filled)
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        self.clock.now += LATENCY
        if self.tokens >= 1:
            self.tokens -= 1
            self.taken += 1
            return
        self.refused += 1
        failure = Failure("the request failed", 429)
        failure.pause = self.pause
        raise failure


def refused(status=429, pause=None):
    failure = Failure("the request failed", status)
    failure.pause = pause
    return failure


def work(clock, server, pacers, seconds):
    """Let clients make requests in turn; each has a time of its own, and the earliest goes on."""
    times = [clock.now] * len(pacers)
    end = clock.now + seconds
    while (now := min(times)) < end:
        who = times.index(now)
        clock.now = now
        pacers[who].run(server, end + 60)
        times[who] = clock.now
    clock.now = end


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("burst", [0.1, 1.0])
@pytest.mark.parametrize("rate", [20.0, 100.0, 350.0])
def test_clients_settle_at_the_rate_of_a_server(clock, rate, burst, clients):
    server, pacers = Server(clock, rate, burst * rate), [Pacer(30.0) for _ in range(clients)]
    work(clock, server, pacers, 10.0)
    server.taken = server.refused = 0
    work(clock, server, pacers, 60.0)
    assert server.taken >= 0.85 * rate * 60
    assert server.refused <= 0.1 * (server.taken + server.refused)


def test_a_client_takes_the_rate_that_another_leaves(clock):
    server, pacers = Server(clock, 100.0, 10.0), [Pacer(30.0) for _ in range(2)]
    work(clock, server, pacers, 20.0)
    server.taken = 0
    work(clock, server, pacers[:1], 20.0)
    assert server.taken >= 0.85 * 100 * 20


def test_a_server_with_pauses_is_asked_for_more_less_often(clock):
    server, pacers = Server(clock, 100.0, 10.0), [Pacer(30.0)]
    server.pause = 1.0
    work(clock, server, pacers, 60.0)
    server.taken = server.refused = 0
    work(clock, server, pacers, 120.0)
    assert server.taken >= 0.85 * 100 * 120
    assert server.refused <= 0.01 * server.taken


def test_nothing_is_limited_before_the_first_refusal_or_long_after(clock):
    server, pacer = Server(clock, 1e9, 1e9), Pacer(30.0)
    work(clock, server, [pacer], 1.0)
    assert pacer.rate is None
    server.tokens, server.rate = 0.0, 1e-9
    with pytest.raises(Failure):
        pacer.run(server, 0.0)
    assert pacer.rate is not None
    server.rate = 1e9
    work(clock, server, [pacer], 60.0)
    assert pacer.rate is None


def test_refusals_of_one_round_trip_lower_the_rate_once(clock):
    pacer = Pacer(30.0)

    def nested(depth):
        """Refuse requests that are all under way together."""

        def request():
            if depth:
                with pytest.raises(Failure):
                    pacer.run(nested(depth - 1), 0.0)
            raise refused(503)

        return request

    with pytest.raises(Failure):
        pacer.run(nested(10), 0.0)
    once = pacer.rate
    clock.now += 1
    with pytest.raises(Failure):
        pacer.run(nested(0), 0.0)
    assert once / 2 <= pacer.rate < once


def test_refusals_are_no_failures_while_the_time_lasts(clock):
    asked = []

    def request():
        asked.append(clock.now)
        if len(asked) < 8:
            raise refused()
        return "done"

    assert Pacer(30.0).run(request, 60.0) == "done"
    assert len(asked) == 8


def test_a_server_that_only_refuses_is_asked_less_and_less_until_the_time_is_over(clock):
    asked, begin = [], clock.now

    def request():
        asked.append(clock.now)
        raise refused()

    with pytest.raises(Failure):
        Pacer(30.0).run(request, begin + 10)
    assert 10 <= clock.now - begin <= 12
    gaps = [after - before for before, after in pairwise(asked)]
    assert gaps == pytest.approx(sorted(gaps))
    assert len(asked) < 30


def test_a_busy_server_that_does_not_speak_of_requests_fails_at_once(clock):
    asked = []

    def request():
        asked.append(clock.now)
        raise refused(503)

    with pytest.raises(Failure):
        Pacer(30.0).run(request, 60.0)
    assert len(asked) == 1


@pytest.mark.parametrize(("asked", "kept"), [(7.0, 7.0), (3600.0, 30.0)])
def test_a_pause_is_kept_by_all_and_bounded(clock, asked, kept):
    pacer, begin = Pacer(30.0), clock.now
    with pytest.raises(Failure):
        pacer.run(Server(clock, 0.0, 0.0), 0.0)
    busy = Server(clock, 0.0, 0.0)
    busy.pause = asked
    with pytest.raises(Failure):
        pacer.run(busy, 0.0)
    begin = clock.now
    pacer.run(lambda: None, 0.0)
    assert kept <= clock.now - begin < kept + 0.1


def test_what_would_start_too_late_is_not_made(clock):
    pacer, made = Pacer(30.0), []
    busy = Server(clock, 0.0, 0.0)
    busy.pause = 9.0
    with pytest.raises(Failure):
        pacer.run(busy, 0.0)
    with pytest.raises(StoreTimeoutError):
        pacer.run(lambda: made.append(1), 0.0, until=clock.now + 5)
    pacer.run(lambda: made.append(2), 0.0, until=clock.now + 10)
    assert made == [2]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": " 120 "}, 120.0),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Wed, 21 Oct 2015 07:27:00 GMT",
            },
            60.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_pause_of_an_answer(headers, pause):
    assert pause_of(headers) == pause


def test_the_date_of_an_answer_without_a_date_is_compared_with_the_clock():
    found = pause_of({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert found == pytest.approx(3600, abs=600)
