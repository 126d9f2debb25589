"""Workers: threads that claim files, work on them, and hold their leases meanwhile."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from dosna.errors import (
    ConfigurationError,
    DosnaError,
    MissingDependencyError,
    SourceChangedError,
    StorageError,
)
from dosna.loader.bucket import Bucket
from dosna.loader.config import Config
from dosna.loader.inventory import Claim, Inventory, Phase
from dosna.loader.target import Check, OutdatedError, Target
from dosna.loader.targets import open_target

__all__ = ["Differ", "Heartbeat", "Loader", "Worker"]

log = logging.getLogger("dosna.loader")

_RENEWALS = 4
"""The number of times that a lease is renewed before it would end."""
_TRUSTED = 2 / 3
"""The part of a lease after which its holder stops.

Work that is under way then has the rest of the lease to come to its end.
"""
_STALLED_SECONDS = 900.0
"""The time without a sign of progress after which a worker lets its lease end."""
_POLL_SECONDS = (0.2, 5.0)


class _LeaseLostError(Exception):
    """An error raised when another worker may have the file.

    It is not a DosnaError, which an ingest might skip.
    """


class _Stopped(Exception):
    """An error raised when the process must end."""


def _seconds() -> float:
    # This clock goes on while a machine sleeps, as the database's clock does.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Heartbeat:
    """A file that is touched while there are signs of life.

    Parameters
    ----------
    path : str, optional
        The path of the file; nothing is touched without one.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._last = float("-inf")

    def beat(self) -> None:
        """Record a sign of life."""
        now = _seconds()
        if self._path is None or now - self._last < 1:
            return
        self._last = now
        with open(self._path, "a", encoding="ascii"):
            os.utime(self._path)


class _Lease:
    """The state of a claim, as known to the thread that holds it."""

    def __init__(self, claim: Claim, asked: float, seconds: float) -> None:
        self.claim = claim
        self.seconds = seconds
        self.lost = False
        self.sign = self.asked = asked

    def renewed(self, asked: float) -> None:
        """Extend the lease, counted from `asked`, a moment before it was renewed."""
        self.asked = asked

    @property
    def holds(self) -> bool:
        """True if it is certain that no other worker has the file."""
        return not self.lost and _seconds() < self.asked + self.seconds * _TRUSTED


class Worker(ABC):
    """A worker that claims files and works on several at a time, in threads of this process.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    inventory : Inventory
        The inventory, which is prepared.
    bucket : Bucket
        The place where the files are.
    stop : threading.Event
        An event that stops the worker. When it is set, files are finished or given back, and
        `run` returns.
    """

    phase: ClassVar[Phase]

    def __init__(
        self, config: Config, inventory: Inventory, bucket: Bucket, stop: threading.Event
    ) -> None:
        self.config, self.inventory, self.bucket = config, inventory, bucket
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.count = 0
        """The number of files whose work has ended."""
        self._target: Target | None = None
        self._leases: dict[str, _Lease] = {}
        self._lock = threading.Lock()
        self._stop = stop
        self._error: BaseException | None = None
        self._heartbeat = Heartbeat(config.heartbeat)

    def run(self, once: bool = False) -> int:
        """Work until `stop` is set, or with `once` until there is nothing left to do.

        Returns
        -------
        int
            The number of files whose work has ended.
        """
        self.bucket.connect()
        target = self._target = open_target(self.config, self.bucket)
        threads = [
            threading.Thread(target=self._serve, args=(target, once), name=f"{self.phase}-{n}")
            for n in range(self.config.jobs)
        ]
        for thread in threads:
            thread.start()
        pause = min(self.config.lease_time / _RENEWALS, 10.0)
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(pause)
                    self._renew()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            target.close()
        if self._error is not None:
            raise self._error
        return self.count

    def _renew(self) -> None:
        now = _seconds()
        with self._lock:
            alive = [x for x in self._leases.values() if now - x.sign < _STALLED_SECONDS]
            stalled = len(self._leases) - len(alive)
        if not stalled:
            self._heartbeat.beat()
        if not alive:
            return
        try:
            held = self.inventory.renew([x.claim.token for x in alive], self.config.lease_time)
        except StorageError as error:
            log.warning("leases cannot be renewed: %s", error)
            return
        for lease in alive:
            if lease.claim.token in held:
                lease.renewed(now)
            else:
                lease.lost = True

    # -- one thread -----------------------------------------------------------------------

    def _serve(self, target: Target, once: bool) -> None:
        try:
            shortest, longest = _POLL_SECONDS
            pause = shortest
            while not self._stop.is_set():
                if self._next(target):
                    pause = shortest
                    continue
                if once and self._is_settled():
                    return
                self._stop.wait(pause)
                pause = min(2 * pause, 0.5 if once else longest)
        except BaseException as error:
            log.critical("%s: %s", type(error).__name__, error)
            self._error = error
            self._stop.set()

    def _is_settled(self) -> bool:
        try:
            return self.inventory.unsettled(self.phase) == 0
        except StorageError as error:
            log.warning("%s", error)
            return False

    def _next(self, target: Target) -> bool:
        """Work on a file, if one can be claimed; return False if not."""
        config = self.config
        asked = _seconds()
        try:
            claim = self.inventory.claim(
                self.phase, self.name, config.lease_time, config.max_attempts
            )
        except StorageError as error:
            log.warning("%s", error)
            return False
        if claim is None:
            return False
        with self._holding(_Lease(claim, asked, config.lease_time)) as lease:
            self._work(target, lease)
        return True

    @contextmanager
    def _holding(self, lease: _Lease) -> Iterator[_Lease]:
        with self._lock:
            self._leases[lease.claim.token] = lease
        try:
            yield lease
        finally:
            with self._lock:
                del self._leases[lease.claim.token]

    def _work(self, target: Target, lease: _Lease) -> None:
        claim, config = lease.claim, self.config

        def check() -> None:
            lease.sign = _seconds()
            if not lease.holds:
                raise _LeaseLostError
            if self._stop.is_set():
                raise _Stopped

        try:
            noted = self._do(target, lease, check)
            with self._lock:
                self.count += noted
            if not noted:
                raise _LeaseLostError
        except _LeaseLostError:
            log.warning("%s: the lease was lost; another worker has it", claim.key)
        except _Stopped:
            log.info("%s: given back", claim.key)
            self.note(lease, lambda: self.inventory.release(self.phase, claim))
        except (ConfigurationError, MissingDependencyError):
            # A fault of this process, and not of the file.
            self.note(lease, lambda: self.inventory.release(self.phase, claim))
            raise
        except Exception as error:
            text = str(error) or type(error).__name__
            if not isinstance(error, DosnaError):
                text = f"{type(error).__name__}: {text}"
            log.warning("%s: attempt %d failed: %s", claim.key, claim.attempts, text)
            self.note(
                lease,
                lambda: self.inventory.failed(
                    self.phase, claim, text, config.retry_time, config.max_attempts
                ),
            )

    def note(self, lease: _Lease, change: Callable[[], bool]) -> bool:
        """Change the row of a file; retry while the database is away and the lease holds."""
        while True:
            try:
                return change()
            except StorageError as error:
                log.warning("%s: %s", lease.claim.key, error)
                if not lease.holds:
                    return False
                time.sleep(_POLL_SECONDS[0])

    @abstractmethod
    def _do(self, target: Target, lease: _Lease, check: Check) -> bool:
        """Work on a file, and record the result; return False if it could not be recorded."""


class Loader(Worker):
    """A worker that loads files."""

    phase = "load"

    def _do(self, target: Target, lease: _Lease, check: Check) -> bool:
        claim = lease.claim
        entry, message = target.load(claim, check)
        noted = self.note(lease, lambda: self.inventory.loaded(claim, entry, message))
        if noted:
            log.info("%s: loaded", claim.key)
        return noted


class Differ(Worker):
    """A worker that verifies files that were loaded."""

    phase = "diff"

    def _do(self, target: Target, lease: _Lease, check: Check) -> bool:
        claim = lease.claim
        try:
            found = target.compare(claim, check)
        except (OutdatedError, SourceChangedError) as error:
            text = f"to be loaded again: {error}"
            log.info("%s: %s", claim.key, text)
            return self.note(lease, lambda: self.inventory.outdated(claim, text))
        passed = found.difference is None
        noted = self.note(lease, lambda: self.inventory.compared(claim, passed, found.message))
        if noted:
            log.log(logging.INFO if passed else logging.ERROR, "%s: %s", claim.key, found.message)
        return noted
