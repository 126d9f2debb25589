"""Reading Zarr from web servers: dosna's own, and one that only has files."""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from served import ARRAYS, fill
from support import require

import dosna as dn
from dosna import errors
from dosna.cli import main

require("httpx")
require("starlette")
require("uvicorn")

from dosna.backends.http.store import HttpStore  # noqa: E402
from dosna.backends.zarr.dataset import ShardedFileDataset  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with dn.Connection(secrets.token_hex(8), backend="ram") as con:
        fill(con)
        with con.serve() as server:
            yield server


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Give the folder of a file connection."""
    folder = tmp_path_factory.mktemp("web")
    with dn.Connection(str(folder), backend="file") as con:
        fill(con, **{"entry/tomo": {"shards": (4, 4, 8), "compression": "zstd"}})
    return folder


class Quiet(SimpleHTTPRequestHandler):
    """A server of files without ranges, ETags and consolidated metadata."""

    refuse: ClassVar = {}

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path in self.refuse:
            self.send_error(self.refuse[self.path])
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def plain(stored):
    """Give the address of a plain server of the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(stored)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def equal(ds, values):
    assert ds.shape == values.shape
    found = np.asarray(ds[...])
    if values.dtype.kind == "T":
        assert found.tolist() == values.tolist()
    else:
        np.testing.assert_array_equal(found, values)


@pytest.fixture
def remote(server):
    con, name = dn.open_url(f"{server.root}/zarr/?token={server.access.token}")
    assert name == ""
    with con:
        yield con


def test_another_server_of_dosna_is_read(remote):
    assert list(remote) == sorted([*ARRAYS, "entry/sparse"])
    for name, values in ARRAYS.items():
        equal(remote[name], values)
    assert remote["entry/tomo"].attrs["unit"] == "mm"
    assert remote.get_group_attrs("entry") == {"NX_class": "NXentry"}
    assert remote["entry/sparse"][...].tolist() == [[7, 7, 1, 1]] * 2 + [[7, 7, 7, 7]] * 2
    assert remote["entry/sparse"].has_chunk((0, 1))
    assert not remote["entry/sparse"].has_chunk((0, 0))
    assert list(remote["entry/sparse"].instance.chunk_indices()) == [(0, 1)]


def test_names_come_from_the_documents_of_groups(remote):
    assert remote.children() == (["entry"], ["title"])
    assert remote.children("entry").groups == ["entry/deep"]
    assert "entry/deep/mask" in remote.names_in("entry/deep")
    assert remote.names_in("nowhere") == remote.names_in("title") == []
    assert "entry/tomo" in remote
    assert "entry" not in remote
    with pytest.raises(errors.DatasetNotFoundError):
        remote["nowhere"]


def test_nothing_is_changed(remote):
    with pytest.raises(errors.ReadOnlyError):
        remote.create_dataset("new", data=[1])
    with pytest.raises(errors.ReadOnlyError):
        remote["title"][0] = "x"
    with pytest.raises(errors.ReadOnlyError):
        del remote["title"]
    with pytest.raises(errors.ConfigurationError, match="read"):
        dn.Connection("https://host/x", backend="https", mode="a")


def test_the_token_is_needed_and_not_shown(server):
    unknown = dn.Connection(f"{server.root}/zarr", backend="http")
    with unknown, pytest.raises(errors.ConnectionError, match="token"):
        unknown["title"]
    token = "secret-token-of-a-test"
    with dn.Connection(f"{server.root}/zarr", backend="http", token=token) as con:
        with pytest.raises(errors.ConnectionError) as error:
            con["title"]
        assert token not in str(error.value) + repr(con)
    with dn.Connection(f"{server.root}/@{token}/zarr", backend="http") as con:
        with pytest.raises(errors.ConnectionError) as error:
            con["title"]
        assert token not in str(error.value)


@pytest.mark.parametrize("at", ["@", "%40"])
def test_a_token_in_the_address_is_shown_nowhere(server, at, caplog, tmp_path):
    token = server.access.token
    caplog.set_level(logging.DEBUG)
    root = f"{server.root}/{at}{token}"
    for address, group in ((f"{root}/zarr", ""), (f"{root}/zarr/", ""), (root, "zarr/")):
        with dn.Connection(address, backend="http") as con:
            ds = con[f"{group}title"]
            equal(ds, ARRAYS["title"])
            again = pickle.loads(pickle.dumps(ds))
            equal(again, ARRAYS["title"])
            shown = [con, con.instance, ds, ds.instance, again, again.connection, con.identity]
            shown += [con.name, con.instance.location, con.instance.url, ds._repr_html_()]
            with pytest.raises(errors.DosnaError) as error:
                con[f"{group}nowhere"]
            with pytest.raises(errors.ReadOnlyError) as refused:
                del con[f"{group}title"]
            shown += [str(error.value), str(refused.value)]
            assert not any(token in str(one) + repr(one) for one in shown)
    con, name = dn.open_url(f"{root}/zarr/entry/tomo")
    with con, dn.Connection(str(tmp_path), backend="file") as near:
        made = con[name].copy(near)
        equal(made, ARRAYS["entry/tomo"])
        near.ingest(con["deep/counts"], "ingested")
        for file in tmp_path.rglob("zarr.json"):
            assert token not in file.read_text()
    assert "HTTP Request" in caplog.text  # httpx logs addresses
    assert token not in caplog.text


def test_the_token_is_not_in_what_commands_print(server, tmp_path, capfd):
    url = f"{server.root}/@{server.access.token}/zarr/entry"
    for code, *arguments in (
        (0, "info", f"{url}/tomo"),
        (0, "copy", f"{url}/tomo", f"file:{tmp_path}/copied"),
        (1, "info", f"{url}/nowhere"),
        (2, "delete", f"{url}/", "--yes"),
        (2, "info", f"{url}/?bogus=1&token={server.access.token}", "--debug"),
    ):
        assert main(arguments) == code
        out, err = capfd.readouterr()
        assert out + err
        assert server.access.token not in out + err


def test_a_plain_server_of_files_is_read(plain):
    with dn.Connection(plain, backend="http") as con:
        for name, values in ARRAYS.items():
            equal(con[name], values)
        equal(con["entry/tomo"][1:3, ::2], ARRAYS["entry/tomo"][1:3, ::2])
        with pytest.raises(errors.StorageError, match="consolidated"):
            list(con)
    con, name = dn.open_url(f"{plain}/entry/deep/counts")
    with con:
        assert name == "counts"
        equal(con[name], ARRAYS["entry/deep/counts"])


def test_a_failure_is_never_taken_for_fill(plain, monkeypatch):
    monkeypatch.setattr(Quiet, "refuse", {"/entry/deep/counts/c/0/0": 403})
    with dn.Connection(plain, backend="http", retries=0) as con:
        with pytest.raises(errors.StorageError, match="denied"):
            con["entry/deep/counts"][...]
        monkeypatch.setattr(Quiet, "refuse", {"/entry/deep/counts/c/0/0": 503})
        with pytest.raises(errors.StorageError, match="503"):
            con["entry/deep/counts"][...]
        monkeypatch.setattr(Quiet, "refuse", {"/entry/deep/counts/zarr.json": 404})
        ds = con["entry/sparse"]
        monkeypatch.setattr(Quiet, "refuse", {"/entry/sparse/zarr.json": 404})
        with pytest.raises(errors.DatasetNotFoundError):
            ds[...]


def test_a_server_that_is_away_is_an_error():
    con = dn.Connection("http://127.0.0.1:9/x", backend="http", retries=0)
    with con, pytest.raises(errors.ConnectionError, match="reached"):
        con["a"]


def test_decoded_chunks_are_kept(server, monkeypatch):
    asked, get = [], HttpStore.get
    monkeypatch.setattr(HttpStore, "get", lambda s, key, *r: asked.append(key) or get(s, key, *r))
    url = f"{server.root}/zarr/entry/tomo?token={server.access.token}&cache=1MiB&recheck=open"
    con, name = dn.open_url(url)
    with con:
        ds = con[name]
        equal(ds, ARRAYS["entry/tomo"])
        assert sum("/c/" in key for key in asked) == ds.total_chunks
        asked.clear()
        equal(ds, ARRAYS["entry/tomo"])
        assert not any("/c/" in key for key in asked)


def test_parts_without_a_version_are_of_one_file(stored, monkeypatch):
    """As in the first seconds after a file was written, when its server has no ETag for it."""
    monkeypatch.setattr(ShardedFileDataset, "lasting_version", lambda self, version: "")
    values = ARRAYS["entry/tomo"]
    with dn.Connection(str(stored), backend="file") as files, files.serve() as server:
        con, name = dn.open_url(f"{server.root}/zarr/entry/tomo?token={server.access.token}")
        with con:
            assert con[name].shards is not None
            equal(con[name][:1, :1, :1], values[:1, :1, :1])


def test_a_file_that_changes_twice_in_a_second_is_read_again(plain, stored):
    def write(value):
        files["twice"][...] = value
        os.utime(stored / "twice/c/0", (later, later))

    later = time.time() + 100  # with which the answers are never older than the file
    with (
        dn.Connection(str(stored), backend="file") as files,
        dn.Connection(plain, backend="http", cache="1 MiB") as con,
    ):
        files.create_dataset("twice", (4,), "i4", chunk_size=4)
        for value in (1, 2):
            write(value)
            assert con["twice"][...].tolist() == [value] * 4
        files.del_dataset("twice")


def test_connections_travel(server):
    con, name = dn.open_url(f"{server.root}/zarr/title?token={server.access.token}")
    with con:
        equal(pickle.loads(pickle.dumps(con[name])), ARRAYS["title"])


@pytest.mark.parametrize(
    ("url", "place", "name"),
    [
        ("https://host", "https://host", ""),
        ("https://host/", "https://host", ""),
        ("https://host:8/a", "https://host:8", "a"),
        ("https://host/a/b/c", "https://host/a/b", "c"),
        ("https://host/a/b/", "https://host/a/b", ""),
        ("http://host/a//b/c", "http://host/a", "b/c"),
        ("http://host/a%20b/c%23d", "http://host/a%20b", "c#d"),
        ("http://[::1]:8/a/b", "http://[::1]:8/a", "b"),
    ],
)
def test_addresses_are_split_into_connection_and_dataset(url, place, name):
    con, found = dn.open_url(url)
    assert (con.name, found) == (place, name)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "host/x",
        "https://",
        "https://me:secret@host/x",
        "https://host?x=1",
        "http://[",
        "https://host:port/x",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(errors.ConfigurationError, match="address") as error:
        dn.Connection(url, backend="http")
    assert "secret" not in str(error.value)
