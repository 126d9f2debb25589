"""Zarr over HTTP: what other programs read, from every backend, equals direct reading."""

from __future__ import annotations

import json
import os
import re
import socket
import time

import numpy as np
import pytest
from served import ARRAYS
from support import HANG, open_files, require, wait_until

import dosna as dn

require("starlette")
require("uvicorn")
httpx = require("httpx")

OTHER = [name for name in ARRAYS if name != "title"]


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.root + "/zarr", headers=server.headers) as client:
        yield client


def equal(found, values):
    assert found.shape == values.shape
    if values.dtype.kind == "T":
        assert list(map(str, found)) == list(map(str, values))
        return
    assert found.dtype.newbyteorder("=") == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, values.astype(found.dtype))


def test_zarr_reads_the_same_values(server, con):
    zarr = require("zarr")
    obstore = require("obstore")
    from zarr.storage import ObjectStore

    http = obstore.store.HTTPStore(
        f"{server.root}/zarr",
        client_options={"allow_http": True, "default_headers": server.headers},
    )
    root = zarr.open_group(ObjectStore(http, read_only=True), mode="r")
    assert set(dict(root.members(max_depth=None))) == {*con, "entry", "entry/deep"}
    for name, values in ARRAYS.items():
        equal(np.asarray(root[name][...]), values)
    assert root["entry"].attrs["NX_class"] == "NXentry"
    assert root["entry/tomo"].attrs["unit"] == "mm"
    assert root["entry/sparse"][...].tolist() == con["entry/sparse"][...].tolist()
    part = zarr.open_array(ObjectStore(http, read_only=True), path="entry/tomo", mode="r")
    equal(part[1:4, ::2, 3], ARRAYS["entry/tomo"][1:4, ::2, 3])


@pytest.mark.slow
def test_xarray_reads_a_group(server, con):
    xarray = require("xarray")
    require("fsspec")
    require("aiohttp")
    storage = {"client_kwargs": {"headers": server.headers}}
    values = ARRAYS["entry/tomo"]
    con.create_dataset("cube/tomo", data=values, dims=("z", "y", "x"), chunk_size=(2, 3, 4))
    con.create_dataset("cube/z", data=np.arange(5) / 2, dims=("z",))
    con.set_group_attrs("cube", {"title": "a cube"})
    found = xarray.open_zarr(f"{server.root}/zarr/cube", storage_options=storage, chunks=None)
    assert found["tomo"].values.tolist() == values.tolist()
    assert found["tomo"].dims == ("z", "y", "x")
    assert found.sel(z=1.5)["tomo"].values.tolist() == values[3].tolist()
    assert found.attrs["title"] == "a cube"
    con.set_group_attrs("cube", {})
    del con["cube/tomo"], con["cube/z"]


def read_by_tensorstore(server, name):
    ts = require("tensorstore")
    store = {
        "driver": "http",
        "base_url": f"{server.root}/zarr/{name}/",
        "headers": [f"{k}: {v}" for k, v in server.headers.items()],
    }
    return ts.open({"driver": "zarr3", "kvstore": store}).result().read().result()


def test_tensorstore_reads_an_array(server):
    for name in ("entry/tomo", "entry/deep/counts"):
        np.testing.assert_array_equal(read_by_tensorstore(server, name), ARRAYS[name])


def chunk_of(client, name):
    """Return the key of a chunk that exists."""
    document = client.get(f"/{name}/zarr.json").json()
    return f"/{name}/c" + "/0" * len(document["shape"])


@pytest.mark.parametrize("name", ["entry/tomo", "title", "entry/scalar"])
def test_ranges_and_conditions(client, name, settled):
    key = chunk_of(client, name)
    whole = client.get(key)
    assert whole.status_code == 200
    data, size = whole.content, len(whole.content)
    assert size >= 8
    assert whole.headers["Accept-Ranges"] == "bytes"
    for asked, part in {
        "0-3": data[:4],
        f"{size - 4}-": data[-4:],
        "-4": data[-4:],
        f"2-{size + 100}": data[2:],
        f"-{size + 5}": data,
        "0-": data,
    }.items():
        answer = client.get(key, headers={"Range": f"bytes={asked}"})
        assert answer.status_code == 206, asked
        assert answer.content == part
        start = size - len(part) if asked.startswith("-") else int(asked.split("-")[0])
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    for asked in (f"{size}-", f"{size}-{size + 3}", "-0"):
        answer = client.get(key, headers={"Range": f"bytes={asked}"})
        assert answer.status_code == 416, asked
    for asked in ("bytes=3-1", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes=x-"):
        answer = client.get(key, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (200, data), asked
    for path in (key, f"/{name}/zarr.json"):
        # A range counts for GET alone.
        assert client.head(path, headers={"Range": "bytes=0-1"}).status_code == 200
        assert client.head(path, headers={"Range": "bytes=999999-"}).status_code == 200
    head = client.head(key)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(size)
    tag = whole.headers["ETag"]
    assert head.headers["ETag"] == tag
    for given in (tag, f'"other", W/{tag}', "*"):
        answer = client.get(key, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b""), given
        assert answer.headers["ETag"] == tag
    assert client.get(key, headers={"If-None-Match": '"other"'}).status_code == 200
    for path, same in ((key, tag), (f"/{name}/zarr.json", client.head(f"/{name}/zarr.json"))):
        same = same if isinstance(same, str) else same.headers["ETag"]
        for given in (same, f'"other", {same}', "*"):
            assert client.get(path, headers={"If-Match": given}).status_code == 200, given
        for given in ('"other"', f"W/{same}", ""):
            ask = {"If-Match": given, "Range": "bytes=0-1", "If-None-Match": same}
            for answer in (client.get(path, headers=ask), client.head(path, headers=ask)):
                assert answer.status_code == 412, given
    ranged = {"Range": "bytes=0-1", "If-Range": tag}
    assert client.get(key, headers=ranged).status_code == 206
    assert client.get(key, headers={**ranged, "If-Range": '"other"'}).status_code == 200


@pytest.fixture
def settled(monkeypatch):
    """Take files for settled, as they are after some seconds."""
    monkeypatch.setattr("dosna.backends.zarr.dataset._SETTLED", -1)


def test_another_content_has_another_tag(client, con, settled):
    key = chunk_of(client, "entry/deep/counts")
    before = client.get(key)
    con["entry/deep/counts"][0, 0] = 99
    after = client.get(key, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert after.content != before.content
    assert after.headers["ETag"] != before.headers["ETag"]
    before = client.get("/entry/deep/counts/zarr.json")
    again = {"If-None-Match": before.headers["ETag"]}
    assert client.get("/entry/deep/counts/zarr.json", headers=again).status_code == 304
    con["entry/deep/counts"].attrs["new"] = 1
    after = client.get("/entry/deep/counts/zarr.json", headers=again)
    assert after.json()["attributes"] == {"new": 1}
    con["entry/deep/counts"].attrs.clear()
    con["entry/deep/counts"][0, 0] = 0


def test_absent_chunks_and_nodes_are_404(client):
    for key in (
        *("/entry/sparse/c/0/0", "/entry/sparse/c/9/9", "/entry/sparse/c/0", "/entry/sparse/0/1"),
        *("/entry/sparse/c/00/1", "/entry/sparse/c/0/1/0", "/entry/sparse", "/entry/sparse/x"),
        *("/nowhere/zarr.json", "/nowhere/c/0", "/c/0", "/0", "/", "/entry/zarr.json/zarr.json"),
        *("/entry/.zarray", "/.zgroup", "/.zmetadata", "/entry/sparse/.zattrs"),
        *("/entry/sparse/c/0/" + "9" * 100, "/" + "/".join("0" * 30)),
    ):
        answer = client.get(key)
        assert answer.status_code == 404, key
        assert answer.json()["error"]
    assert client.get("/entry/sparse/c/0/1").status_code == 200


def test_keys_are_checked_before_a_store_sees_them(server, client, con):
    place = {con.name, str(con.instance.location)}
    for path in (
        *("/%2e%2e/zarr.json", "/entry/%2e%2e/title/zarr.json", "/entry/..%2ftitle/c/0"),
        *("/%2fetc/zarr.json", "//title/zarr.json", "/title%00/zarr.json", "/title/c/0%00"),
        *("/a%5cb/zarr.json", "/.hidden/zarr.json", "/entry//tomo/zarr.json", "/%0a/zarr.json"),
        *("/entry/%c3%28/zarr.json", "/" + "a" * 300 + "/zarr.json", "/" + "a/" * 90 + "c/0"),
    ):
        # Not by a client that would normalize the path.
        request = httpx.Request("GET", server.root, headers=server.headers)
        request.url = httpx.URL(server.root, raw_path=b"/zarr" + path.encode())
        answer = client.send(request)
        assert answer.status_code in (400, 404), path
        for text in place:
            assert text not in answer.text


def test_no_request_reaches_the_store_for_a_bad_key():
    from dosna.testing import CountingStore, MemoryStore, use_store

    store = CountingStore(MemoryStore())
    use_store("guarded", store)
    with dn.Connection("guarded", backend="memory") as con:
        con.create_dataset("x", data=np.arange(4), chunk_size=2)
        with con.serve() as server, httpx.Client(headers=server.headers) as client:
            assert client.get(server.root + "/zarr/x/zarr.json").status_code == 200
            store.reset()
            for path in (
                "..%2fx/c/0",
                "x/c/0%00",
                "x/c/7",
                "x/c/-1",
                "x/c/0/0",
                ".zgroup",
                "%2fx",
            ):
                assert client.get(f"{server.root}/zarr/{path}").status_code in (400, 404)
            assert not store.log
            answer = client.get(server.root + "/zarr/x/c/1", headers={"Range": "bytes=0-7"})
            assert answer.status_code == 206
            assert [kind for kind, _ in store.log] == ["get"]


def test_groups_have_all_documents_below_them(client):
    document = client.get("/zarr.json").json()
    assert document["node_type"] == "group"
    members = document["consolidated_metadata"]["metadata"]
    assert set(members) == {*ARRAYS, "entry/sparse", "entry", "entry/deep"}
    assert members["entry"]["attributes"] == {"NX_class": "NXentry"}
    alone = client.get("/entry/tomo/zarr.json")
    assert members["entry/tomo"] == alone.json()
    assert alone.headers["Content-Type"] == "application/json"
    inner = client.get("/entry/zarr.json").json()["consolidated_metadata"]["metadata"]
    assert set(inner) == {re.sub("^entry/", "", name) for name in members if "entry/" in name}


def test_only_what_is_served_is_read(con):
    with con.serve("entry/deep") as server:
        client = httpx.Client(base_url=server.root + "/zarr", headers=server.headers)
        members = client.get("/zarr.json").json()["consolidated_metadata"]["metadata"]
        assert {"entry/tomo", "title", "entry/sparse"}.isdisjoint(members)
        assert "entry/deep/counts" in members
        assert client.get("/entry/deep/counts/c/0/0").status_code == 200
        for other in (
            "/entry/tomo/zarr.json",
            "/title/zarr.json",
            "/title/c/0",
            "/entry/sparse/c/0/1",
        ):
            assert client.get(other).status_code == 404
        client.close()


def test_answers_are_bounded(con):
    from dosna.serve.running import serve
    from dosna.web import Limits

    with serve(con, limits=Limits(answer_bytes=64)) as server:
        client = httpx.Client(base_url=server.root + "/zarr", headers=server.headers)
        answer = client.get("/entry/tomo/c/0/0/0")
        assert answer.status_code == 413
        assert "range" in answer.json()["hint"]
        answer = client.get("/entry/tomo/c/0/0/0", headers={"Range": "bytes=0-9"})
        assert (answer.status_code, len(answer.content)) == (206, 10)
        answer = client.get("/entry/tomo/c/0/0/0", headers={"Range": "bytes=0-99999999"})
        assert answer.status_code == 413
        client.close()


def test_the_documents_are_json_of_zarr(client):
    for name, values in ARRAYS.items():
        document = json.loads(client.get(f"/{name}/zarr.json").content)
        assert document["shape"] == list(values.shape)
        assert document["zarr_format"] == 3


def test_linked_datasets_are_made_of_their_file(tmp_path):
    h5py = require("h5py")
    values = np.arange(35, dtype="i4").reshape(5, 7)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=values, chunks=(2, 3), compression="gzip")
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        con.link(str(tmp_path / "x.h5"))
        with con.serve() as server, httpx.Client(headers=server.headers) as client:
            document = client.get(f"{server.root}/zarr/data/zarr.json")
            assert str(tmp_path) not in document.text
            assert document.json()["chunk_grid"]["configuration"]["chunk_shape"] == [2, 3]
            np.testing.assert_array_equal(read_by_tensorstore(server, "data"), values)
            chunk = f"{server.root}/zarr/data/c/2/2"
            tag = {"If-None-Match": client.get(chunk).headers["ETag"]}
            assert client.get(chunk, headers=tag).status_code == 304


@pytest.mark.parametrize("dtype", [">i4", ">f8", "S3", "U2"])
def test_an_element_without_axes_has_the_bytes_of_its_dtype(dtype):
    values = np.array(5, dtype)
    with dn.Connection("element", backend="ram") as con:
        con.create_dataset("x", data=values)
        assert con["x"].zarr_objects().get(()).data == values.tobytes()


def test_fields_with_gaps_are_packed():
    gaps = np.dtype({"names": ["a", "b"], "formats": ["<i2", "<f8"], "offsets": [2, 8]})
    values = np.zeros(3, gaps)
    values["a"], values["b"] = [1, 2, 3], [0.5, 1.5, 2.5]
    with dn.Connection("gaps", backend="ram") as con:
        con.create_dataset("x", data=values, chunk_size=2)
        objects = con["x"].zarr_objects()
        packed = np.dtype([("a", "<i2"), ("b", "<f8")])
        found = np.frombuffer(objects.get((0,)).data, packed)
        assert found.tolist() == [(1, 0.5), (2, 1.5)]
        assert objects.stat((1,)).size == 2 * packed.itemsize


def test_a_type_that_zarr_lacks_is_refused_and_hides_no_other():
    with dn.Connection("types", backend="ram") as con:
        con.create_dataset("long", data=np.zeros(2, np.longdouble))
        con.create_dataset("usual", data=[1, 2])
        with con.serve() as server, httpx.Client(headers=server.headers) as client:
            root = server.root + "/zarr"
            assert client.get(f"{root}/long/zarr.json").status_code == 415
            assert client.get(f"{root}/long/c/0").status_code == 415
            members = client.get(f"{root}/zarr.json").json()["consolidated_metadata"]["metadata"]
            assert list(members) == ["usual"]


def test_a_dataset_that_was_deleted_is_not_fill(tmp_path):
    for backend in ("file", "hdf5"):
        (tmp_path / backend).mkdir()
        with dn.Connection(str(tmp_path / backend), backend=backend) as con:
            con.create_dataset("x", data=[1, 2, 3, 4], chunk_size=2)
            with con.serve() as server, httpx.Client(headers=server.headers) as client:
                root = server.root + "/zarr/x"
                assert client.get(f"{root}/c/0").status_code == 200
                del con["x"]
                for key in ("c/1", "c/0", "c/1"):
                    answer = client.get(f"{root}/{key}")
                    assert answer.status_code == 409, (backend, key)
                    assert "deleted" in answer.json()["error"]
                assert client.get(f"{root}/zarr.json").status_code == 404
                con.create_dataset("x", data=[5, 6, 7, 8, 9], chunk_size=3)
                assert client.get(f"{root}/zarr.json").json()["shape"] == [5]
                assert len(client.get(f"{root}/c/1").content) >= 12


def test_files_on_an_own_disk_take_no_thread(tmp_path, monkeypatch):
    from dosna.serve import zarr

    threads, run = [], zarr.run_in_threadpool
    monkeypatch.setattr("dosna.backends.zarr.dataset.host_of", lambda path: "here")
    monkeypatch.setattr(
        zarr, "run_in_threadpool", lambda work, *a: threads.append(a[1]) or run(work, *a)
    )
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("x", data=np.arange(4), chunk_size=2)
        with con.serve() as server, httpx.Client(headers=server.headers) as client:
            for key in ("x/zarr.json", "x/c/0", "x/c/0", "x/c/1", "x/c/2"):
                client.get(f"{server.root}/zarr/{key}")
            assert threads == ["x/zarr.json", "x/c/0"]


@pytest.mark.parametrize("kib", [1, 5000])
def test_the_system_sends_files_of_an_own_disk(tmp_path, monkeypatch, kib):
    from asking import Asking

    from dosna.serve import create_app
    from dosna.web import Access

    sent, sendfile = [], os.sendfile
    monkeypatch.setattr("dosna.backends.zarr.dataset.host_of", lambda path: "here")
    monkeypatch.setattr(
        os, "sendfile", lambda *args: sent.append(sendfile(*args)) or sent[-1], raising=False
    )
    values = np.random.default_rng(0).integers(0, 256, (2, kib << 10), "u1")
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("x", data=values, chunk_size=(1, kib << 10))
        stored = [(tmp_path / "x" / "c" / str(k) / "0").read_bytes() for k in (0, 1)]
        with con.serve() as server, httpx.Client(headers=server.headers) as client:
            for k in (0, 1, 0):
                answer = client.get(f"{server.root}/zarr/x/c/{k}/0")
                assert answer.content == stored[k]
                assert answer.headers["Content-Type"] == "application/octet-stream"
            assert sum(sent) >= len(stored[0])
            opened = len(open_files(tmp_path))
            host = f"Host: localhost\r\nAuthorization: {server.headers['Authorization']}\r\n"
            ask = "".join(f"GET /zarr/x/c/{k}/0 HTTP/1.1\r\n{host}\r\n" for k in (0, 1, 1, 0))
            address = ("127.0.0.1", server.port)
            with socket.create_connection(address, HANG) as sock, sock.makefile("rb") as file:
                sock.sendall(ask.encode())
                for k in (0, 1, 1, 0):  # several at once, which are taken slowly
                    head = list(iter(file.readline, b"\r\n"))
                    assert b"content-length: %d\r\n" % len(stored[k]) in head
                    time.sleep(0.05)
                    assert file.read(len(stored[k])) == stored[k]
            with socket.create_connection(address, HANG) as sock:  # which goes away
                sock.sendall(ask.encode())
            assert client.get(f"{server.root}/zarr/x/c/1/0").content == stored[1]
            wait_until(lambda: len(open_files(tmp_path)) <= opened)
        sent.clear()
        app = create_app(con, Access("127.0.0.1", None))  # of a server that cannot
        assert Asking(app)("/zarr/x/c/1/0").content == stored[1]
        assert not sent
