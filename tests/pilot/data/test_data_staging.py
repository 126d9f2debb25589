"""Files into a folder and out of it: whole, checked, or not at all."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dosna.errors import ConfigurationError, SourceNotFoundError, StorageError
from dosna.pilot.data import stage_in, stage_out
from dosna.pilot.data.files import File, checksum_of
from dosna.pilot.data.places import open_place
from dosna.pilot.data.staging import put

Fields = dict[str, Any]


def keep(fields: Fields, tmp_path: Path, **contents: bytes) -> dict[str, Any]:
    """Store files, and give the request for them."""
    folder = tmp_path / "kept"
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with open_place(fields) as place:
        files = put({name: str(folder / name) for name in contents}, place, "du-1")
    return {
        "data_unit": "du-1",
        "place": fields,
        "files": [file.to_json() for file in files],
        "patterns": None,
    }


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_appear_whole(fields: Fields, tmp_path: Path) -> None:
    contents = {"a.txt": b"text", "b.bin": os.urandom(1 << 20), "empty": b""}
    request = keep(fields, tmp_path, **contents)
    request = json.loads(json.dumps(request))  # as it is sent
    told: list[tuple[int, int]] = []
    found = stage_in(request, str(tmp_path / "work"), lambda *done: told.append(done))
    assert tree(tmp_path / "work") == contents
    assert [one["name"] for one in found] == list(contents)
    assert told[-1] == ((1 << 20) + 4, (1 << 20) + 4)


def test_a_part_of_a_data_unit(fields: Fields, tmp_path: Path) -> None:
    request = keep(fields, tmp_path, **{"a.txt": b"a", "b.txt": b"b", "c.bin": b"c"})
    stage_in({**request, "patterns": ["c.bin", "a*"]}, str(tmp_path / "work"))
    assert tree(tmp_path / "work") == {"a.txt": b"a", "c.bin": b"c"}
    with pytest.raises(SourceNotFoundError, match=r"\*\.png"):
        stage_in({**request, "patterns": ["*.png"]}, str(tmp_path / "other"))


def test_a_changed_file_is_noticed_and_nothing_appears(fields: Fields, tmp_path: Path) -> None:
    request = keep(fields, tmp_path, **{"a.txt": b"good", "b.txt": b"good"})
    (tmp_path / "evil").write_bytes(b"evil")
    with open_place(fields) as place:
        place.upload(str(tmp_path / "evil"), "du-1/b.txt")
        with pytest.raises(StorageError, match="checksum"):
            stage_in(request, str(tmp_path / "work"))
        (tmp_path / "evil").write_bytes(b"goo")
        place.upload(str(tmp_path / "evil"), "du-1/b.txt")
        with pytest.raises(StorageError, match="3 bytes"):
            stage_in(request, str(tmp_path / "work"))
        place.remove("du-1/b.txt")
    with pytest.raises(SourceNotFoundError, match=r"b\.txt"):
        stage_in(request, str(tmp_path / "work"))
    assert list((tmp_path / "work").iterdir()) == []


def test_outputs_by_patterns(fields: Fields, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    for name in ("stdout", "stderr", "sub/deep.txt", ".hidden", "other"):
        (work / name).write_text(name)
    request = {"data_unit": "du-2", "place": fields, "patterns": ["std*", "sub"], "files": []}
    found = stage_out(request, str(work))
    assert [one["name"] for one in found] == ["stderr", "stdout", "sub/deep.txt"]
    assert found[0]["checksum"] == checksum_of(str(work / "stderr"))
    stage_in({**request, "files": found, "patterns": None}, str(tmp_path / "back"))
    assert tree(tmp_path / "back") == {
        "stderr": b"stderr",
        "stdout": b"stdout",
        "sub/deep.txt": b"sub/deep.txt",
    }


def test_a_missing_output_uploads_nothing(fields: Fields, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "stdout").write_text("text")
    request = {"data_unit": "du-2", "place": fields, "patterns": ["std*", "*.png"]}
    with pytest.raises(SourceNotFoundError, match=r"\*\.png"):
        stage_out(request, str(work))
    with open_place(fields) as place, pytest.raises(SourceNotFoundError):
        place.size("du-2/stdout")


def test_outputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "out").write_bytes(bytes(1000))
    fields = {"service_url": f"file://{tmp_path}/store"}
    request = {"data_unit": "du-2", "place": fields, "patterns": ["out"], "room": 999}
    with pytest.raises(StorageError, match="room for 999 B"):
        stage_out(request, str(work))
    assert not (tmp_path / "store").exists()


def test_one_failed_upload_removes_the_others(
    fields: Fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a", "b", "old"):
        (work / name).write_text("new!")
    with open_place(fields) as place:
        (tmp_path / "old").write_text("old")
        place.upload(str(tmp_path / "old"), "du-2/old")
        kind = type(place)
    prepare = kind.prepare

    def fail_for_b(self: Any, source: str, path: str, tell: Any = None) -> Any:
        if path.endswith("/b"):
            raise StorageError("the place is gone")
        return prepare(self, source, path, tell)

    monkeypatch.setattr(kind, "prepare", fail_for_b)
    files = [{"name": "old", "size": 3}]
    request = {"data_unit": "du-2", "place": fields, "patterns": ["*"], "files": files}
    with pytest.raises(StorageError, match="gone"):
        stage_out(request, str(work))
    with open_place(fields) as place:
        with pytest.raises(SourceNotFoundError):
            place.size("du-2/a")
        assert place.size("du-2/old") in (3, 4)
    if fields["service_url"].startswith("file"):
        assert tree(tmp_path / "store") == {"du-2/old": b"old"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a//b"])
def test_names_that_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        File(name)
    request = {"data_unit": "du-1", "place": {}, "files": [{"name": name}], "patterns": None}
    with pytest.raises(ConfigurationError):
        stage_in(request, str(tmp_path))


@pytest.mark.slow
def test_large_files_take_little_memory(fields: Fields, tmp_path: Path) -> None:
    size = 100 << 20
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    with open_place(fields) as place:
        place.check()
        tracemalloc.start()
        try:
            place.upload(str(tmp_path / "big"), "du-1/big")
            place.download("du-1/big", str(tmp_path / "back"))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (tmp_path / "back").stat().st_size == size
    assert most < 64 << 20
