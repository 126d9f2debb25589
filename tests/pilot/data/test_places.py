"""Places that store data units: what all of them do, and what each refuses."""

from __future__ import annotations

import http.server
import os
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pilot.data.conftest import bucket, sftp
from support import require, wait_until

from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    ReadOnlyError,
    SourceNotFoundError,
)
from dosna.pilot.data.places import open_place, place_url
from dosna.pilot.data.remote import SftpPlace
from dosna.pilot.data.s3 import S3Place

if TYPE_CHECKING:
    from services import Ceph, Sshd

Fields = dict[str, Any]
BIG = os.urandom(20 << 20) + b"end"


def test_files_come_back_as_they_were(fields: Fields, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    told: list[int] = []
    with open_place(fields) as place:
        for name, content in {"small": b"text", "big": BIG, "empty": b""}.items():
            source.write_bytes(content)
            place.upload(str(source), f"du-1/{name}", told.append)
            assert place.size(f"du-1/{name}") == len(content)
            place.download(f"du-1/{name}", str(target), told.append)
            assert target.read_bytes() == content
            target.unlink()
            assert sum(told) == 2 * len(content)
            told.clear()


def test_files_are_replaced_and_removed(fields: Fields, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with open_place(fields) as place:
        for content in (b"first", b"second time"):
            source.write_bytes(content)
            place.upload(str(source), "du-1/sub/file")
            assert place.size("du-1/sub/file") == len(content)
        place.upload(str(source), "du-10/file")
        place.remove("du-1")
        place.remove("du-1")
        with pytest.raises(SourceNotFoundError, match="du-1"):
            place.size("du-1/sub/file")
        with pytest.raises(SourceNotFoundError, match="du-1"):
            place.download("du-1/sub/file", str(tmp_path / "target"))
        assert place.size("du-10/file") == len("second time")


@pytest.mark.parametrize("url", ["file://store", "file://host/store", "FILE://host:1/store"])
def test_files_of_other_hosts_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="file:///PATH"):
        open_place({"service_url": url})


@pytest.mark.slow
def test_web_servers_are_only_read(web: tuple[str, Path], tmp_path: Path) -> None:
    require("aiohttp")
    url, folder = web
    (folder / "a b.bin").write_bytes(BIG)
    with open_place({"service_url": url}) as place:
        assert place.size("a b.bin") == len(BIG)
        place.download("a b.bin", str(tmp_path / "got"))
        assert (tmp_path / "got").read_bytes() == BIG
        with pytest.raises(SourceNotFoundError, match="missing"):
            place.download("missing", str(tmp_path / "other"))
        for change in (lambda: place.upload("x", "y"), place.check, lambda: place.remove("x")):
            with pytest.raises(ReadOnlyError):
                change()


def test_an_unknown_server_is_not_trusted(sshd: Sshd, tmp_path: Path) -> None:
    require("sshfs")
    (tmp_path / "known_hosts").write_text("")
    options = {"known_hosts": str(tmp_path / "known_hosts"), "config": None}
    url = f"ssh://{sshd.user}@{sshd.host}:{sshd.port}{tmp_path}"
    fields = {"service_url": url, "userkey": sshd.userkey, "options": options}
    with open_place(fields) as place, pytest.raises(ConnectionError, match="not trusted"):
        place.check()


def test_the_connection_of_a_closed_place_ends(sshd: Sshd, tmp_path: Path) -> None:
    require("sshfs")
    with open_place(sftp(sshd, tmp_path)) as place:
        assert isinstance(place, SftpPlace)
        place.check()
        client = place._fs().client
        assert not client.is_closed()
    wait_until(client.is_closed)
    place.close()


def test_a_wrong_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    require("sshfs")
    options = {"known_hosts": sshd.known_hosts, "config": None, "agent_path": None}
    secret = "a-secret-password"
    url = f"ssh://{sshd.user}:{secret}@{sshd.host}:{sshd.port}{tmp_path}"
    options["client_keys"] = None
    with open_place({"service_url": url, "options": options}) as place:
        with pytest.raises(ConnectionError, match="denied") as caught:
            place.check()
        assert secret not in repr(caught.value) + place.shown


def test_wrong_keys_of_s3_are_not_shown(gateway: Ceph) -> None:
    require("obstore")
    keys = {"access_key_id": "wrong-access", "secret_access_key": "wrong-secret"}
    fields = {"service_url": "s3://some-bucket", "endpoint_url": gateway.endpoint_url, **keys}
    with open_place(fields) as place, pytest.raises(DosnaError) as caught:
        place.check()
    told = repr(caught.value) + str(caught.value) + place.shown
    assert "wrong-access" not in told
    assert "wrong-secret" not in told
    assert caught.value.__context__ is None or "wrong-secret" not in repr(caught.value.__context__)


def test_nobody_listens(tmp_path: Path) -> None:
    require("sshfs")
    url = f"ssh://127.0.0.1:1{tmp_path}"
    place = open_place({"service_url": url, "options": {"config": None}})
    with place, pytest.raises(ConnectionError, match="Connect call failed"):
        place.check()


@pytest.mark.parametrize(
    ("url", "bucket", "endpoint"),
    [
        ("walrus://cloud.example/data/runs", "data", "https://cloud.example"),
        ("swift://cloud.example:8080/data", "data", "https://cloud.example:8080"),
        ("gs://data/runs", "data", "https://storage.googleapis.com"),
    ],
)
def test_stores_that_speak_s3(url: str, bucket: str, endpoint: str) -> None:
    place: Any = open_place(
        {"service_url": url, "access_key_id": "a", "secret_access_key": "b", "region": "north"}
    )
    assert place._bucket == bucket
    assert place._options.endpoint_url == endpoint
    assert place._options.region_name == "north"
    assert "b" not in repr(place._options).replace("bucket", "")


def test_other_stores_need_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN", "42")
    place: Any = open_place({"service_url": "irods://me+zone:pw@host/zone/$RUN?vo=x"})
    assert place._path("du-1/f") == "/zone/42/du-1/f"
    assert "pw" not in place.shown
    monkeypatch.setitem(__import__("sys").modules, "irods_fsspec", None)
    with pytest.raises(ImportError, match="irods-fsspec"):
        place.check()


def test_urls_of_places() -> None:
    assert place_url("some/folder").path == os.path.abspath("some/folder")
    found = place_url("ssh://me:secret@host:22/a%20b?token=x")
    assert (found.user, found.host, found.port, found.path) == ("me", "host", 22, "/a b")
    assert str(found) == "ssh://me@host:22/a b"
    assert "secret" not in repr(found)
    with pytest.raises(ConfigurationError, match="gopher"):
        open_place({"service_url": "gopher://host"})
    with pytest.raises(ConfigurationError, match="bucket"):
        open_place({"service_url": "s3://"})
    with pytest.raises(ConfigurationError, match="URL"):
        place_url("ssh://host:port/")
    assert pickle.loads(pickle.dumps(found)) == found


def test_web_passwords_are_for_their_server(tmp_path: Path) -> None:
    require("aiohttp")
    got: list[tuple[int, bool]] = []

    class Leads(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            port = self.server.server_address[1]
            got.append((port, "Authorization" in self.headers))
            if port == first.server_address[1]:
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{second.server_address[1]}/b")
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"text")

        def log_message(self, *_: Any) -> None:
            pass

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Leads) for _ in range(2)]
    first, second = servers
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    url = f"http://me:my-password@127.0.0.1:{first.server_address[1]}"
    with open_place({"service_url": url}) as place:
        place.download("a", str(tmp_path / "got"))
    for one in servers:
        one.shutdown()
        one.server_close()
    assert (tmp_path / "got").read_bytes() == b"text"
    assert {has for port, has in got if port == first.server_address[1]} == {True}
    assert {has for port, has in got if port == second.server_address[1]} == {False}


@pytest.mark.slow
def test_uploads_of_alike_names_are_spared(gateway: Ceph) -> None:
    require("obstore")
    with open_place(bucket(gateway, f"pilot-{os.urandom(6).hex()}")) as place:
        assert isinstance(place, S3Place)
        place.check()
        client, name = place._client(), place._bucket
        for key in ("pilot/du-1/part1", "pilot/du-1/part10"):
            client.call("create_multipart_upload", Bucket=name, Key=key)
        place._abort("pilot/du-1/part1")
        left = client.call("list_multipart_uploads", Bucket=name).get("Uploads", ())
        assert [one["Key"] for one in left] == ["pilot/du-1/part10"]
        place.remove("du-1")
        assert not client.call("list_multipart_uploads", Bucket=name).get("Uploads", ())
