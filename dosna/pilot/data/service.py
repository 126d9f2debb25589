"""The Pilot-API's part for data: `PilotDataService`, `PilotData` and `DataUnit`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dosna.errors import ConfigurationError, StorageError
from dosna.pilot.affinity import Label, distance
from dosna.pilot.data.mover import Mover, is_of_arrays
from dosna.pilot.data.places import open_place, place_url
from dosna.pilot.data.records import (
    fields_of,
    files_of,
    id_of,
    label_of,
    nearest,
    replicas_of,
    request_for,
)
from dosna.pilot.data.staging import Progress, put, stage_in
from dosna.pilot.descriptions import DataUnitDescription, PilotDataDescription, absolute
from dosna.pilot.handles import Handle, row_of
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import new_id

__all__ = ["DataUnit", "PilotData", "PilotDataService", "submit_data_unit"]


class _DataHandle(Handle):
    """A handle of a data unit or a pilot data, which is ready when it is Running."""

    def wait(self, timeout: float | None = None) -> State:
        """Wait until it is Running or has ended, and return the state.

        Parameters
        ----------
        timeout : float, optional
            The time after which to return in any case, in seconds.
        """
        Mover.of(self._session)

        def is_settled() -> bool:
            state = self.get_state()
            return state is State.Running or state.is_final

        self._session.wait_until(is_settled, timeout)
        return self.get_state()


class DataUnit(_DataHandle):
    """Files that belong together; created by `PilotData.submit_data_unit`.

    Examples
    --------
    >>> unit = store.submit_data_unit({"file_urls": ["input.txt"]})  # doctest: +SKIP
    >>> unit.wait(timeout=60)  # doctest: +SKIP
    <State.Running: 'Running'>
    """

    _table, _kind = "data_units", "data-unit"

    def list(self) -> dict[str, dict[str, Any]]:
        """Return the files by name: ``pilot_data`` are the places, ``size`` and ``checksum``."""
        places = self.list_pilot_data()
        return {
            file.name: {
                "pilot_data": [] if file.url else places,
                "local": file.url,
                "size": file.size,
                "checksum": file.checksum,
            }
            for file in files_of(self._session, self.id)
        }

    def list_pilot_data(self) -> Sequence[str]:
        """Return the URLs of the pilot data that have all of its files."""
        found = replicas_of(self._session, self.id)
        return [PilotData(self._session, one["pilot_data"]).get_url() for one in found]

    def add_pilot_data(self, pilot_data: PilotData | Iterable[PilotData]) -> None:
        """Start to replicate the data unit to further places."""
        listed = [pilot_data] if isinstance(pilot_data, PilotData) else pilot_data
        for one in listed:
            one.submit_data_unit(data_unit=self)

    def add_files(self, file_urls: Iterable[str]) -> None:
        """Add files to the oldest replica and then to the others, and wait for this.

        Raises
        ------
        StorageError
            The data unit is not in any place yet, or a place failed.
        """
        replicas = replicas_of(self._session, self.id)
        if not replicas:
            raise StorageError(f"{self.id} is in no pilot data: submit it to one, and wait for it")
        urls = [absolute(url) for url in file_urls]
        first, *others = replicas
        with open_place(fields_of(self._session, first["pilot_data"])) as place:
            Mover.of(self._session).bring(self.id, first["pilot_data"], place, urls)
        for other in others:
            _begin(self._session, self.id, other["pilot_data"])

    def export(
        self,
        target: str,
        patterns: str | Iterable[str] | None = None,
        progress: Progress = None,
    ) -> None:
        """Copy files to a folder or to the URL of a place, and wait for this.

        Parameters
        ----------
        target : str
            A folder, or the URL of a place whose credentials are found automatically.
        patterns : str or iterable of str, optional
            Names and patterns of files; by default all.
        progress : callable, optional
            A callback ``(done, total)`` in bytes.

        Raises
        ------
        SourceNotFoundError
            A file is missing, or a pattern matches no file.
        StorageError
            A place failed, a disk is full, or a file is damaged.
        """
        asked = [patterns] if isinstance(patterns, str) else patterns
        request = request_for(
            self._session, self.id, asked, nearest(self._session, self.id, Label())
        )
        url = place_url(target)
        if url.scheme == "file":
            stage_in(request, url.path, progress)
            return
        with tempfile.TemporaryDirectory(prefix="dosna-pilot-") as folder:
            names = [one["name"] for one in stage_in(request, folder)]
            with open_place({"service_url": target}) as place:
                put({name: os.path.join(folder, name) for name in names}, place, "", progress)

    def cancel(self) -> None:
        """Cancel its transfers. What was stored stays until `PilotData.remove_du`."""
        mover = Mover.of(self._session)
        for row in list(self._session.store.rows("replicas", data_unit=self.id)):
            if not State(row["state"]).is_final and row["state"] != State.Running:
                self._session.store.update("replicas", row["id"], wanted=str(State.Canceled))
                if not mover.is_moving(row["id"]):
                    self._session.set_state("replicas", row["id"], State.Canceled)
        is_waiting = self.get_state() in (State.New, State.Pending, State.Unknown)
        states = [str(State.New), str(State.Pending), str(State.Running)]
        if is_waiting and not self._session.store.count(
            "replicas", data_unit=self.id, state=states
        ):
            self._session.set_state("data_units", self.id, State.Canceled, "it was canceled")


class PilotData(_DataHandle):
    """A place that stores data units; created by `PilotDataService.create_pilot`.

    Examples
    --------
    >>> store = service.create_pilot({"service_url": "file:///scratch/store"})  # doctest: +SKIP
    >>> store.submit_data_unit({"file_urls": ["a.txt"]})  # doctest: +SKIP
    """

    _table, _kind = "pilot_data", "pilot-data"

    def submit_data_unit(
        self,
        data_unit_description: Mapping[str, Any] | DataUnitDescription | None = None,
        *,
        data_unit: DataUnit | None = None,
    ) -> DataUnit:
        """Start to store a new data unit here, or to replicate an existing one to this place.

        Parameters
        ----------
        data_unit_description : dict, optional
            The fields of a new data unit.
        data_unit : DataUnit, optional
            The data unit to replicate.

        Returns
        -------
        DataUnit
        """
        if (data_unit_description is None) == (data_unit is None):
            raise ConfigurationError("give a data_unit_description, or a data_unit to replicate")
        if data_unit is None:
            assert data_unit_description is not None
            data_unit = _new(self._session, DataUnitDescription.of(data_unit_description))
        _begin(self._session, data_unit.id, self.id)
        return data_unit

    def copy_du(self, data_unit: DataUnit, pilot_data: PilotData) -> None:
        """Start to replicate a data unit from here to another place."""
        pilot_data.submit_data_unit(data_unit=data_unit)

    def remove_du(self, data_unit: DataUnit) -> None:
        """Remove the files of a data unit from this place. Without any replica it is Canceled.

        Raises
        ------
        StorageError
            The place failed.
        """
        session = self._session
        with open_place(fields_of(session, self.id)) as place:
            place.remove(data_unit.id)
        session.store.remove("replicas", f"{data_unit.id}/{self.id}")
        if not list(session.store.rows("replicas", data_unit=data_unit.id)):
            session.set_state("data_units", data_unit.id, State.Canceled, "it was removed")

    def export_du(self, data_unit: DataUnit, target: str, progress: Progress = None) -> None:
        """Copy a data unit from here to a folder, and wait for this. See `DataUnit.export`."""
        stage_in(request_for(self._session, data_unit.id, None, self.id), target, progress)

    def list_data_units(self) -> list[str]:
        """Return the URLs of the data units that are here, or being transferred to here."""
        rows = self._session.store.rows("replicas", pilot_data=self.id)
        return [DataUnit(self._session, row["data_unit"]).get_url() for row in rows]

    def cancel(self) -> None:
        """Cancel the transfers to this place, and accept no more. Stored files remain."""
        self._session.store.update("pilot_data", self.id, wanted=str(State.Canceled))
        self._session.set_state("pilot_data", self.id, State.Canceled)


class PilotDataService:
    """The service for places that store data units.

    Parameters
    ----------
    coordination_url : str, optional
        See `PilotComputeService`.

    Examples
    --------
    >>> from dosna.pilot import PilotDataService
    >>> service = PilotDataService()  # doctest: +SKIP
    >>> store = service.create_pilot({"service_url": "file:///scratch/store"})  # doctest: +SKIP
    """

    def __init__(self, coordination_url: str | None = None) -> None:
        from dosna.pilot.sessions import session_of

        self._session = session_of(coordination_url)
        self._places: list[str] = []
        Mover.of(self._session)

    def create_pilot(
        self, pilot_data_description: Mapping[str, Any] | PilotDataDescription
    ) -> PilotData:
        """Register a place, which is connected to when it is first used.

        If the place is already known, by its URL and labels, it gets the credentials of the
        description again, so that transfers of an earlier process continue.

        Parameters
        ----------
        pilot_data_description : dict
            The fields, see `PilotDataDescription`.

        Returns
        -------
        PilotData

        Raises
        ------
        ConfigurationError
            A field has an invalid value.
        MissingDependencyError
            A package that the place needs is not installed.
        """
        session = self._session
        description = PilotDataDescription.of(pilot_data_description)
        secrets = description.secrets()
        open_place({**description.fields(), **secrets}).close()
        known = [
            row["id"]
            for row in session.store.rows("pilot_data")
            if row["description"] == description.fields() and row["state"] != State.Canceled
        ]
        id = known[0] if known else new_id("pd")
        session.keep_secrets(id, secrets)
        if not known:
            row = {"id": id, "state": str(State.Running), "description": description.fields()}
            session.store.add("pilot_data", [{**row, "details": {"secrets": sorted(secrets)}}])
        self._places.append(id)
        Mover.of(session).resume()
        return PilotData(session, id)

    def list_pilots(self) -> list[str]:
        """Return the URLs of the places."""
        rows = self._session.store.rows("pilot_data")
        return [PilotData(self._session, row["id"]).get_url() for row in rows]

    def get_pilot(self, url: str) -> PilotData:
        """Return the place with a URL."""
        return PilotData(self._session, id_of(url))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no data unit is being transferred; return whether this is the case."""
        store = self._session.store
        moving = [str(State.New), str(State.Pending)]
        return self._session.wait_until(lambda: not store.count("replicas", state=moving), timeout)

    def cancel(self) -> None:
        """Cancel the transfers to all places that this service has registered."""
        for id in self._places:
            PilotData(self._session, id).cancel()


def submit_data_unit(
    session: Session, description: Mapping[str, Any] | DataUnitDescription
) -> DataUnit:
    """Start to store a new data unit in the places whose labels are nearest to its own.

    It is stored in `number_of_replicas` places, or in all writable places if there are fewer.
    Without
        any, it waits for `DataUnit.add_pilot_data`. A data unit that consists of datasets needs no
        place.
    """
    described = DataUnitDescription.of(description)
    unit = _new(session, described)
    if is_of_arrays(described.file_urls):
        Mover.of(session).note_arrays(unit.id)
        return unit
    wanted = label_of(described.fields())
    places = [
        row
        for row in session.store.rows("pilot_data", state=str(State.Running))
        if not row["description"]["service_url"].startswith(("http://", "https://"))
    ]
    places.sort(
        key=lambda row: (
            not wanted.allows(label_of(row["description"])),
            distance(wanted, label_of(row["description"])),
        )
    )
    for row in places[: described.number_of_replicas]:
        _begin(session, unit.id, row["id"])
    return unit


def _new(session: Session, description: DataUnitDescription) -> DataUnit:
    id = new_id("du")
    if secrets := description.secrets():
        session.keep_secrets(id, secrets)
    session.store.add("data_units", [{"id": id, "description": description.fields()}])
    return DataUnit(session, id)


def _begin(session: Session, data_unit: str, pilot_data: str) -> None:
    """Record a replica, and start its transfer."""
    if row_of(session, "pilot_data", pilot_data)["state"] == State.Canceled:
        raise ConfigurationError(f"{pilot_data} was canceled: create another pilot data")
    id = f"{data_unit}/{pilot_data}"
    if session.store.get("replicas", id) is not None:
        session.store.remove("replicas", id)
    session.store.add("replicas", [{"id": id, "data_unit": data_unit, "pilot_data": pilot_data}])
    Mover.of(session).start(id, again=True)
