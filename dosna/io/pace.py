"""The pace of requests to a server that refuses those above some rate.

Such a server answers 503 or 429 to what it did not do. Requests of one client then start one
after the other at a rate that falls with such a refusal, to what the server took since the one
before, and rises slowly otherwise. Until the first refusal nothing is limited or counted.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dosna.errors import StoreTimeoutError
from dosna.io.failure import Failure
from dosna.io.fork import renew_in_children

__all__ = ["Pacer"]

T = TypeVar("T")

_FIRST, _LEAST, _MOST = 50.0, 1.0, 10_000.0
"""Requests a second: after the first refusal, at least, and where a limit has no effect."""
_SHARE = 0.95
"""The part of the rate that the server took at which requests go on after a refusal."""
_LEAST_CUT, _UNCOUNTED_CUT = 0.6, 0.8
_ENOUGH = 10
"""The number of answers from which the rate that the server accepts can be estimated."""
_QUICK_STEP, _SLOW_STEP = (4.0, 0.1), (20.0, 0.5)
"""The answers and the seconds without a refusal after which the rate rises."""
_PAUSES, _LONGEST_STEP = 10.0, 30.0
"""The seconds of a step, where refusals ask for a pause: for each of them, and at most."""
_RISE = 1.05
_LATE = 0.02
"""The seconds by which a request may start late without delaying all later ones."""


class Pacer:
    """The rate at which the requests of one client start, for any number of threads.

    Parameters
    ----------
    longest : float
        The most seconds that requests pause because a server asks for it.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Start without a limit, also in a forked child, where the locks may be held."""
        # Whoever holds the gate waits for the next start. The others wait for the gate, so that
        # a changed rate counts for all of them.
        self._gate, self._lock = threading.Lock(), threading.Lock()
        self._rate: float | None = None
        self._reached = math.inf  # the rate at the last refusal, up to which it rises quickly
        self._rise, self._step = _RISE, _SLOW_STEP[1]
        self._next = self._cut = self._since = self._stepped = -math.inf
        self._taken = self._taken_in_step = 0
        self._held = 0.0  # the last rate since the cut at which nothing was refused

    @property
    def rate(self) -> float | None:
        """Requests a second, or None as long as nothing limits them."""
        return self._rate

    def run(self, request: Callable[[], T], patient: float, until: float = math.inf) -> T:
        """Make a request at its turn, again while the server only asks for fewer requests.

        Parameters
        ----------
        request : callable
            A function that makes the request once, and raises `Failure` if it fails.
        patient : float
            The time of ``time.monotonic()`` up to which refusals are no failures.
        until : float
            The time of ``time.monotonic()`` after which the request does not start any more.

        Raises
        ------
        Failure
            The request failed.
        StoreTimeoutError
            The turn of the request did not come in time, and it was not made.
        """
        while True:
            started = 0.0 if self._rate is None else self._start(until)
            try:
                found = request()
            except Failure as failure:
                if failure.busy:
                    self._refused(started, failure.pause or 0.0)
                elif started and failure.status:
                    self._accepted(started)
                if not failure.throttled or time.monotonic() >= patient:
                    raise
            else:
                if started:
                    self._accepted(started)
                return found

    def _start(self, until: float) -> float:
        """Wait for the turn of a request, and return the time at which it starts."""
        with self._gate:
            while (rate := self._rate) is not None:
                now, turn = time.monotonic(), self._next
                if max(now, turn) > until:
                    raise StoreTimeoutError(
                        "a request could not be started in time: the server takes too few of "
                        "them. Try again when it is less busy"
                    )
                if now >= turn:
                    with self._lock:
                        self._next = max(self._next, now - _LATE) + 1 / rate
                    return now
                time.sleep(turn - now)
        return 0.0

    def _refused(self, started: float, pause: float) -> None:
        """Lower the rate, once for all requests that were under way, and keep a pause."""
        with self._lock:
            now = time.monotonic()
            if pause:
                pause = min(pause, self._longest)
                self._next = max(self._next, now + pause)
                # Where a refusal costs a pause, more is tried less often.
                self._step = max(self._step, min(_PAUSES * pause, _LONGEST_STEP))
            if self._rate is None:
                self._rate = _FIRST if self._reached == math.inf else self._reached
            elif started < self._cut:
                return
            else:
                self._rate = max(_LEAST, self._lowered(self._rate, now))
                if self._taken:
                    self._reached = self._rate
            self._cut = now
            self._next = max(self._next, now + 1 / self._rate)
            self._since = self._stepped = max(now, self._next - 1 / self._rate)
            self._taken = self._taken_in_step = 0
            self._rise, self._held = _RISE, 0.0

    def _lowered(self, rate: float, now: float) -> float:
        if self._taken < _ENOUGH or now <= self._since:
            return _UNCOUNTED_CUT * rate
        taken = max(self._taken / (now - self._since), self._held)
        return min(max(_SHARE * taken, _LEAST_CUT * rate), _SHARE * rate)

    def _accepted(self, started: float) -> None:
        """Count an answer, and raise the rate if the server has taken enough at this one."""
        with self._lock:
            if self._rate is None or started < self._since:
                return
            self._taken += 1
            self._taken_in_step += 1
            quick = 2 * self._rate <= self._reached
            count, seconds = _QUICK_STEP
            if not quick:
                # The longer nothing is refused, the sooner and the more the rate rises.
                count = max(count, _SLOW_STEP[0] * (_RISE - 1) / (self._rise - 1))
                seconds = self._step
            now = time.monotonic()
            if self._taken_in_step < count or now - self._stepped < seconds:
                return
            self._stepped, self._taken_in_step, self._held = now, 0, self._rate
            if quick:
                self._since, self._taken = now, 0
                self._rate *= 2
            else:
                self._rate *= self._rise
                self._rise = min(2.0, 3 * self._rise - 2)
            if self._rate > _MOST:
                self._rate = None
