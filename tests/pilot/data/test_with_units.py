"""Compute units that read and write data units, as the documentation of the Pilot-API has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pilot.data.conftest import sftp
from support import HANG, require, wait_until

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
    assert data.wait(timeout=HANG) == State.Running
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
    assert room.units.wait(timeout=HANG)
    assert unit.get_state() == State.Done, unit.get_details()
    assert "test.txt" not in unit.get_details()["placement"]
    assert "all 12 B of its inputs are there" in unit.get_details()["placement"]
    output.export(str(tmp_path / "results"))
    assert (tmp_path / "results" / "stdout.txt").read_text() == "Hello World\n"
    assert (tmp_path / "results" / "stderr.txt").read_text() == ""
    assert sorted(output.list()) == ["stderr.txt", "stdout.txt"]


def test_walltime_of_a_unit_is_also_for_staging(
    room: Any, make_files: Callable[..., list[str]], tmp_path: Path
) -> None:
    from dosna.pilot import PilotDataService, State

    places = PilotDataService(room.url)
    store = places.create_pilot({"service_url": str(tmp_path / "store")})
    room.pilot(number_of_processes=1)
    data = store.submit_data_unit({"file_urls": make_files(**{"test.txt": b"Hello"})})
    assert data.wait(timeout=100) == State.Running
    # Who opens it hangs, as with a file system whose server has died.
    stored = tmp_path / "store" / data.id / "test.txt"
    stored.unlink()
    unit = room.unit("true", input_data=[data.get_url()])
    assert unit.wait(timeout=100) == State.Failed
    assert unit.get_details()["reason"] == f"{stored} does not exist"
    os.mkfifo(stored)
    unit = room.unit("true", walltime=0.02, input_data=[data.get_url()])
    assert unit.wait(timeout=100) == State.Failed
    assert "walltime of 0.02 minutes ended while" in unit.get_details()["reason"]
    # The processor is free again.
    assert room.unit("true").wait(timeout=100) == State.Done


@pytest.fixture
def two_sites(
    room: Any, start_sshd: Callable[..., AbstractContextManager[Sshd]], tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """Give two places, each of an SSH server of its own beside a pilot, by their labels."""
    require("sshfs")
    from dosna.pilot import PilotDataService

    storing = PilotDataService(room.url)
    places = {}
    with ExitStack() as stack:
        for number, site in enumerate(("didcot", "hamburg"), 1):
            sshd = stack.enter_context(start_sshd(f"127.0.0.{number}"))
            here = {"affinity_datacenter_label": f"{site}/centre", "affinity_machine_label": site}
            places[site] = storing.create_pilot({**sftp(sshd, tmp_path / site), **here})
            pilot = room.pilot(**here)
            wait_until(lambda pilot=pilot: pilot.get_state() == "Running")
        room.sites = {row["id"]: label(row) for row in room.pilots._session.store.rows("pilots")}
        yield places
        room.pilots.cancel()


def label(row: dict[str, Any]) -> str:
    return str(row["description"]["affinity_machine_label"])


def test_units_of_two_sites_run_where_their_data_are(
    room: Any, two_sites: dict[str, Any], make_files: Callable[..., list[str]]
) -> None:
    size = 1 << 20
    homes: list[tuple[str, Any]] = []
    for number in range(8):
        site = ("didcot", "hamburg")[number % 2]
        files = make_files(**{f"in{number}": os.urandom(size)})
        homes.append((site, two_sites[site].submit_data_unit({"file_urls": files})))
    for _, data in homes:
        assert data.wait(timeout=HANG) == "Running", data.get_details()
    described = [
        {
            "executable": "/usr/bin/wc",
            "arguments": ["-c", f"in{number % 8}"],
            "input_data": [homes[number % 8][1].get_url()],
        }
        for number in range(40)
    ]
    units = room.units.submit_compute_units(described)
    assert room.units.wait(timeout=HANG)
    moved = 0
    for number, unit in enumerate(units):
        details = unit.get_details()
        assert details["state"] == "Done", details
        assert details["attempts"] == 1, details
        assert details["placement"]
        site, _ = homes[number % 8]
        moved += size * (room.sites[details["pilot"]] != site)
    at_random = size * len(units) / 2
    assert moved <= 0.3 * at_random


def test_what_many_read_is_replicated_once(
    room: Any, two_sites: dict[str, Any], make_files: Callable[..., list[str]]
) -> None:
    (path,) = make_files(common=b"read by all")
    data = two_sites["didcot"].submit_data_unit({"file_urls": [path]})
    assert data.wait(timeout=HANG) == "Running"
    # They ask to run where their data are not.
    described = {
        "executable": "/bin/cat",
        "arguments": ["common"],
        "input_data": [data.get_url()],
        "affinity_machine_label": "hamburg",
    }
    units = room.units.submit_compute_units([described] * 6)
    assert room.units.wait(timeout=HANG)
    for unit in units:
        assert unit.get_state() == "Done", unit.get_details()
        assert unit.get_details()["attempts"] == 1
        assert room.sites[unit.get_details()["pilot"]] == "hamburg"
    assert len(data.list_pilot_data()) == 2
    assert "all 11 B of its inputs are there" in units[-1].get_details()["placement"]


def test_a_region_of_a_dataset_is_an_input_near_its_store(room: Any, tmp_path: Path) -> None:
    import numpy as np

    import dosna as dn

    (tmp_path / "volumes").mkdir()
    with dn.Connection(str(tmp_path / "volumes"), backend="file") as con:
        con.create_dataset("tomo", data=np.arange(1000, dtype="u1"))
    for site in ("didcot", "hamburg"):
        room.pilot(affinity_datacenter_label=site, affinity_machine_label=site)
    wait_until(lambda: all(p["state"] == "Running" for p in rows_of(room)))
    url = f"dosna:file:{tmp_path}/volumes/tomo#region=0:600;as=part.npy"
    there = {"affinity_datacenter_label": "hamburg", "affinity_machine_label": "hamburg"}
    data = room.units.submit_data_unit({"file_urls": [url], **there})
    assert data.wait(timeout=HANG) == "Running", data.get_details()
    described = {
        "executable": "/usr/bin/wc",
        "arguments": ["-c", "part.npy"],
        "input_data": [data.get_url()],
    }
    unit = room.units.submit_compute_unit(described)
    assert unit.wait(timeout=HANG) == "Done", unit.get_details()
    details = unit.get_details()
    assert "all 600 B of its inputs are there" in details["placement"]
    pilot = next(row for row in rows_of(room) if row["id"] == details["pilot"])
    assert label(pilot) == "hamburg"
    assert (room.folder_of(unit) / "stdout").read_text().split()[0] == str(600 + 128)
    missing = room.units.submit_data_unit({"file_urls": [url.replace("tomo", "missing")]})
    assert missing.wait(timeout=HANG) == "Failed"
    assert "missing" in missing.get_details()["reason"]


def test_relative_paths_are_those_of_the_program(
    room: Any, make_files: Callable[..., list[str]], tmp_path: Path, monkeypatch: Any
) -> None:
    import numpy as np

    import dosna as dn
    from dosna.pilot import PilotDataService

    here = tmp_path / "the program's"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("a.txt").write_text("Hello")
    for name in ("volumes", "results"):
        Path(name).mkdir()
    with dn.Connection("volumes", backend="file") as con:
        con.create_dataset("tomo", data=np.arange(10))
    places = PilotDataService(room.url)
    store = places.create_pilot({"service_url": "store"})
    files = store.submit_data_unit({"file_urls": ["a.txt"]})
    arrays = room.units.submit_data_unit({"file_urls": ["dosna:file:volumes/tomo"]})
    results = places.create_pilot({"service_url": "dosna:file:results"})
    output = results.submit_data_unit({"file_urls": []})
    for unit in (files, arrays, output):
        assert unit.wait(timeout=100) == "Running", unit.get_details()
    monkeypatch.chdir(tmp_path)
    room.pilot()
    unit = room.unit(
        "sh",
        "-c",
        "cat a.txt; cp tomo.npy copy.npy",
        input_data=[files.get_url(), arrays.get_url()],
        output_data=[{output.get_url(): "copy.npy"}],
    )
    assert unit.wait(timeout=100) == "Done", unit.get_details()
    assert (room.folder_of(unit) / "stdout").read_text() == "Hello"
    assert (here / "store" / files.id / "a.txt").exists()
    with dn.Connection(str(here / "results"), backend="file", mode="r") as con:
        assert con[f"{output.id}/copy"][:].tolist() == list(range(10))


def rows_of(room: Any) -> list[dict[str, Any]]:
    return list(room.pilots._session.store.rows("pilots"))
