"""Pilots for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dosna.pilot import ComputeDataService, PilotComputeService


class Room:
    """A state with its services, and pilots that end with the test."""

    def __init__(self, folder: Path) -> None:
        from dosna.pilot import ComputeDataService, PilotComputeService

        self.folder = folder
        self.url = f"sqlite:///{folder}/state.db"
        self.pilots: PilotComputeService = PilotComputeService(self.url)
        self.units: ComputeDataService = ComputeDataService()
        self.units.add_pilot_compute_service(self.pilots)

    def pilot(self, url: str = "fork://localhost", **fields: Any) -> Any:
        """Start a pilot of two processes in this folder."""
        fields = {"number_of_processes": 2, "working_directory": str(self.folder), **fields}
        return self.pilots.create_pilot({"service_url": url, **fields})

    def unit(self, executable: str, *arguments: str, **fields: Any) -> Any:
        """Submit a unit."""
        described = {"executable": executable, "arguments": list(arguments), **fields}
        return self.units.submit_compute_unit(described)

    def run(self, executable: str, *arguments: str, **fields: Any) -> tuple[str, Path]:
        """Run a unit; give its state and its folder."""
        from support import HANG

        unit = self.unit(executable, *arguments, **fields)
        state = unit.wait(timeout=HANG)
        return state, self.folder_of(unit)

    def folder_of(self, unit: Any) -> Path:
        details = unit.get_details()
        return self.folder / details["pilot"] / details["attempt"]

    def close(self) -> None:
        from dosna.pilot.manager import Manager
        from dosna.pilot.sessions import close_session

        session = self.pilots._session
        self.pilots.cancel()
        Manager.of(session).close()
        close_session(session)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Give a state of its own."""
    from support import require

    for package in ("cryptography", "psij"):
        require(package)
    room = Room(tmp_path)
    yield room
    room.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Give a state with a pilot of two processes, for units that do it no harm."""
    from support import require

    for package in ("cryptography", "psij"):
        require(package)
    room = Room(tmp_path_factory.mktemp("shared"))
    room.pilot()
    yield room
    room.close()
