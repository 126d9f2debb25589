"""Descriptions, and the state of pilots, data and units."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from dosna.errors import ConfigurationError, StorageError
from dosna.pilot import State
from dosna.pilot.descriptions import (
    ComputeUnitDescription,
    DataUnitDescription,
    PilotComputeDescription,
    PilotDataDescription,
    without_secrets,
)
from dosna.pilot.session import Session, private_folder
from dosna.pilot.store import StateStore, new_id


def test_state_of_names() -> None:
    assert [str(state) for state in State] == [
        "Unknown",
        "New",
        "Pending",
        "Running",
        "Done",
        "Canceled",
        "Failed",
    ]
    assert State.Done == "Done"
    assert [state for state in State if state.is_final] == ["Done", "Canceled", "Failed"]


def test_descriptions_of_documented_fields() -> None:
    unit = ComputeUnitDescription.of(
        {
            "executable": "/bin/cat",
            "arguments": ["a file.txt", 3],
            "total_cpu_count": "2",
            "environment": ["A=1=2"],
            "input_data": ["du-1", {"du-2": ["a*"]}],
            "output_data": [{"du-3": "std*"}],
            "affinity_datacenter_label": "eu-de-south",
        }
    )
    assert unit.number_of_processes == 2
    assert unit.arguments == ["a file.txt", "3"]
    assert unit.inputs() == [("du-1", ["*"]), ("du-2", ["a*"])]
    assert unit.outputs() == [("du-3", ["std*"])]
    pilot = PilotComputeDescription.of({"service_url": "fork://localhost", "allocation": "x"})
    assert pilot.project == "x"


@pytest.mark.parametrize(
    ("kind", "fields", "noun"),
    [
        (ComputeUnitDescription, {"executable": "x", "program": 1}, "program"),
        (ComputeUnitDescription, {}, "executable"),
        (ComputeUnitDescription, {"executable": "x", "environment": ["A"]}, "environment"),
        (ComputeUnitDescription, {"executable": "x", "spmd_variation": "pvm"}, "spmd_variation"),
        (ComputeUnitDescription, {"executable": "x", "output_data": ["du-1"]}, "output_data"),
        (PilotComputeDescription, {"service_url": "x", "number_of_processes": 0}, "at least 1"),
        (PilotComputeDescription, {"service_url": "x", "walltime": "an hour"}, "minutes"),
        (PilotComputeDescription, {"service_url": "x", "walltime": 10**400}, "minutes"),
        (PilotComputeDescription, {"service_url": "x", "processes_per_node": inf}, "at least 1"),
        (ComputeUnitDescription, {"executable": "x", "number_of_processes": 1.5}, "at least 1"),
        (DataUnitDescription, {"number_of_replicas": -inf}, "at least 1"),
        (PilotDataDescription, {"service_url": "x", "size": inf}, "size"),
        (PilotDataDescription, {"service_url": "x", "size": "9" * 400}, "size"),
    ],
)
def test_descriptions_refuse(kind: type, fields: dict[str, object], noun: str) -> None:
    with pytest.raises(ConfigurationError, match=noun):
        kind.of(fields)  # type: ignore[attr-defined]


def test_secrets_are_kept_apart() -> None:
    place = PilotDataDescription.of(
        {
            "service_url": "s3://me:hidden@host/bucket",
            "access_key_id": "hidden",
            "secret_access_key": "hidden",
        }
    )
    assert "hidden" not in str(place.fields())
    url = "s3://me:hidden@host/bucket"
    keys = {"access_key_id": "hidden", "secret_access_key": "hidden"}
    assert place.secrets() == {**keys, "service_url": url}
    assert without_secrets("ssh://me:hidden@host/x") == "ssh://me:***@host/x"


def test_store_keeps_rows_for_the_next_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = StateStore(url)
    one, other = new_id("du"), new_id("du")
    store.add("data_units", [{"id": one, "description": {"name": "a"}}, {"id": other}])
    store.update("data_units", one, state="Running", details={"x": 1})
    store.close()
    store = StateStore(url)
    row = store.get("data_units", one)
    assert row is not None
    assert (row["state"], row["description"], row["details"]) == (
        "Running",
        {"name": "a"},
        {"x": 1},
    )
    assert store.count("data_units", state=["New", "Pending"]) == 1
    store.remove("data_units", other)
    assert [row["id"] for row in store.rows("data_units")] == [one]
    store.close()


def test_store_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="state"):
        StateStore("no url")
    with pytest.raises(StorageError, match="state"):
        StateStore(f"sqlite:///{tmp_path}/none/state.db")


def test_spellings_of_a_url_have_one_private_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for spellings, other in (
        (
            (
                "postgresql://host/db",
                "postgresql+psycopg://me:hidden@Host:5432/db?connect_timeout=9",
                "postgresql://me@/db?host=host",
            ),
            "postgresql://host:5433/db",
        ),
        (
            (
                f"sqlite:///{tmp_path}/s.db",
                f"sqlite+pysqlite:///{tmp_path}/link/s.db?timeout=9",
                f"sqlite:///file:{tmp_path}/s.db?uri=true",
            ),
            f"sqlite:///{tmp_path}/t.db",
        ),
    ):
        folders = {private_folder(url) for url in spellings}
        assert len(folders) == 1
        assert private_folder(other) not in folders


def test_waiting_ends(tmp_path: Path) -> None:
    session = Session(f"sqlite:///{tmp_path}/state.db")
    session.store.add("compute_units", [{"id": "cu-1", "number": 1}])

    def is_done() -> bool:
        row = session.store.get("compute_units", "cu-1")
        return row is not None and row["state"] == "Done"

    assert not session.wait_until(is_done, timeout=0.01)
    session.set_state("compute_units", "cu-1", State.Done)
    assert session.wait_until(is_done, timeout=0)
    session.close()
