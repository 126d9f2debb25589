"""The Pilot-API for data: data units in places, replicas, parts, quotas."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pilot.data.conftest import bucket, sftp
from support import HANG, require, wait_until

from dosna.errors import ConfigurationError, SourceNotFoundError, StorageError
from dosna.pilot.affinity import Label
from dosna.pilot.data.records import (
    fields_of,
    files_of,
    nearest,
    request_for,
    room_of,
)
from dosna.pilot.data.service import DataUnit, submit_data_unit
from dosna.pilot.data.staging import stage_in, stage_out

if TYPE_CHECKING:
    from services import Ceph, Sshd

Make = Callable[..., list[str]]


def local(folder: Path, **more: Any) -> dict[str, Any]:
    return {"service_url": f"file://{folder}", **more}


def ready(unit: Any) -> Any:
    assert unit.wait(timeout=HANG) == "Running", unit.get_details()
    return unit


def test_a_data_unit_is_stored_and_exported(
    service: Any, make_files: Make, tmp_path: Path
) -> None:
    store = service.create_pilot(local(tmp_path / "store"))
    urls = make_files(**{"a.txt": b"aaa", "b.txt": b"bb"})
    unit = ready(store.submit_data_unit({"file_urls": urls}))
    assert (tmp_path / "store" / unit.id / "a.txt").read_bytes() == b"aaa"
    assert unit.list()["a.txt"]["size"] == 3
    assert unit.list()["a.txt"]["pilot_data"] == [store.get_url()]
    assert store.list_data_units() == [unit.get_url()]
    unit.export(str(tmp_path / "out"), "b*")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.txt"]
    store.export_du(unit, str(tmp_path / "all"))
    assert len(list((tmp_path / "all").iterdir())) == 2
    assert service.wait(HANG)
    assert service.list_pilots() == [store.get_url()]
    assert service.get_pilot(store.get_url()).id == store.id


def test_all_places_replicate_to_each_other(
    service: Any, make_files: Make, tmp_path: Path, sshd: Sshd, gateway: Ceph
) -> None:
    for package in ("sshfs", "obstore"):
        require(package)
    content = os.urandom(1 << 20)
    first = service.create_pilot(sftp(sshd, tmp_path / "remote"))
    second = service.create_pilot(bucket(gateway, f"pilot-{os.urandom(6).hex()}"))
    third = service.create_pilot(local(tmp_path / "third"))
    unit = first.submit_data_unit({"file_urls": make_files(**{"data.bin": content})})
    second.submit_data_unit(data_unit=unit)
    ready(unit)
    wait_until(lambda: len(unit.list_pilot_data()) == 2)
    first.remove_du(unit)
    unit.add_pilot_data([third])
    wait_until(lambda: len(unit.list_pilot_data()) == 2)
    assert (tmp_path / "third" / unit.id / "data.bin").read_bytes() == content
    assert not (tmp_path / "remote" / unit.id).exists()
    second.copy_du(unit, first)
    wait_until(lambda: first.get_url() in unit.list_pilot_data())
    for place in (first, second, third):
        place.remove_du(unit)
    assert unit.get_state() == "Canceled"


def test_files_come_from_other_places(
    service: Any, tmp_path: Path, web: tuple[str, Path], sshd: Sshd
) -> None:
    for package in ("aiohttp", "sshfs"):
        require(package)
    url, folder = web
    (folder / "page.txt").write_bytes(b"page")
    (folder / "other.txt").write_bytes(b"other")
    (folder / "third.txt").write_bytes(b"third")
    fields = sftp(sshd, folder)
    urls = [
        f"{url}/page.txt?token=secret",
        f"{fields['service_url']}/other.txt",
        f"ssh://localhost{folder}/third.txt",
    ]
    store = service.create_pilot({**fields, "service_url": fields["service_url"] + "/store"})
    unit = ready(store.submit_data_unit({"file_urls": urls}))
    unit.export(str(tmp_path / "out"))
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == {"page.txt": b"page", "other.txt": b"other", "third.txt": b"third"}


def test_what_cannot_be_stored_fails_with_the_reason(
    service: Any, make_files: Make, tmp_path: Path
) -> None:
    store = service.create_pilot(local(tmp_path / "store"))
    unit = store.submit_data_unit({"file_urls": [str(tmp_path / "missing")]})
    assert unit.wait(timeout=HANG) == "Failed"
    assert "missing" in unit.get_details()["reason"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"x")
    twice = [*make_files(a=b"a"), str(tmp_path / "other" / "a")]
    unit = store.submit_data_unit({"file_urls": twice})
    assert unit.wait(timeout=HANG) == "Failed"
    assert "same name" in unit.get_details()["reason"]
    with pytest.raises(ConfigurationError, match="gopher"):
        service.create_pilot({"service_url": "gopher://host"})
    with pytest.raises(ConfigurationError, match="replicate"):
        store.submit_data_unit()
    assert not list((tmp_path / "store").glob("du-*/*"))


def test_a_place_has_a_size(service: Any, make_files: Make, tmp_path: Path) -> None:
    store = service.create_pilot(local(tmp_path / "store", size=1))
    fits = ready(store.submit_data_unit({"file_urls": make_files(a=bytes(1 << 19))}))
    assert room_of(service._session, store.id) == 1 << 19
    more = store.submit_data_unit({"file_urls": make_files(b=bytes((1 << 19) + 1))})
    assert more.wait(timeout=HANG) == "Failed"
    assert "room" in more.get_details()["reason"]
    assert not (tmp_path / "store" / more.id).exists()
    store.remove_du(fits)
    ready(store.submit_data_unit({"file_urls": make_files(b=bytes((1 << 19) + 1))}))


def test_replicas_count_against_the_size(service: Any, make_files: Make, tmp_path: Path) -> None:
    big = service.create_pilot(local(tmp_path / "big"))
    small = service.create_pilot(local(tmp_path / "small", size="1K"))
    unit = ready(big.submit_data_unit({"file_urls": make_files(a=bytes(2000))}))
    small.submit_data_unit(data_unit=unit)
    assert service.wait(HANG)
    assert unit.list_pilot_data() == [big.get_url()]
    assert unit.get_state() == "Running"
    row = service._session.store.get("replicas", f"{unit.id}/{small.id}")
    assert row["state"] == "Failed"
    assert "room" in row["reason"]


def test_labels_choose_the_places(service: Any, make_files: Make, tmp_path: Path) -> None:
    places = {
        name: service.create_pilot(local(tmp_path / name, affinity_datacenter_label=name))
        for name in ("europe/didcot", "europe/hamburg", "america")
    }
    described = {
        "file_urls": make_files(a=b"a"),
        "affinity_datacenter_label": "europe/hamburg",
        "number_of_replicas": 2,
    }
    unit = ready(submit_data_unit(service._session, described))
    wait_until(lambda: len(unit.list_pilot_data()) == 2)
    wanted = [places["europe/hamburg"].get_url(), places["europe/didcot"].get_url()]
    assert sorted(unit.list_pilot_data()) == sorted(wanted)
    near = nearest(service._session, unit.id, Label("europe/didcot", "node1"))
    assert near == places["europe/didcot"].id
    request = request_for(service._session, unit.id, ["a"], near=Label("europe/hamburg"))
    assert request["place"]["service_url"].endswith("hamburg")


def test_outputs_come_to_the_oldest_replica(
    service: Any, make_files: Make, tmp_path: Path
) -> None:
    first, second = (service.create_pilot(local(tmp_path / name)) for name in ("one", "two"))
    unit = ready(first.submit_data_unit({"file_urls": make_files(a=b"a")}))
    unit.add_pilot_data(second)
    wait_until(lambda: len(unit.list_pilot_data()) == 2)
    work = tmp_path / "work"
    work.mkdir()
    (work / "out").write_bytes(b"result")
    request = request_for(service._session, unit.id, ["out"], output=True)
    assert request["place"]["service_url"].endswith("/one")
    found = stage_out(request, str(work))
    from dosna.pilot.data.files import File
    from dosna.pilot.data.records import note_files

    note_files(service._session, unit.id, [File.of(one) for one in found])
    # The other has not all files any more, so that nobody reads it.
    assert unit.list_pilot_data() == [first.get_url()]
    unit.add_files(make_files(b=b"b"))
    wait_until(lambda: len(unit.list_pilot_data()) == 1)
    unit.export(str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "out"]


def test_an_empty_data_unit_is_ready(service: Any, tmp_path: Path) -> None:
    store = service.create_pilot(local(tmp_path / "store"))
    unit = ready(store.submit_data_unit({"file_urls": []}))
    assert unit.list() == {}
    stage_in(request_for(service._session, unit.id, None), str(tmp_path / "out"))
    with pytest.raises(SourceNotFoundError):
        request_for(service._session, "du-unknown", None)
    store.remove_du(unit)
    with pytest.raises(StorageError, match="submit"):
        unit.add_files(["x"])


SECRETS = ("my-access-key-id", "my-secret-access-key", "my-password")


def test_credentials_are_never_kept(service: Any, make_files: Make, tmp_path: Path) -> None:
    require("obstore")
    keys = {"access_key_id": SECRETS[0], "secret_access_key": SECRETS[1]}
    url = f"s3://me:{SECRETS[2]}@bucket/x"
    fields = {"service_url": url, "endpoint_url": "http://127.0.0.1:1", "options": {"retries": 0}}
    store = service.create_pilot({**fields, **keys})
    unit = store.submit_data_unit({"file_urls": make_files(a=b"a")})
    assert unit.wait(timeout=HANG) == "Failed"
    told = [unit.get_details(), store.get_details(), repr(store), service.list_pilots()]
    with sqlite3.connect(tmp_path / "state.db") as state:
        told.append("".join(state.iterdump()))
    for secret in SECRETS:
        assert secret not in repr(told)
    assert "secret_access_key" in store.get_details()["secrets"]


RESUMED = """
import sys
from dosna.pilot.data import PilotDataService
from dosna.pilot.data.local import LocalPlace
import time

def slow(self, source, path, tell=None):
    print("uploading", flush=True)
    time.sleep(1000)
LocalPlace.prepare = slow
service = PilotDataService(sys.argv[1])
store = service.create_pilot({"service_url": sys.argv[2]})
print(store.submit_data_unit({"file_urls": [sys.argv[3]]}).id, flush=True)
time.sleep(1000)
"""


@pytest.mark.slow
def test_a_killed_manager_goes_on(make_files: Make, tmp_path: Path) -> None:
    require("sqlalchemy")
    from dosna.pilot.data import PilotDataService
    from dosna.pilot.sessions import close_session

    url, (path,) = f"sqlite:///{tmp_path}/state.db", make_files(a=b"content")
    command = [sys.executable, "-c", RESUMED, url, f"file://{tmp_path}/store", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = {process.stdout.readline().strip() for _ in range(2)}
        process.kill()
    (id,) = said - {"uploading"}
    service = PilotDataService(url)
    unit = DataUnit(service._session, id)
    assert unit.wait(timeout=HANG) == "Running", unit.get_details()
    assert (tmp_path / "store" / id / "a").read_bytes() == b"content"
    close_session(service._session)


def test_transfers_are_canceled(
    service: Any, make_files: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosna.pilot.data import mover
    from dosna.pilot.data.local import LocalPlace

    monkeypatch.setattr(mover, "_TELL_SECONDS", 0.0)
    begun, go_on = threading.Event(), threading.Event()
    prepare = LocalPlace.prepare

    def waiting(self: LocalPlace, source: str, path: str, tell: Any = None) -> Any:
        begun.set()
        go_on.wait(HANG)
        return prepare(self, source, path, tell)

    monkeypatch.setattr(LocalPlace, "prepare", waiting)
    store = service.create_pilot(local(tmp_path / "store"))
    unit = store.submit_data_unit({"file_urls": make_files(a=b"content")})
    assert begun.wait(HANG)
    assert unit.wait(timeout=0.01) == "Pending"
    service.cancel()
    go_on.set()
    assert unit.wait(timeout=HANG) == "Canceled"
    assert not list((tmp_path / "store" / unit.id).iterdir())
    with pytest.raises(ConfigurationError, match="canceled"):
        store.submit_data_unit(data_unit=unit)


def test_credentials_in_urls_and_options_are_never_kept(service: Any, tmp_path: Path) -> None:
    require("aiohttp")
    options = {"token": SECRETS[1], "timeout": 3}
    store = service.create_pilot(local(tmp_path / "store", options=options))
    assert store.get_details()["description"]["options"] == {"timeout": 3}
    assert fields_of(service._session, store.id)["options"] == options
    urls = [f"https://me:{SECRETS[2]}@127.0.0.1:1/a", f"http://127.0.0.1:1/b?sign={SECRETS[0]}"]
    unit = store.submit_data_unit({"file_urls": urls})
    assert unit.wait(timeout=HANG) == "Failed"
    told = [unit.get_details(), store.get_details()]
    with sqlite3.connect(tmp_path / "state.db") as state:
        told.append("".join(state.iterdump()))
    for secret in SECRETS:
        assert secret not in repr(told)
    # Another process knows no more than the state.
    service._session.keep_secrets(unit.id, {})
    again = service.create_pilot(local(tmp_path / "other"))
    again.submit_data_unit(data_unit=unit)
    replica = f"{unit.id}/{again.id}"
    get = service._session.store.get
    wait_until(lambda: "submit it again" in get("replicas", replica)["reason"])


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "many"},
        {"size": -1},
        {"options": ["x"]},
        {"options": {"known_hosts": Path("x")}},
        {"affinity_machine_label": 5},
    ],
)
def test_descriptions_of_places_are_checked(service: Any, tmp_path: Path, fields: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        service.create_pilot(local(tmp_path / "store", **fields))


def test_a_replica_that_was_asked_for_again_meanwhile(
    service: Any, make_files: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = service.create_pilot(local(tmp_path / "store"))
    unit = ready(store.submit_data_unit({"file_urls": make_files(a=b"a")}))
    other = service.create_pilot(local(tmp_path / "other"))
    right, asked = service._session.set_state, []

    def set_state(table: str, id: str, state: Any, *more: Any, **named: Any) -> None:
        right(table, id, state, *more, **named)
        if table == "replicas" and id.endswith(other.id) and state == "Running" and not asked:
            # As by a user who is told in this moment.
            asked.append(id)
            other.submit_data_unit(data_unit=unit)

    monkeypatch.setattr(service._session, "set_state", set_state)
    other.submit_data_unit(data_unit=unit)
    wait_until(lambda: asked and len(unit.list_pilot_data()) == 2)
    assert service.wait(timeout=HANG)


def test_what_is_in_no_place_can_be_canceled(service: Any) -> None:
    unit = submit_data_unit(service._session, {"file_urls": []})
    assert unit.wait(timeout=0.01) == "New"
    unit.cancel()
    assert unit.wait(timeout=HANG) == "Canceled"


def test_files_are_replaced_together(service: Any, make_files: Make, tmp_path: Path) -> None:
    store = service.create_pilot(local(tmp_path / "store", size=1))
    unit = ready(store.submit_data_unit({"file_urls": make_files(a=b"a", b=b"b")}))
    seen = []
    right = service._session.store.change

    def change() -> Any:
        seen.append(len(files_of(service._session, unit.id)))
        return right()

    service._session.store.change = change
    unit.add_files(make_files(a=b"another", b=b"text"))
    del service._session.store.change
    assert {*seen} == {2}
    assert room_of(service._session, store.id) == (1 << 20) - len("anothertext")
