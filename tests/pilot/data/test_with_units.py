"""Compute units that read and write data units, as the documentation of the Pilot-API has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pilot.data.conftest import sftp
from support import require

if TYPE_CHECKING:
    from services import Sshd

pytestmark = pytest.mark.slow


def test_a_text_is_staged_and_its_output_comes_back(
    room: Any, sshd: Sshd, make_files: Callable[..., list[str]], tmp_path: Path
) -> None:
    require("sshfs")
    from dosna.pilot import PilotDataService, State

    labels = {"affinity_datacenter_label": "eu-de-south", "affinity_machine_label": "mymachine-1"}
    places = PilotDataService(room.url)
    room.units.add_pilot_data_service(places)
    store = places.create_pilot({**sftp(sshd, tmp_path / "store"), **labels})
    room.pilot(**labels)
    (path,) = make_files(**{"test.txt": b"Hello World\n"})
    data = room.units.submit_data_unit({"file_urls": [path], **labels})
    assert data.wait(timeout=100) == State.Running
    output = store.submit_data_unit({"file_urls": [], **labels})
    unit = room.units.submit_compute_unit(
        {
            "executable": "/bin/cat",
            "arguments": ["test.txt"],
            "number_of_processes": 1,
            "output": "stdout.txt",
            "error": "stderr.txt",
            "input_data": [data.get_url()],
            "output_data": [{output.get_url(): ["std*"]}],
            **labels,
        }
    )
    assert room.units.wait(timeout=100)
    assert unit.get_state() == State.Done, unit.get_details()
    assert "test.txt" not in unit.get_details()["placement"]
    assert "all 12 B of its inputs are there" in unit.get_details()["placement"]
    output.export(str(tmp_path / "results"))
    assert (tmp_path / "results" / "stdout.txt").read_text() == "Hello World\n"
    assert (tmp_path / "results" / "stderr.txt").read_text() == ""
    assert sorted(output.list()) == ["stderr.txt", "stdout.txt"]
