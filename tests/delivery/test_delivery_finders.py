"""From the identifiers of datasets to files, and what is not served."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from services.s3 import make_client
from support import HANG, require, wait_until

import dosna as dn
from dosna.delivery.finders import check_source, find, split
from dosna.delivery.settings import Settings
from dosna.errors import ConfigurationError, SourceError, SourceNotFoundError, StorageError


def settings(tmp_path: Path, *roots: Any, **others: Any) -> Settings:
    return Settings(roots=tuple(map(str, roots)), state=str(tmp_path / "state"), **others)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a folder of files, with links that lead out of it."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.root", "a.root", "sub/c.root", "note.txt"):
        (folder / name).write_bytes(b"x" * len(name))
    (tmp_path / "secret.root").write_bytes(b"secret")
    (folder / "out.root").symlink_to(tmp_path / "secret.root")
    (folder / "up").symlink_to(tmp_path)
    return folder


def test_identifiers_are_split() -> None:
    assert split("rucio://user.me:set?files=3") == ("rucio", "//user.me:set", 3)
    assert split("glob:a?files=" + "9" * 30) == ("glob", "a", 10**9)
    assert split("glob:/data/*?.root") == ("glob", "/data/*?.root", None)
    for wrong in ("", "set", "ftp://a/b", "rucio:"):
        with pytest.raises(SourceError, match="looked up"):
            split(wrong)


def test_folders_and_patterns(tree: Path, tmp_path: Path) -> None:
    given = settings(tmp_path, tree)
    found = find("folder://" + str(tree), given)
    assert [(file.path, file.size) for file in found] == [
        (str(tree / "a.root"), 6), (str(tree / "b.root"), 6), (str(tree / "sub" / "c.root"), 10)
    ]  # fmt: skip
    assert find("folder:.", given) == found
    assert [f.path for f in find(f"glob://{tree}/*.root", given)] == [
        str(tree / "a.root"), str(tree / "b.root")
    ]  # fmt: skip
    assert [f.path for f in find("glob:sub/*", given)] == [str(tree / "sub" / "c.root")]
    for nothing in ("glob:*.none", "glob:up/*.root", "glob:out.root", "folder:absent"):
        with pytest.raises(SourceNotFoundError):
            find(nothing, given)
    with pytest.raises(SourceError, match="2 times"):
        find("glob:" + "**/" * 3 + "*.root", given)
    assert len(find("glob:**/**/*.root", given)) == 3
    for wrong in ("glob:../*", f"glob:{tmp_path}/*", f"folder:{tmp_path}", "folder:sub/../.."):
        with pytest.raises(SourceError, match=r"served|\.\."):
            find(wrong, given)


def test_names_that_are_not_utf_8_are_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "odd_\udcff.root").touch()
    with pytest.raises(SourceError, match="UTF-8"):
        find("glob:odd_*", settings(tmp_path, tree))


def test_what_is_not_served(tree: Path, tmp_path: Path) -> None:
    given = settings(tmp_path, tree, "https://data.example.org/open/", "s3://bucket/raw")
    assert check_source("a.root", given) == str(tree / "a.root")
    assert check_source(f"file://{tree}/a.root", given) == str(tree / "a.root")
    for good in (
        "https://data.example.org/open/a.root",
        "s3://bucket/raw/a.root",
    ):
        assert check_source(good, given) == good
    for wrong in (
        "/etc/hostname",
        f"{tree}/../secret.root",
        f"{tree}/out.root",
        f"{tree}/up/secret.root",
        f"{tree}-not/a.root",
        "file:///etc/hostname",
        "file:///etc/host%6eame",
        "a\0.root",
        "http://data.example.org/open/a.root",
        "https://data.example.org/other/a.root",
        "https://data.example.org/open/../other/a.root",
        "https://data.example.org/open/%2e%2e/other/a.root",
        "https://data.example.org/open/%252e%252e/other/a.root",
        "https://data.example.org/open\\..\\a.root",
        "https://data.example.org@example.net/open/a.root",
        "https://user:word@data.example.org/open/a.root",
        "https://data.example.org:8443/open/a.root",
        "https://data.example.org.example.net/open/a.root",
        "s3://bucket/rawer/a.root",
        "s3://bucket2/raw/a.root",
        "ftp://data.example.org/open/a.root",
        "dosna://hdf5:/etc",
        f"dosna://hdf5:{tree}/..",
        f"dosna://file:{tree}?mode=a",
        "dosna://s3://bucket/raw/../other",
        "dosna://ram:x",
    ):
        with pytest.raises(SourceError, match=r"served|URL|null|options|\.\."):
            check_source(wrong, given)
    with pytest.raises(SourceNotFoundError):
        check_source("absent.root", given)


def test_settings_that_cannot_be(tree: Path, tmp_path: Path) -> None:
    for wrong, noun in [
        ({"roots": ()}, "served"),
        ({"roots": (str(tmp_path / "absent"),)}, "folder"),
        ({"roots": ("https://[::1/",)}, "not a URL"),
        ({"state": str(tree / "state")}, "served"),
        ({"objects": str(tree / "objects")}, "served"),
        ({"auth": "no"}, "auth"),
        ({"bytes_limit": "many"}, "bytes_limit"),
        ({"workers": 0}, "workers"),
        ({"workers": "4"}, "workers"),
        ({"attempts": 1.5}, "attempts"),
        ({"unconfined": "no"}, "unconfined"),
        ({"file_memory": True}, "file_memory"),
        ({"file_seconds": -1}, "file_seconds"),
        ({"patience": float("nan")}, "patience"),
        ({"keep_days": 4000}, "3650"),
        ({"roots": 3}, "roots"),
        ({"state": 3}, "state"),
    ]:
        given = {"roots": (str(tree),), "state": str(tmp_path / "state")} | wrong
        with pytest.raises(ConfigurationError, match=noun):
            Settings(**given)
    file = tmp_path / "delivery.toml"
    file.write_text(f'roots = ["{tree}"]\nstate = "{tmp_path}/state"\nworkers = 3\n')
    assert Settings.read(str(file), port=1, workers=None).workers == 3
    file.write_text("rots = 3\n")
    with pytest.raises(ConfigurationError, match="rots"):
        Settings.read(str(file))


@contextmanager
def web(folder: Path, answers: dict[str, Any]) -> Iterator[str]:
    """Serve a folder by HTTP; calls of an interface get answers instead."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def do_GET(self) -> None:
            if self.path not in answers:
                return super().do_GET()
            data = answers[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_indexes_of_http_servers(tree: Path, tmp_path: Path) -> None:
    require("httpx")
    (tree / "index.html").write_text(
        '<a href="z.root">z</a> <a href="a%20b.root">a</a> <a href="/other.root">o</a>'
        '<a href="https://example.org/x.root">x</a> <a href="n.txt">n</a>'
        '<a href="http://[::1/y.root">no URL</a>'
    )
    with web(tree, {}) as url:
        given = settings(tmp_path, url + "/")
        assert [file.path for file in find(url + "/", given)] == [
            f"{url}/a%20b.root", f"{url}/other.root", f"{url}/z.root"
        ]  # fmt: skip
        assert [file.path for file in find(f"{url}/sub/", given)] == [f"{url}/sub/c.root"]
        assert [file.path for file in find(f"{url}/a.root", given)] == [f"{url}/a.root"]
        with pytest.raises(SourceNotFoundError):
            find(f"{url}/absent/", given)
        with pytest.raises(SourceError, match="served"):
            find(url.replace("127.0.0.1", "localhost") + "/", given)
    with pytest.raises(StorageError):
        find(url + "/", given)


@pytest.mark.usefixtures("_any_keys")
def test_prefixes_and_patterns_of_s3(moto_url: str, tmp_path: Path) -> None:
    require("boto3")
    client = make_client(moto_url)
    client.create_bucket(Bucket="events-of-s3")
    for name in ("raw/b.root", "raw/a.root", "raw/n.txt", "other/c.root"):
        client.put_object(Bucket="events-of-s3", Key=name, Body=b"data")
    client.close()
    given = settings(tmp_path, "s3://events-of-s3/raw/", sources_endpoint=moto_url)
    two = ["s3://events-of-s3/raw/a.root", "s3://events-of-s3/raw/b.root"]
    assert [file.path for file in find("s3://events-of-s3/raw/", given)] == two
    assert [file.path for file in find("s3://events-of-s3/raw/b*", given)] == two[1:]
    with pytest.raises(SourceError, match="served"):
        find("s3://events-of-s3/", given)
    with pytest.raises(SourceNotFoundError):
        find("s3://events-of-s3/raw/none", given)


def test_rucio_by_a_stand_in(tree: Path, tmp_path: Path) -> None:
    """The stand-in answers as Rucio's REST interface does; there is no Rucio."""
    require("httpx")
    stored = "root://eos.example.org:1094//eos/a.root"

    def replica(name: str, *pfns: str) -> str:
        found = {pfn: {"priority": n + 1, "type": "DISK"} for n, pfn in enumerate(pfns)}
        return json.dumps({"scope": "user.me", "name": name, "bytes": 9, "pfns": found})

    lines = [
        replica("b", "davs://[elsewhere/b.root", f"file://{tree}/b.root"),
        replica("a", stored, f"file://{tree}/a.root"),
    ]
    answers = {
        "/dids/user.me/set": "{}",
        "/dids/user.me/far": "{}",
        "/replicas/list": "\n".join(lines),
    }
    with web(tree, answers) as url:
        given = settings(tmp_path, tree, "root://eos.example.org/", rucio=url)
        found = find("rucio://user.me:set", given)
        assert [(file.path, file.size) for file in found] == [
            ("root://eos.example.org//eos/a.root", 9), (str(tree / "b.root"), 9)
        ]  # fmt: skip
        with pytest.raises(SourceNotFoundError):
            find("rucio://user.me:absent", given)
        answers["/replicas/list"] = replica("c", "davs://elsewhere/c.root")
        with pytest.raises(SourceNotFoundError, match="davs"):
            find("rucio://user.me:far", given)
        with pytest.raises(SourceError, match="scope"):
            find("rucio://set", given)
        with pytest.raises(SourceError, match="Rucio"):
            find("rucio://user.me:set", settings(tmp_path, tree))


def test_open_data_by_a_stand_in(tree: Path, tmp_path: Path) -> None:
    """The stand-in answers as CERN's portal does, with files and with indexes of files."""
    require("httpx")
    base = "root://eospublic.cern.ch//eos/opendata/"
    record = {
        "metadata": {
            "files": [{"uri": base + "a.root", "size": 5}, {"uri": base + "a.json", "size": 1}],
            "_file_indices": [{"files": [{"uri": base + "b.root", "size": 7}]}],
        }
    }
    with web(tree, {"/api/records/6004": json.dumps(record)}) as url:
        given = settings(tmp_path, "root://eospublic.cern.ch/", opendata=url)
        found = find("cernopendata://6004", given)
        assert [(file.path, file.size) for file in found] == [
            (base + "a.root", 5), (base + "b.root", 7)
        ]  # fmt: skip
        for wrong in ("cernopendata://1", "cernopendata://x"):
            with pytest.raises(SourceError):
                find(wrong, given)


def test_xrootd_needs_its_client(tmp_path: Path) -> None:
    from dosna.errors import MissingDependencyError

    given = settings(tmp_path, "root://eos.example.org/")
    with pytest.raises(SourceError, match="served"):
        find("xrootd://root://other.example.org//a/*.root", given)
    try:
        import fsspec_xrootd  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match="fsspec-xrootd"):
            find("xrootd://root://eos.example.org//a/*.root", given)


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_trees_of_columns_are_delivered(
    backend: str, serve: Any, tmp_path: Path, paths: list[str]
) -> None:
    httpx, parquet = require("httpx"), require("pyarrow.parquet")
    uproot = require("uproot")
    place = tmp_path / "columns"
    place.mkdir()
    with dn.Connection(str(place), backend=backend) as con:
        con.ingest(paths[0], "first")
        con.ingest(paths[1], "second")
    server = serve(roots=(str(place),))
    body = {
        "did": f"dosna://{backend}:{place}",
        "selection": json.dumps(
            [{"treename": "Events", "filter_name": ["run", "met"], "cut": "met > 0.5"}]
        ),
        "codegen": "uproot-raw",
    }
    with httpx.Client(base_url=server.root, timeout=HANG) as client:
        answer = client.post("/servicex/transformation", json=body)
        assert answer.status_code == 200, answer.text
        url = f"/servicex/transformation/{answer.json()['request_id']}"
        wait_until(lambda: client.get(url).json()["status"] == "Complete")
        rows = client.get(url + "/results").json()["results"]
        assert [row["transform_status"] for row in rows] == ["success"] * 2, rows
        rows.sort(key=lambda row: row["s3-object-name"])
        for row, path in zip(rows, paths[:2], strict=True):
            id = answer.json()["request_id"]
            made = parquet.read_table(tmp_path / "state" / "objects" / id / row["s3-object-name"])
            met = uproot.open(path)["Events"]["met"].array(library="np")
            np.testing.assert_array_equal(made["met"].to_numpy(), met[met > 0.5])
