"""Several compute units that write one file of a data unit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dosna.errors import StorageError
from dosna.pilot.data.files import File
from dosna.pilot.data.records import files_of, request_for
from dosna.pilot.data.staging import stage_in, stage_out
from dosna.pilot.descriptions import ComputeUnitDescription
from dosna.pilot.ledger import Ledger


class Writers:
    """Units that write the file `out` of a data unit, as their agents and the manager do it."""

    def __init__(self, service: Any, folder: Path) -> None:
        self.session, self.folder = service._session, folder
        store = service.create_pilot({"service_url": str(folder / "store")})
        self.unit = store.submit_data_unit({"file_urls": []})
        assert self.unit.wait(timeout=100) == "Running"
        self.stored = folder / "store" / self.unit.id / "out"
        self.ledger = Ledger(self.session, lambda number: None)
        self.agent: Any = SimpleNamespace(
            name="a", host="h", pilot="bj-1", unit_seconds=1.0, assigned={}, send=lambda **_: None
        )
        self.count = 0

    def begin(self, name: str = "") -> str:
        """Begin an attempt at a unit, a new one by default."""
        self.count += 1
        name = name or f"cu-{self.count}"
        row = {"id": name, "number": self.count, "attempts": 0, "details": {}}
        fields = ComputeUnitDescription.of({"executable": "true"}).fields()
        if self.session.store.get("compute_units", name) is None:
            row_of_unit = {"id": name, "number": self.count, "description": fields}
            self.session.store.add("compute_units", [row_of_unit])
        assigned = self.ledger.assign(self.agent, {**row, "description": fields}, "")
        self.ledger.started(self.agent, assigned.attempt)
        self.ledger.flush()
        return assigned.attempt

    def write(self, attempt: str, text: str) -> dict[str, Any]:
        """Store the output of an attempt; return what the agent tells of it."""
        work = self.folder / attempt
        work.mkdir()
        (work / "out").write_text(text)
        request = request_for(self.session, self.unit.id, ["out"], output=True)
        files = stage_out({**request, "attempt": attempt}, str(work))
        return {"attempt": attempt, "code": 0, "files": [[self.unit.id, files]]}

    def tell(self, *results: dict[str, Any]) -> None:
        for result in results:
            self.ledger.ended(self.agent, result)
        self.ledger.flush()

    def read(self) -> str:
        folder = self.folder / f"read-{len(list(self.folder.iterdir()))}"
        request = request_for(self.session, self.unit.id, None)
        # As it is sent to an agent, and found in the state.
        assert [File.of(one) for one in request["files"]] == files_of(self.session, self.unit.id)
        stage_in(request, str(folder))
        return (folder / "out").read_text()


@pytest.fixture
def writers(service: Any, tmp_path: Path) -> Writers:
    return Writers(service, tmp_path)


@pytest.mark.parametrize("together", [True, False])
def test_last_one_counts_in_whatever_order_the_manager_hears(
    writers: Writers, together: bool
) -> None:
    one, other = writers.begin(), writers.begin()
    results = [writers.write(one, "one"), writers.write(other, "the other")]
    if together:
        writers.tell(*results[::-1])
    else:
        writers.tell(results[1])
        writers.tell(results[0])
    assert writers.read() == "the other"
    # What none of them has written is still an error.
    writers.stored.write_text("two")
    with pytest.raises(StorageError, match="checksum"):
        writers.read()


def test_one_that_began_later_replaces_what_was_there(writers: Writers) -> None:
    one, other = writers.begin(), writers.begin()
    results = [writers.write(one, "one"), writers.write(other, "the other")]
    writers.tell(results[0])
    writers.tell(results[1])
    later = writers.begin()
    writers.tell(writers.write(later, "later"))
    assert writers.read() == "later"
    for text in ("one", "the other"):
        writers.stored.write_text(text)
        with pytest.raises(StorageError, match=r"bytes|checksum"):
            writers.read()


def test_attempts_at_one_unit_are_no_several_writers(writers: Writers) -> None:
    first = writers.begin("cu-7")
    second = writers.begin("cu-7")
    results = [writers.write(first, "first"), writers.write(second, "second")]
    writers.tell(results[0])
    writers.tell(results[1])
    writers.stored.write_text("first")
    with pytest.raises(StorageError, match=r"bytes|checksum"):
        writers.read()
