"""The Pilot-API's services for compute: `PilotComputeService` and `ComputeDataService`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dosna.errors import ConfigurationError
from dosna.pilot.data.records import id_of
from dosna.pilot.descriptions import (
    ComputeUnitDescription,
    DataUnitDescription,
    PilotComputeDescription,
)
from dosna.pilot.handles import Handle
from dosna.pilot.manager import Manager
from dosna.pilot.session import Session
from dosna.pilot.sessions import session_of
from dosna.pilot.states import FINAL, NOT_FINAL, State
from dosna.pilot.store import new_id
from dosna.pilot.waiting import why_waiting

if TYPE_CHECKING:
    from dosna.pilot.data.service import DataUnit

__all__ = ["ComputeDataService", "ComputeUnit", "PilotCompute", "PilotComputeService"]


class _JobHandle(Handle):
    """A handle of a pilot or a compute unit, which can be canceled and has a final state."""

    def wait(self, timeout: float | None = None) -> State:
        """Wait until the state is final, or until a timeout in seconds, and return the state."""
        self._session.wait_until(lambda: self.get_state().is_final, timeout)
        return self.get_state()

    def cancel(self) -> None:
        """Cancel it with everything that it has started; call `wait` to wait for this."""
        if not self.get_state().is_final:
            self._session.store.update(self._table, self.id, wanted="Canceled")
            Manager.of(self._session).wake()


class PilotCompute(_JobHandle):
    """A pilot; created by `PilotComputeService.create_pilot`.

    Examples
    --------
    >>> pilot.get_state()  # doctest: +SKIP
    <State.Running: 'Running'>
    """

    _table, _kind = "pilots", "pilot"


class ComputeUnit(_JobHandle):
    """A compute unit; created by `ComputeDataService.submit_compute_unit`.

    Examples
    --------
    >>> unit.wait(timeout=60)  # doctest: +SKIP
    <State.Done: 'Done'>
    """

    _table, _kind = "compute_units", "compute-unit"
    _more = ("pilot", "attempt", "attempts")

    def get_details(self) -> dict[str, Any]:
        """Return its state, the reason, its description, and what is known beside them.

        That are ``placement`` (why it runs where it runs), ``host``, ``pilot``, ``attempts`` and
        the ``reasons`` of those that failed; while it is New, ``waits_for``.
        """
        details = super().get_details()
        if details["state"] == State.New:
            details["waits_for"] = why_waiting(self._session, self.id)
        return details


class PilotComputeService:
    """The service that starts pilots.

    Parameters
    ----------
    coordination_url : str, optional
        The URL of a database for the state, such as ``sqlite:///pilots.db``; the URL of a Redis
        server is accepted and ignored. Services with the same URL share a state. By default,
        ``$DOSNA_PILOT_STATE``, or a new state of this process.

    Examples
    --------
    >>> from dosna.pilot import PilotComputeService
    >>> service = PilotComputeService()  # doctest: +SKIP
    >>> pilot = service.create_pilot(  # doctest: +SKIP
    ...     {"service_url": "fork://localhost", "number_of_processes": 2}
    ... )
    """

    def __init__(self, coordination_url: str | None = None) -> None:
        self._session = session_of(coordination_url)
        self._manager = Manager.of(self._session)

    @property
    def state_url(self) -> str:
        """The URL of the state, without a password."""
        return self._session.store.shown

    def create_pilot(
        self, pilot_compute_description: Mapping[str, Any] | PilotComputeDescription
    ) -> PilotCompute:
        """Start a pilot, without waiting for it.

        Parameters
        ----------
        pilot_compute_description : dict
            The fields, see `PilotComputeDescription`.

        Returns
        -------
        PilotCompute

        Raises
        ------
        ConfigurationError
            A field has an invalid value.
        """
        from dosna.pilot.launching import Launcher

        description = PilotComputeDescription.of(pilot_compute_description)
        Launcher(description)  # refuses unknown kinds
        id = new_id("bj")
        self._session.store.add("pilots", [{"id": id, "description": description.fields()}])
        self._manager.wake()
        return PilotCompute(self._session, id)

    def list_pilots(self) -> list[str]:
        """Return the URLs of the pilots."""
        rows = self._session.store.rows("pilots")
        return [PilotCompute(self._session, row["id"]).get_url() for row in rows]

    def get_pilot(self, url: str) -> PilotCompute:
        """Return the pilot with a URL."""
        return PilotCompute(self._session, id_of(url))

    def cancel(self) -> None:
        """Cancel all pilots, and wait until they have ended."""
        pilots = [PilotCompute(self._session, id_of(url)) for url in self.list_pilots()]
        for pilot in pilots:
            pilot.cancel()
        for pilot in pilots:
            pilot.wait()


class ComputeDataService:
    """The service that places compute units and data units where they cost least.

    Parameters
    ----------
    coordination_url : str, optional
        See `PilotComputeService`.

    Examples
    --------
    >>> from dosna.pilot import ComputeDataService
    >>> service = ComputeDataService()  # doctest: +SKIP
    >>> unit = service.submit_compute_unit(  # doctest: +SKIP
    ...     {"executable": "/bin/echo", "arguments": ["hello"]}
    ... )
    """

    def __init__(self, coordination_url: str | None = None) -> None:
        self._url = coordination_url
        self._session: Session | None = None
        self._computing: list[PilotComputeService] = []
        self._storing: list[Any] = []

    @property
    def _shared(self) -> Session:
        # Without a URL, the state is that of the services that are added.
        if self._session is None:
            self._session = session_of(self._url)
        return self._session

    def _join(self, service: Any) -> None:
        if self._session is None and self._url is None:
            self._session = service._session
        elif service._session is not self._shared:
            raise ConfigurationError(
                f"the state of the service is {service._session.store.shown}, and not "
                f"{self._shared.store.shown}: create both with the same coordination_url"
            )

    def add_pilot_compute_service(self, pcs: PilotComputeService) -> None:
        """Add the pilots of a service. Pilots of the same state are used in any case."""
        self._join(pcs)
        self._computing.append(pcs)

    def remove_pilot_compute_service(self, pcs: PilotComputeService) -> None:
        """Undo `add_pilot_compute_service`; its pilots remain."""
        self._computing.remove(pcs)

    def add_pilot_data_service(self, pds: Any) -> None:
        """Add the stores of a service."""
        self._join(pds)
        self._storing.append(pds)

    def remove_pilot_data_service(self, pds: Any) -> None:
        """Undo `add_pilot_data_service`; its stores remain."""
        self._storing.remove(pds)

    def submit_compute_unit(
        self, compute_unit_description: Mapping[str, Any] | ComputeUnitDescription
    ) -> ComputeUnit:
        """Submit a compute unit to a pilot near its inputs, without waiting for it.

        Parameters
        ----------
        compute_unit_description : dict
            The fields, see `ComputeUnitDescription`.

        Returns
        -------
        ComputeUnit

        Raises
        ------
        ConfigurationError
            A field has an invalid value.
        """
        return self.submit_compute_units([compute_unit_description])[0]

    def submit_data_unit(
        self, data_unit_description: Mapping[str, Any] | DataUnitDescription
    ) -> DataUnit:
        """Start to store a data unit in the places whose labels are nearest to its own.

        Parameters
        ----------
        data_unit_description : dict
            The fields, see `DataUnitDescription`.

        Returns
        -------
        DataUnit

        Raises
        ------
        ConfigurationError
            A field has an invalid value.
        """
        from dosna.pilot.data import submit_data_unit

        unit: DataUnit = submit_data_unit(self._shared, data_unit_description)
        return unit

    def submit_compute_units(
        self, descriptions: list[Mapping[str, Any] | ComputeUnitDescription]
    ) -> list[ComputeUnit]:
        """Submit many units at once, which takes less time than one by one."""
        session = self._shared
        manager = Manager.of(session)
        units, outputs = [], []
        for fields in descriptions:
            description = ComputeUnitDescription.of(fields)
            id, number = new_id("cu"), manager.next_number()
            units.append({"id": id, "number": number, "description": description.fields()})
            for data_unit in {id_of(url) for url, _ in description.outputs()}:
                outputs.append(
                    {
                        "id": f"{id}/{data_unit}",
                        "compute_unit": id,
                        "data_unit": data_unit,
                        "number": number,
                    }
                )
        session.store.write(rows={"outputs": outputs, "compute_units": units})
        manager.wake()
        return [ComputeUnit(session, str(unit["id"])) for unit in units]

    def list_compute_units(self) -> list[str]:
        """Return the URLs of the compute units, in the order of their submission."""
        rows = self._shared.store.rows("compute_units", order="number")
        return [ComputeUnit(self._shared, row["id"]).get_url() for row in rows]

    def count_final(self) -> int:
        """Return how many compute units have ended."""
        return self._shared.store.count("compute_units", state=FINAL)

    def get_compute_unit(self, url: str) -> ComputeUnit:
        """Return the compute unit with a URL."""
        return ComputeUnit(self._shared, id_of(url))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all compute units have ended and no data unit is being transferred.

        Parameters
        ----------
        timeout : float, optional
            The time after which to return in any case, in seconds.

        Returns
        -------
        bool
            Whether all have ended.
        """
        store = self._shared.store
        Manager.of(self._shared)

        def is_done() -> bool:
            return not (
                store.count("compute_units", state=NOT_FINAL)
                or store.count("data_units", state=["New", "Pending", "Unknown"])
            )

        return self._shared.wait_until(is_done, timeout)

    def cancel(self) -> None:
        """Cancel all compute units, and wait until they have ended."""
        store = self._shared.store
        manager = Manager.of(self._shared)
        found = list(store.rows("compute_units", state=NOT_FINAL))
        store.write(
            changes=[("compute_units", row["id"], {"wanted": "Canceled"}) for row in found]
        )
        manager.wake()
        self._shared.wait_until(lambda: not store.count("compute_units", state=NOT_FINAL), 60)
