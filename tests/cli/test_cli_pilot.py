"""The command ``dosna pilot``."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import HANG, require

from dosna.cli import main

pytestmark = pytest.mark.slow

PLAN = """
pilots:
  - service_url: fork://localhost
    number_of_processes: 2
    working_directory: FOLDER
pilot_data:
  store: {service_url: 'file://FOLDER/store', password: $STORE_PASSWORD}
data_units:
  text: {file_urls: [FOLDER/text.txt], pilot_data: store}
  results: {pilot_data: store}
compute_units:
  - name: first
    executable: /bin/cat
    arguments: [text.txt]
    input_data: [text]
    output_data: [{results: 'std*'}]
  - executable: 'sh'
    arguments: [-c, 'exit 4']
    depends_on: [first]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    for package in ("psij", "fsspec", "cryptography", "yaml"):
        require(package)
    path = tmp_path / "plan.yml"
    path.write_text(textwrap.dedent(PLAN).replace("FOLDER", str(tmp_path)))
    (tmp_path / "text.txt").write_text("a text\n")
    return path


def test_submit_status_fetch(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = f"--state=sqlite:///{tmp_path}/state.db"
    monkeypatch.setenv("STORE_PASSWORD", "hidden-from-all")
    # In a process of its own, for pilots end with it.
    command = [sys.executable, "-m", "dosna", "pilot", "submit", str(plan), state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 1
    assert "1 unit of 2 done" in done.stdout
    assert "exit code 4" in done.stderr
    assert main(["pilot", "status", state, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["compute_units"] == {"Done": 1, "Failed": 1}
    assert [row["state"] for row in found["pilots"]] == ["Canceled"]
    assert [row["name"] for row in found["data_units"]] == ["text", "results"]
    assert main(["pilot", "status", state]) == 1
    assert "fork://localhost" in capsys.readouterr().out
    target = tmp_path / "fetched"
    fetch = ["pilot", "fetch", "results", str(target), f"--plan={plan}", state]
    assert main(fetch) == 0
    assert (target / "stdout").read_text() == "a text\n"
    assert "hidden-from-all" not in done.stdout + done.stderr + capsys.readouterr().out
    assert b"hidden-from-all" not in b"".join(
        path.read_bytes() for path in tmp_path.glob("state.db*") if path.is_file()
    )


def test_cancel_from_another_process(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dosna.pilot import ComputeDataService, State
    from dosna.pilot.manager import Manager
    from dosna.pilot.sessions import close_session

    url = f"sqlite:///{tmp_path}/state.db"
    service = ComputeDataService(url)
    unit = service.submit_compute_unit({"executable": "true"})
    assert main(["pilot", "cancel", unit.id, f"--state={url}"]) == 0
    assert "1 pilot or unit" in capsys.readouterr().out
    assert unit.wait(timeout=HANG) == State.Canceled
    Manager.of(service._shared).close()
    close_session(service._shared)


@pytest.mark.parametrize(
    ("text", "noun"),
    [
        ("[1, 2", "line"),
        ("other: 1", "parts"),
        ("pilots: {a: 1}", "list"),
        ("compute_units: [{executable: x, input_data: [none]}]", "none"),
        ("pilot_data: {a: {service_url: 's3://x', password: $NOT_SET}}", "NOT_SET"),
        ("compute_units: [{executable: x}, {executable: x, depends_on: [y]}]", "y"),
        ("compute_units: [{executable: x}, {arguments: [x]}]", "executable"),
        (
            "{pilots: [{service_url: 'fork://localhost'}], data_units: {a: {pilot_data: none}}}",
            "none",
        ),
        ("pilots: [{service_url: 'fork://localhost'}, {service_url: 'sge://x'}]", "sge"),
    ],
)
def test_plans_that_are_refused(
    text: str, noun: str, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dosna.errors import ConfigurationError
    from dosna.pilot import ComputeDataService, PilotComputeService, PilotDataService
    from dosna.pilot.manager import Manager
    from dosna.pilot.plans import read_plan
    from dosna.pilot.sessions import close_session
    from dosna.pilot.store import TABLES

    plan.write_text(text)
    url = f"sqlite:///{tmp_path}/state.db"
    computing, storing = PilotComputeService(url), PilotDataService(url)
    try:
        with pytest.raises(ConfigurationError, match=noun):
            read_plan(str(plan)).submit(computing, storing, ComputeDataService(url))
        store = computing._session.store
        assert not any(store.count(name) for name in TABLES)  # nothing is half submitted
    finally:
        Manager.of(computing._session).close()
        close_session(computing._session)


def test_wrong_arguments(plan: Path, tmp_path: Path) -> None:
    state = f"--state=sqlite:///{tmp_path}/none.db"
    assert main(["pilot", "status", state]) == 2
    assert main(["pilot", "cancel", state]) == 2
    assert main(["pilot", "submit", str(tmp_path / "none.yml")]) == 2


def test_fetch_shows_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("psij", "fsspec", "cryptography"):
        require(package)
    from dosna.cli.console import Console
    from dosna.pilot import PilotDataService
    from dosna.pilot.sessions import close_session

    (tmp_path / "text.txt").write_text("a text\n")
    url = f"sqlite:///{tmp_path}/state.db"
    storing = PilotDataService(url)
    store = storing.create_pilot({"service_url": f"file://{tmp_path}/store"})
    unit = store.submit_data_unit({"file_urls": [str(tmp_path / "text.txt")]})
    assert unit.wait(timeout=HANG) == "Running"
    monkeypatch.setattr(Console, "is_terminal", True)
    fetch = ["pilot", "fetch", unit.id, str(tmp_path / "fetched"), f"--state={url}"]
    assert main(fetch) == 0, capsys.readouterr().err
    assert (tmp_path / "fetched" / "text.txt").read_text() == "a text\n"
    capsys.readouterr()
    empty = store.submit_data_unit({"file_urls": []})
    assert empty.wait(timeout=100) == "Running"
    assert main(["pilot", "fetch", empty.id, str(tmp_path / "none"), f"--state={url}"]) == 1
    assert "has no files" in capsys.readouterr().err
    close_session(storing._session)
