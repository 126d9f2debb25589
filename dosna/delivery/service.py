"""The service: everything together, from its start to its end."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import uuid
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any, Self

from dosna.core.sizes import format_size
from dosna.delivery.objects import OWNER, kept_text, open_place
from dosna.delivery.running import Dispatcher, Submissions, open_workers
from dosna.delivery.running.jobs import Transform, scratch_folder
from dosna.delivery.running.submitting import Refused
from dosna.delivery.settings import DAY, Settings
from dosna.delivery.state import State
from dosna.delivery.state.requests import Row, Submitted
from dosna.delivery.state.tables import ENDED, LOOKUP
from dosna.delivery.transform import CODEGENS
from dosna.delivery.transform import transform as _default_transform
from dosna.delivery.transform.environment import func_adl_python
from dosna.delivery.transform.sandbox import lacking
from dosna.errors import ConfigurationError, DosnaError, StorageError

__all__ = ["Service"]

logger = logging.getLogger("dosna.delivery")

_SWEEP = 600.0
_TRIES = 3
_DROP_SECONDS = 60.0
_LET_GO = 10.0


class Service:
    """A delivery service without its HTTP server, which `dosna.delivery.front` provides.

    Use it in a ``with`` block. When it starts, it continues everything that an earlier service
    with the same state has not finished.

    Parameters
    ----------
    settings : Settings
        The settings.
    transform : callable, optional
        The transformer; `dosna.delivery.transform.transform` by default.

    Attributes
    ----------
    settings : Settings
    state : State
    place : ObjectPlace
    dispatcher : Dispatcher

    Examples
    --------
    >>> from dosna.delivery import Service, Settings
    >>> settings = Settings(roots=("/data",), state="/var/lib/dosna")  # doctest: +SKIP
    >>> with Service(settings) as service:  # doctest: +SKIP
    ...     service.state.requests.of(None)
    """

    def __init__(self, settings: Settings, transform: Transform | None = None) -> None:
        self.settings, self._transform = settings, transform or _default_transform
        try:
            os.makedirs(settings.state, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unusable(settings.state, error) from None
        self.state = State(settings.database_url)
        self.place = open_place(settings.objects_place, settings.objects_endpoint)
        self.started = time.time()
        self._closing = ExitStack()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.state.close)
            stack.enter_context(_only_one(self.settings.state))
            self.place.check()
            self._claim_place()
            self.state.prepare()
            self._hold_database()
            shutil.rmtree(scratch_folder(self.settings), ignore_errors=True)
            self.workers = open_workers(self.settings, self._transform)
            stack.callback(self.workers.close)
            self.dispatcher = Dispatcher(self.state, self.place, self.workers, self.settings)
            self._submissions = Submissions(
                self.state, self.workers, self.dispatcher, self.settings
            )
            self._take_up()
            self.dispatcher.start()
            stack.callback(self.dispatcher.close)
            stack.callback(self._submissions.close)
            sweeper = threading.Thread(target=self._sweep_often, name="dosna-sweeper", daemon=True)
            sweeper.start()
            stack.callback(self._stopped.set)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def _claim_place(self) -> None:
        """Check that the place of results is that of this state: the results of others are gone
        when they are not in the tables.
        """
        mine = kept_text(os.path.join(self.settings.state, "id"), str(uuid.uuid4()))
        found = self.place.claim(mine)
        if found != mine:
            raise ConfigurationError(
                f"{self.settings.objects_place} has the results of another service: choose "
                f"another place. If there is no other service any more, delete {OWNER} there"
            )

    def _hold_database(self) -> None:
        """Check that no service with another state uses the database, and keep others from it."""
        end = time.monotonic() + _LET_GO
        while not self.state.database.hold():
            # That of a service that was killed just now may not know yet.
            if time.monotonic() > end:
                raise ConfigurationError(
                    f"another service uses {self.state.database.shown}: give each service a "
                    "database of its own"
                )
            time.sleep(0.2)

    def _take_up(self) -> None:
        """Continue what an earlier service has not finished, and delete what is not wanted."""
        for row in self.state.requests.unfinished():
            if not row.answered:
                # Its client was told that the submission failed, and submits it again.
                self.delete(row.id)
            elif row.status == LOOKUP:
                self._submissions.prepare(row)
            else:
                self.dispatcher.add(row)
        for row in self.state.requests.broken_off():
            self.dispatcher.collectors.drop(row)

    def _sweep_often(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception as error:
                logger.warning("expired results could not be deleted: %s", error)
            if self._stopped.wait(_SWEEP):
                return

    def sweep(self) -> None:
        """Delete expired requests and datasets, and the results of requests that are gone."""
        self.state.database.hold_still()
        now = time.time()
        for id in self.state.requests.expired(now - self.settings.keep_days * DAY):
            self.delete(id)
        days = max(self.settings.keep_days, self.settings.lookup_days)
        self.state.datasets.forget(now - days * DAY)
        # All results that exist now belong to requests that are already in the table.
        there = list(self.place.requests())
        for id in set(there) - self.state.requests.with_objects():
            self.place.delete(id)

    # -- what clients ask for --------------------------------------------------------------

    def accept(self, what: Submitted) -> Row | Refused:
        """Add a request if the limits of its user permit it. It is not started yet."""
        open_, nbytes = self._repeated(self.state.requests.usage, what.owner)
        if open_ >= self.settings.running_limit:
            return Refused(
                f"{open_} requests of {what.owner} are unfinished, which is the limit: wait "
                "for one, or cancel one",
                "Busy",
            )
        if nbytes >= int(self.settings.bytes_limit):
            return Refused(
                f"the results of {what.owner} have {nbytes} bytes, but the limit is "
                f"{self.settings.bytes_limit}: delete some requests",
                "Busy",
            )
        id: str = self._repeated(self.state.requests.add, what)
        return self._repeated(self.state.requests.get, id)

    def prepare(self, row: Row) -> Future[Refused | None]:
        """Look up the dataset of a request, transform its first file, and start the others."""
        return self._submissions.prepare(row)

    def answer(self, row: Row, refused: Refused | None) -> None:
        """Discard a request that was refused; keep any other one across restarts."""
        forget = self.delete if row.destination else self.state.requests.delete
        change = self.state.requests.answer if refused is None else forget
        self._repeated(change, row.id)

    def cancel(self, id: str) -> None:
        """Cancel a request, and delete its results."""
        if self.state.requests.end(id, "Canceled"):
            self.dispatcher.drop(id)

    def delete(self, id: str) -> None:
        """Delete a request with its results."""
        row = self.state.requests.get(id)
        if row is not None and row.status not in ENDED:
            self.cancel(id)
        if row is not None and row.destination and row.status != "Complete":
            # As long as the row says where it is.
            with suppress(TimeoutError):
                self.dispatcher.collectors.drop(row).exception(_DROP_SECONDS)
        self.state.requests.delete(id)
        self.dispatcher.drop(id)

    def codegens(self) -> list[str]:
        """Return the kinds of selections that run here."""
        found = list(CODEGENS)
        try:
            func_adl_python(self.settings.func_adl)
        except DosnaError:
            found.remove("uproot")
        return found

    def is_healthy(self) -> dict[str, Any]:
        """Return the health of the parts of the service."""
        found: dict[str, Any] = {"workers": self.workers.slots, "busy": self.dispatcher.busy}
        why = lacking()
        found["confinement"] = f"missing: {why}" if why else "good"
        found["selections"] = ", ".join(self.codegens())
        found["free space"] = format_size(shutil.disk_usage(self.settings.state).free)
        for name, look in (("database", self.state.users.all), ("objects", self.place.check)):
            try:
                look()
                found[name] = "good"
            except Exception as error:
                found[name] = f"failed: {error}"
        return found

    def _repeated(self, change: Any, *args: Any) -> Any:
        """Make a change in the database, and repeat it if the connection was lost."""
        for left in reversed(range(_TRIES)):
            try:
                return change(*args)
            except StorageError:
                if not left:
                    raise
                time.sleep(0.2)
        raise AssertionError

    def find(self, id: str, owner: str) -> Row | None:
        """Return a request of a user, or None if there is none."""
        row = self.state.requests.get(id)
        return row if row is not None and row.owner == owner else None


def _unusable(folder: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the state cannot be kept in {folder}: {error.strerror}. Give a folder that can be "
        "written, by state"
    )


class _only_one:
    """A lock on the folder of the state, which is released when the process ends.

    Parameters
    ----------
    folder : str
        The folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = -1

    def __enter__(self) -> None:
        import fcntl

        try:
            self._file = os.open(os.path.join(self._folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self._folder, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigurationError(
                f"another service uses the state in {self._folder}: give each service a folder "
                "of its own"
            ) from None

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)
