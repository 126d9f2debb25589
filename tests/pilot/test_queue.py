"""Which units wait for which: those that were sent ahead, canceled, or hard to write down."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pilot.test_units import until
from support import HANG, require

from dosna.pilot import State


def hold(room: Any, count: int = 1) -> tuple[list[Any], Path]:
    """Start units that run until a file is there."""
    go = Path(room.folder, f"go-{time.monotonic()}")
    units = [
        room.unit("sh", "-c", f"while ! test -e {go}; do sleep 0.02; done") for _ in range(count)
    ]
    until(lambda: all(unit.get_state() == State.Running for unit in units))
    return units, go


def warm_up(room: Any) -> None:
    """Let units be short, so that more of them are sent ahead."""
    room.units.submit_compute_units([{"executable": "true"}] * 60)
    assert room.units.wait(timeout=HANG)


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_short_unit_does_not_wait_behind_a_long_one(room: Any, is_warm: bool) -> None:
    room.pilot()
    if is_warm:
        warm_up(room)
    _, go = hold(room)
    assert all(room.unit("true").wait(timeout=HANG) == State.Done for _ in range(3))
    units = [room.unit("true") for _ in range(4)]
    assert all(unit.wait(timeout=HANG) == State.Done for unit in units)
    assert {unit.get_details()["attempts"] for unit in units} == {1}
    go.touch()


def test_units_behind_long_ones_go_to_another_pilot(room: Any) -> None:
    first = room.pilot()
    warm_up(room)
    _, go = hold(room, 2)
    units = [room.unit("true") for _ in range(6)]
    until(lambda: all(unit.get_state() == State.Pending for unit in units))
    other = room.pilot()
    assert all(unit.wait(timeout=HANG) == State.Done for unit in units)
    assert {unit.get_details()["pilot"] for unit in units} == {other.id}
    assert {unit.get_details()["attempts"] for unit in units} == {1}
    assert first.get_state() == State.Running
    go.touch()


def test_cancel_of_a_unit_that_waits_spares_the_one_that_runs(room: Any) -> None:
    room.pilot()
    warm_up(room)
    running, go = hold(room, 2)
    waiting = [room.unit("touch", str(room.folder / "begun")) for _ in range(4)]
    until(lambda: all(unit.get_state() == State.Pending for unit in waiting))
    for unit in waiting:
        unit.cancel()
    assert all(unit.wait(timeout=HANG) == State.Canceled for unit in waiting)
    go.touch()
    assert all(unit.wait(timeout=HANG) == State.Done for unit in running)
    assert {unit.get_details()["attempts"] for unit in running} == {1}
    assert not (room.folder / "begun").exists()


def test_large_units_behind_a_long_one_do_not_block_the_agent(room: Any) -> None:
    room.pilot(number_of_processes=1)
    warm_up(room)
    (running,), _ = hold(room)
    large = room.unit("true", *["x" * 100_000] * 3)
    until(lambda: large.get_state() == State.Pending)
    running.cancel()
    assert running.wait(timeout=HANG) == State.Canceled
    assert large.wait(timeout=HANG) == State.Done


# --- what units leave ---


@pytest.fixture
def store(room: Any) -> Any:
    from dosna.pilot import PilotDataService

    require("fsspec")
    places = PilotDataService(room.url)
    room.units.add_pilot_data_service(places)
    return places.create_pilot({"service_url": f"file://{room.folder}/store"})


def test_one_file_for_two_patterns_and_two_units(room: Any, store: Any) -> None:
    room.pilot()
    output = store.submit_data_unit({"file_urls": []})
    to = [{output.get_url(): ["out"]}, {output.get_url(): ["*"]}]
    units = [room.unit("sh", "-c", "echo text > out", output_data=to) for _ in range(4)]
    assert room.units.wait(timeout=HANG)
    assert {unit.get_state() for unit in units} == {State.Done}
    assert output.list()["out"]["size"] == 5


def test_outputs_that_are_no_files_and_names_that_are_no_text(room: Any, store: Any) -> None:
    room.pilot()
    output = store.submit_data_unit({"file_urls": []})
    to = [{output.get_url(): ["*"]}]
    script = "mkfifo pipe; ln -s /dev/zero device; ln -s nothing link; echo text > out"
    unit = room.unit("sh", "-c", script, output_data=to)
    assert unit.wait(timeout=HANG) == State.Done, unit.get_details()
    assert sorted(output.list()) == ["out", "stderr", "stdout"]
    script = "touch \"$(printf 'name\\377')\"; printf 'zero\\0byte' >&2"
    unit = room.unit("sh", "-c", script, output_data=to)
    assert unit.wait(timeout=HANG) == State.Failed
    assert "Unicode" in unit.get_details()["reason"]
    unit = room.unit("sh", "-c", "printf 'zero\\0byte' >&2; exit 1")
    assert unit.wait(timeout=HANG) == State.Failed
    assert "zero\\x00byte" in unit.get_details()["reason"]


def test_messages_have_a_largest_size(
    room: Any, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dosna.pilot import scheduling

    (tmp_path / "a").touch()
    data = store.submit_data_unit({"file_urls": [str(tmp_path / "a")]})
    assert data.wait(timeout=HANG) == "Running"
    room.pilot()
    monkeypatch.setattr(scheduling, "_MANY_FILES", 0)
    monkeypatch.setattr(scheduling, "LONGEST", scheduling._MARGIN + 100)
    unit = room.unit("true", input_data=[data.get_url()])
    assert unit.wait(timeout=HANG) == State.Failed
    assert "too many files" in unit.get_details()["reason"]


@pytest.mark.parametrize(("size", "most", "is_read"), [(5000, 9000, True), (5000, 900, False)])
def test_long_messages_are_read_in_pieces(size: int, most: int, is_read: bool) -> None:
    from dosna.pilot import crew

    async def read() -> dict[str, Any]:
        reader = asyncio.StreamReader(limit=64)
        reader.feed_data(json.dumps({"kind": "x" * size}).encode() + b'\n{"kind": "next"}\n')
        found = await crew._read(reader, most)
        assert (await crew._read(reader, most))["kind"] == "next"
        return found

    if is_read:
        assert asyncio.run(read()) == {"kind": "x" * size}
    else:
        with pytest.raises(ValueError, match="too long"):
            asyncio.run(read())


def test_messages_that_are_cut_off() -> None:
    from dosna.pilot import crew

    async def read() -> None:
        reader = asyncio.StreamReader(limit=64)
        reader.feed_data(b"{" * 100)
        reader.feed_eof()
        await crew._read(reader, 1000)

    with pytest.raises(EOFError):
        asyncio.run(read())
