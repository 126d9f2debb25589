"""The transfers of data units, in threads of their own, so that submitting does not wait.

The state has a row for each replica before its transfer begins. The row also records the process
that works on it, so that another one can continue after that process has ended.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from dosna.errors import ConfigurationError, DosnaError
from dosna.io.processes import maker, maker_has_ended
from dosna.pilot.data.arrays import bytes_of, delivered_name
from dosna.pilot.data.files import File
from dosna.pilot.data.places import Place, open_place, place_url
from dosna.pilot.data.records import (
    digest_of,
    fields_of,
    files_of,
    note_files,
    replicas_of,
    require_room,
)
from dosna.pilot.data.staging import put, replicate
from dosna.pilot.descriptions import HIDDEN
from dosna.pilot.handles import row_of
from dosna.pilot.session import Session
from dosna.pilot.states import State

__all__ = ["Mover", "is_of_arrays"]

_UNITS = 4
"""The data units under way at a time."""
_TELL_SECONDS = 1.0
_movers: weakref.WeakKeyDictionary[Session, Mover] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Mover:
    """The transfers of a session. There is one for each session of a process, see `of`.

    Parameters
    ----------
    session : Session
        The session of the transfers.
    """

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self._pool = ThreadPoolExecutor(_UNITS, thread_name_prefix="dosna-pilot-data")
        self._mine = maker()
        self._started: set[str] = set()
        self._again: set[str] = set()
        self._units: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, session: Session) -> Mover:
        """Return the mover of a session, which continues what another process has left."""
        with _lock:
            found = _movers.get(session)
            if found is None:
                found = _movers[session] = cls(session)
                found.resume()
            return found

    def resume(self) -> None:
        """Start the transfers that wait, and those whose process has ended."""
        states = [str(State.New), str(State.Pending)]
        for row in list(self._session.store.rows("replicas", state=states)):
            owner = row["details"].get("owner", "")
            if not owner or owner == self._mine or maker_has_ended(owner):
                self.start(row["id"])
        for row in list(self._session.store.rows("data_units", state=str(State.New))):
            if is_of_arrays(row["description"]["file_urls"]):
                self.note_arrays(row["id"])

    def start(self, replica: str, again: bool = False) -> None:
        """Begin the transfer of a replica, unless it was begun here before.

        Then it is done `again` after the one that is under way, for what was written since.
        """
        data_unit, _, pilot_data = replica.partition("/")
        try:
            fields_of(self._session, pilot_data)
        except ConfigurationError:
            return  # until its credentials are passed again
        with self._lock:
            if replica in self._started:
                if again:
                    self._again.add(replica)
                return
            self._started.add(replica)
            unit = self._units.setdefault(data_unit, threading.Lock())
        self._pool.submit(self._run, replica, unit)

    def is_moving(self, replica: str) -> bool:
        """Return True if this process works on a replica, or will do so."""
        with self._lock:
            return replica in self._started

    def _run(self, replica: str, unit: threading.Lock) -> None:
        data_unit, _, pilot_data = replica.partition("/")
        session = self._session
        try:
            # One after the other, because the first replica is the source of the others.
            with unit:
                self._note(replica, State.Pending, owner=self._mine)
                if row_of(session, "data_units", data_unit)["state"] == State.New:
                    session.set_state("data_units", data_unit, State.Pending)
                self._require_wanted(replica)
                self._transfer(replica, data_unit, pilot_data)
                files = digest_of(files_of(session, data_unit))
                self._note(replica, State.Running, files=files)
                session.set_state("data_units", data_unit, State.Running)
        except ReferenceError:
            return  # the session has ended
        except BaseException as error:
            self._failed(replica, data_unit, error)
        finally:
            with self._lock:
                self._started.discard(replica)
                is_wanted = replica in self._again
                self._again.discard(replica)
            if is_wanted:
                with suppress(ReferenceError, DosnaError, RuntimeError):
                    self.start(replica)

    def _failed(self, replica: str, data_unit: str, error: BaseException) -> None:
        canceled = isinstance(error, CancelledError)
        reason = "" if canceled else str(error) or type(error).__name__
        if not isinstance(error, (DosnaError, CancelledError, OSError)):
            # The text of an unexpected error may contain anything.
            reason = f"the transfer failed by {type(error).__name__}"
        state = State.Canceled if canceled else State.Failed
        try:
            self._note(replica, state, reason)
            row = row_of(self._session, "data_units", data_unit)
            if not State(row["state"]).is_final and not replicas_of(self._session, data_unit):
                self._session.set_state("data_units", data_unit, state, reason)
        except (DosnaError, ReferenceError):
            pass  # the state itself no longer exists

    def _note(self, replica: str, state: State, reason: str = "", **details: Any) -> None:
        row = row_of(self._session, "replicas", replica)
        self._session.set_state(
            "replicas", replica, state, reason, details={**row["details"], **details}
        )

    def _require_wanted(self, replica: str) -> None:
        row = row_of(self._session, "replicas", replica)
        place = row_of(self._session, "pilot_data", row["pilot_data"])
        if "Canceled" in (row["wanted"], place["wanted"]):
            raise CancelledError

    def note_arrays(self, data_unit: str) -> None:
        """Record a data unit that consists of datasets, and needs no place."""
        self._pool.submit(self._note_arrays, data_unit)

    def _note_arrays(self, data_unit: str) -> None:
        session = self._session
        try:
            urls = row_of(session, "data_units", data_unit)["description"]["file_urls"]
            files = [File(delivered_name(url), url=url) for url in urls]
            note_files(session, data_unit, files, {f.name: bytes_of(f.url) for f in files})
            session.set_state("data_units", data_unit, State.Running)
        except (DosnaError, OSError) as error:
            session.set_state("data_units", data_unit, State.Failed, str(error))

    # -- one transfer ---------------------------------------------------------------------

    def _transfer(self, replica: str, data_unit: str, pilot_data: str) -> None:
        session = self._session
        progress = self._progress(replica)
        fields = fields_of(session, pilot_data)
        sources = [one for one in replicas_of(session, data_unit) if one["id"] != replica]
        with open_place(fields) as place:
            place.check()
            if sources:
                files = files_of(session, data_unit)
                nbytes = sum(max(0, file.size) for file in files)
                require_room(session, pilot_data, data_unit, nbytes)
                with open_place(fields_of(session, sources[0]["pilot_data"])) as source:
                    replicate(files, source, place, data_unit, progress)
                return
            urls = session.secrets_of(data_unit).get("file_urls")
            urls = urls or row_of(session, "data_units", data_unit)["description"]["file_urls"]
            if any(HIDDEN in url for url in urls):
                raise ConfigurationError(
                    f"the credentials in the file_urls of {data_unit} are not known any more, "
                    "because they are never kept: submit it again"
                )
            self.bring(data_unit, pilot_data, place, urls, progress)

    def bring(
        self,
        data_unit: str,
        pilot_data: str,
        place: Place,
        urls: list[str],
        progress: Any = None,
    ) -> None:
        """Store the files at URLs in a data unit, and record them."""
        named = {_name_of(url): url for url in urls}
        if len(named) < len(urls):
            raise ConfigurationError(
                f"two files of {data_unit} have the same name: rename one, or use two data units"
            )
        fields = fields_of(self._session, pilot_data)
        arrays = [File(name, url=url) for name, url in named.items() if url.startswith("dosna:")]
        sizes = {file.name: bytes_of(file.url) for file in arrays}
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dosna-pilot-"))
            paths = {
                name: _local(url) or _download(url, name, fields, folder)
                for name, url in named.items()
                if not url.startswith("dosna:")
            }
            kept = [file for file in files_of(self._session, data_unit) if file.name not in paths]
            nbytes = sum(os.path.getsize(path) for path in paths.values())
            nbytes += sum(max(0, file.size) for file in kept)
            require_room(self._session, pilot_data, data_unit, nbytes)
            files = put(paths, place, data_unit, progress) if paths else []
        note_files(self._session, data_unit, [*files, *arrays], sizes)

    def _progress(self, replica: str) -> Any:
        told = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _TELL_SECONDS:
                told = now
                self._require_wanted(replica)
                self._note(replica, State.Pending, done=done, total=total)

        return tell


def is_of_arrays(urls: list[str]) -> bool:
    """Return True if all files of a data unit are datasets."""
    return bool(urls) and all(url.startswith("dosna:") for url in urls)


def _name_of(url: str) -> str:
    if url.startswith("dosna:"):
        return delivered_name(url)
    name = place_url(url).path.rstrip("/").rpartition("/")[2]
    if not name:
        raise ConfigurationError(f"{place_url(url)} names no file")
    return name


def _local(url: str) -> str | None:
    """Return the path of a file on this machine, even if its URL is ssh://localhost/…."""
    parts = place_url(url)
    here = parts.scheme == "file" and parts.host in ("", "localhost", socket.gethostname())
    own = ("", "localhost", "127.0.0.1", socket.gethostname())
    if parts.scheme in ("ssh", "sftp") and not parts.port and not parts.user:
        here = parts.host in own and os.access(parts.path, os.R_OK)
    return parts.path if here else None


def _download(url: str, name: str, fields: Mapping[str, Any], folder: str) -> str:
    """Read a file from another place, with the credentials of the pilot data if they apply."""
    parts = place_url(url)
    ours = place_url(str(fields["service_url"])) if "://" in str(fields["service_url"]) else parts
    given = dict(fields)
    same = (ours.scheme, ours.host, ours.port) == (parts.scheme, parts.host, parts.port)
    # A URL of S3 has no host: its server is the one of the place, if that is one of S3.
    if not same and (ours.scheme, parts.scheme) != ("s3", "s3"):
        given = {name: value for name, value in fields.items() if name == "userkey"}
    base, _, last = url.partition("?")[0].rpartition("/")
    path = last + (f"?{parts.query}" if parts.query else "")
    target = os.path.join(folder, name)
    with open_place({**given, "service_url": base}) as place:
        place.download(path, target)
    return target
