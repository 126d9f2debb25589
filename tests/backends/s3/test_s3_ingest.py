"""Ingest of many small arrays into S3: few requests, many under way, and nothing is lost."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from services.proxy import Proxy
from services.s3 import make_bucket, make_client
from support import Gathering, require, wait_until

import dosna as dn
from dosna import errors
from dosna.sources import ArrayDescription, Source

require("boto3")
require("obstore")

pytestmark = pytest.mark.usefixtures("_any_keys")

ARRAYS = {f"array{n}": np.arange(n, n + 20.0) for n in range(100)} | {
    "scalar": np.array(3, "f4"),
    "empty": np.zeros((0, 3)),
    "words": np.array(["one", "three"]),
    "inner/a": np.arange(3),
    "inner/b": np.arange(4),
}
AROUND = 40
"""Requests for the groups, and for finding out what the server honours."""


@pytest.fixture
def proxy(moto_url):
    with Proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def bucket(moto_url):
    return make_bucket(moto_url)


def connection(url, bucket, engine="cpu"):
    return dn.Connection("tests", backend="s3", engine=engine, endpoint_url=url, bucket=bucket)


def check(con, arrays=ARRAYS):
    for name, values in arrays.items():
        ds = con[f"run/{name}"]
        assert not ds.incomplete
        assert ds.dtype == values.dtype
        np.testing.assert_array_equal(ds[...], values)


@pytest.mark.parametrize("engine", ["cpu", "joblib"])
def test_three_requests_a_dataset_and_many_under_way(proxy, bucket, engine):
    gathering = Gathering(12)  # some of them may wait for the same lock

    def gather(request):
        if request.method == "PUT" and "/c" in request.path:
            with gathering:
                pass

    with connection(proxy.url, bucket, engine) as con:
        proxy.reset()
        proxy.fault = gather
        told = []
        report = con.ingest(ARRAYS, "run", progress=lambda done, total: told.append(done))
        assert len(proxy.requests) <= 3 * len(ARRAYS) + AROUND
        assert 12 <= gathering.most <= 16
        assert report.made == [f"run/{name}" for name in sorted(ARRAYS)]
        assert report.nbytes == sum(values.nbytes for values in ARRAYS.values())
        assert told == sorted(told)
        assert told[-1] == report.nbytes
        proxy.reset()
        check(con)


MAKING = {
    "create_dataset": lambda con, name: con.create_dataset(name, data=ARRAYS["array1"]),
    "ingest": lambda con, name: con.ingest(ARRAYS["array1"], name),
    "text": lambda con, name: con.ingest(ARRAYS["words"], name),
    "a scalar": lambda con, name: con.create_dataset(name, data=3.5),
}


@pytest.mark.parametrize("making", MAKING.values(), ids=MAKING)
@pytest.mark.parametrize("attrs", [{}, {"facility": "here"}])
def test_an_array_of_one_chunk_is_made_and_complete_in_three_requests(
    proxy, bucket, making, attrs
):
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])  # which learns what the server honours
        if attrs:
            con.set_group_attrs("", attrs)
            making(con, "earlier")
        proxy.reset()
        making(con, "one")
        assert len(proxy.requests) == 3
    with connection(proxy.url, bucket) as con:
        assert con["one"].incomplete is False
        assert con["one"].verify().ok


def small_file(path):
    h5py = require("h5py")
    with h5py.File(path, "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        file.create_group("entry/sample").attrs["unit"] = "K"
        file["entry/data/frame"] = np.arange(6).reshape(2, 3)
        file["entry/energy"] = 12.4
    return path


def test_a_small_file_in_a_place_of_its_own_takes_few_requests(
    proxy, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr("dosna.backends.stores.groups.LOOK_SECONDS", 60)  # however slow this is
    path = small_file(tmp_path / "x.h5")
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        proxy.reset()
        con.ingest(path, "run")
        # Is it there? A look at the outermost group, four others, and two arrays of two objects.
        assert len(proxy.requests) == 1 + 1 + 4 + 2 * 2
        assert con.get_group_attrs("run/entry") == {"NX_class": "NXentry"}
        assert con.get_group_attrs("run/entry/sample") == {"unit": "K"}
        assert con.names_in("run") == ["run/entry/data/frame", "run/entry/energy"]
        assert all(con[name].verify().ok for name in con.names_in("run"))
        proxy.reset()
        con.set_group_attrs("run/entry", {"unit": "mm"})
        assert len(proxy.requests) <= 6
        assert con.get_group_attrs("run/entry") == {"unit": "mm"}


@pytest.mark.parametrize("group", ["run", "run/entry/data"])
def test_a_dataset_does_not_appear_without_the_groups_above_it(proxy, bucket, tmp_path, group):
    path = small_file(tmp_path / "x.h5")
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        proxy.fault = lambda request: 403 if request.path.endswith(f"{group}/zarr.json") else None
        with pytest.raises(errors.StorageError):
            con.ingest(path, "run")
        proxy.reset()
        assert "run/entry/data/frame" not in con
        con.ingest(path, "run")
        assert con["run/entry/data/frame"][1].tolist() == [3, 4, 5]
        assert con["run/entry/energy"].verify().ok
        assert con.get_group_attrs("run/entry/sample") == {"unit": "K"}


def test_a_dataset_is_listed_where_groups_are_left_of_earlier_ones(proxy, bucket, tmp_path):
    with connection(proxy.url, bucket) as con:
        con.ingest(small_file(tmp_path / "x.h5"), "run/x")
        for name in con.names_in("run"):
            con.del_dataset(name)
        con.create_dataset("run", data=[1])
        assert list(con) == ["run"]


def test_a_group_that_has_become_a_dataset_is_not_taken_for_a_group(
    proxy, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr("dosna.backends.stores.groups.LOOK_SECONDS", 60)
    path = small_file(tmp_path / "x.h5")
    with connection(proxy.url, bucket) as con:
        con.create_dataset("run/before", data=[1])
        con.ingest(path, "run/x")
        for name in con.names_in("run"):
            con.del_dataset(name)
        con.create_dataset("run", data=[1])
        with pytest.raises(errors.DatasetNameError, match="run"):
            con.ingest(path, "run/y")


def test_a_look_that_took_long_is_taken_again(proxy, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("dosna.backends.stores.groups.LOOK_SECONDS", 0)
    path = small_file(tmp_path / "x.h5")
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        proxy.reset()
        con.ingest(path, "run")
        # Before each array, and at each of the five groups when all is done.
        assert len(proxy.requests) == 1 + 1 + 4 + 2 * 3 + 5


def test_a_page_in_place_of_a_list_hides_nothing(proxy, bucket, tmp_path):
    path = small_file(tmp_path / "x.h5")
    page = b"<html><body>Welcome</body></html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("run/entry/energy", data=[1, 2, 3])
        proxy.fault = lambda request: head + page if "list-type" in request.path else None
        with pytest.raises(errors.DosnaError):
            con.ingest(path, "run")
        proxy.reset()
        assert con["run/entry/energy"][...].tolist() == [1, 2, 3]
        assert con["run/entry/energy"].verify().ok


def test_foreign_keys_that_the_faster_client_cannot_read_are_noticed(proxy, bucket, tmp_path):
    client = make_client(proxy.url)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        client.put_object(Bucket=bucket, Key="tests/run//odd", Body=b"x")
        con.ingest(small_file(tmp_path / "x.h5"), "run")
        assert con["run/entry/energy"][()] == 12.4
    client.close()


def test_what_a_connection_knows_of_its_work_stays_in_its_process(proxy, bucket, tmp_path):
    with connection(proxy.url, bucket) as con:
        con.ingest(small_file(tmp_path / "x.h5"), "run")
        assert con.instance._looked
        assert not pickle.loads(pickle.dumps(con.instance))._looked


def test_a_group_of_version_2_that_is_there_is_not_hidden(proxy, bucket):
    client = make_client(proxy.url)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        client.put_object(Bucket=bucket, Key="tests/run/.zgroup", Body=b'{"zarr_format": 2}')
        with pytest.raises(errors.FormatError, match="version 2"):
            con.ingest({"a": np.arange(2), "b": np.arange(2)}, "run")


@pytest.mark.parametrize("making", MAKING.values(), ids=MAKING)
def test_copies_of_metadata_are_taken_out_of_the_group(proxy, bucket, making):
    client = make_client(proxy.url)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        key = {"Bucket": bucket, "Key": "tests/zarr.json"}
        group = json.loads(client.get_object(**key)["Body"].read())
        copies = {"kind": "inline", "must_understand": False, "metadata": {}}
        copied = json.dumps({**group, "consolidated_metadata": copies})
        client.put_object(**key, Body=copied.encode())
        making(con, "one")
        assert json.loads(client.get_object(**key)["Body"].read()) == group


def test_an_empty_dataset_is_not_touched_by_an_ingest_of_its_name(proxy, bucket):
    with connection(proxy.url, bucket) as con:
        ds = con.create_dataset("one", (20,), "f8")
        with pytest.raises(errors.DatasetExistsError):
            con.ingest(ARRAYS["array1"], "one")
        assert ds.written_chunks() == []
        assert ds[...].tolist() == [0.0] * 20


def test_a_chunk_whose_document_was_not_written_is_replaced(proxy, bucket):
    with connection(proxy.url, bucket) as con:
        con.create_dataset("before", data=[1])
        proxy.fault = lambda request: 403 if request.path.endswith("one/zarr.json") else None
        with pytest.raises(errors.StorageError):
            con.ingest(ARRAYS["array1"], "one")
        proxy.fault = None
        assert list(con) == ["before"]
        assert con.instance.store.get("one/c/0") is not None
        con.ingest(ARRAYS["array2"], "one")
        np.testing.assert_array_equal(con["one"][...], ARRAYS["array2"])
        assert con["one"].verify().ok


@pytest.mark.parametrize("at", ["one/c/0", "one/zarr.json"])
def test_of_two_that_make_a_dataset_one_wins(proxy, bucket, at):
    """The other one makes it just before this request."""
    with connection(proxy.url, bucket) as con, connection(proxy.url, bucket) as other:
        con.create_dataset("before", data=[1])

        def fault(request):
            if request.method == "PUT" and request.path.endswith(at):
                proxy.fault = None
                other.create_dataset("one", data=ARRAYS["array2"])

        proxy.fault = fault
        with pytest.raises(errors.DatasetExistsError):
            con.ingest(ARRAYS["array1"], "one")
        np.testing.assert_array_equal(con["one"][...], ARRAYS["array2"])
        assert other["one"].verify().ok


def test_a_second_ingest_finds_all_present(proxy, bucket, tmp_path):
    np.savez(tmp_path / "x.npz", **{f"a{n}": np.arange(n) for n in range(20)})
    with connection(proxy.url, bucket) as con:
        made = con.ingest(tmp_path / "x.npz", "run").made
        assert len(made) == 20
        assert con.ingest(tmp_path / "x.npz", "run").present == made


KILLED = """
import sys
import dosna as dn
url, bucket, path = sys.argv[1:]
with dn.Connection("tests", backend="s3", endpoint_url=url, bucket=bucket) as con:
    print("go", flush=True)
    con.ingest(path, "run")
"""


def test_an_ingest_goes_on_after_a_kill_in_the_middle(proxy, bucket, tmp_path):
    arrays = {f"array{n}": np.arange(n, n + 20.0) for n in range(100)}
    np.savez(tmp_path / "x.npz", **arrays)
    command = [sys.executable, "-c", KILLED, proxy.url, bucket, str(tmp_path / "x.npz")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"go\n"
        chunks = []

        def kill(request):
            if request.method == "PUT" and "/c/" in request.path:
                chunks.append(request.path)
                if len(chunks) == 40:
                    child.send_signal(signal.SIGKILL)
            return "refuse" if len(chunks) >= 40 else None

        proxy.fault = kill
        child.wait()
    wait_until(lambda: not proxy.busy)
    proxy.reset()
    with connection(proxy.url, bucket) as con:
        names = [name for name in sorted(arrays) if f"run/{name}" in con]
        assert 0 < len(names) < 100
        assert not any(con[f"run/{name}"].incomplete for name in names)
        report = con.ingest(tmp_path / "x.npz", "run")
        assert report.resumed == []
        assert report.present == [f"run/{name}" for name in names]
        assert len(report.made) + len(report.present) == 100
        check(con, arrays)


def test_one_array_of_many_that_fails_is_left_out_and_made_later(proxy, bucket, tmp_path):
    arrays = {f"array{n}": np.arange(n, n + 20.0) for n in range(40)}
    np.savez(tmp_path / "x.npz", **arrays)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("other", (1,))
        proxy.fault = lambda request: 403 if "/array7/c/" in request.path else None
        report = con.ingest(tmp_path / "x.npz", "run", on_error="skip")
        assert list(report.skipped) == ["array7"]
        assert len(report.made) == 39
        assert "run/array7" not in con
        with pytest.raises(errors.DosnaError):
            con.ingest(tmp_path / "x.npz", "run")
        proxy.reset()
        assert con.ingest(tmp_path / "x.npz", "run").made == ["run/array7"]
        check(con, arrays)


def test_the_first_error_ends_an_ingest(proxy, bucket):
    arrays = {f"array{n}": np.arange(n, n + 20.0) for n in range(100)}
    with connection(proxy.url, bucket) as con:
        con.create_dataset("other", (1,))
        proxy.fault = lambda request: 403 if "/array7/c/" in request.path else None
        with pytest.raises(errors.DosnaError):
            con.ingest(arrays, "run")
        proxy.reset()
        assert "run/array7" not in con
        for n in range(7):
            assert not con[f"run/array{n}"].incomplete
        assert len(con.names_in("run")) < 100


def test_a_dataset_that_comes_meanwhile_is_not_written_to(proxy, moto_url, bucket):
    arrays = {f"array{n}": np.arange(n, n + 20.0) for n in range(100)} | {"last": np.ones(3)}
    client = make_client(moto_url)
    with connection(proxy.url, bucket) as con:
        con.create_dataset("other", (3,))
        first = threading.Lock()
        copied = []

        def copy(request):
            if request.method == "PUT" and "/c/" in request.path:
                with first:  # all others wait
                    if not copied:
                        source = {"Bucket": bucket, "Key": "tests/other/zarr.json"}
                        key = "tests/run/last/zarr.json"
                        copied.append(
                            client.copy_object(Bucket=bucket, Key=key, CopySource=source)
                        )

        proxy.fault = copy
        report = con.ingest(arrays, "run", on_error="skip")
        proxy.reset()
        assert list(report.skipped) == ["last"]
        assert con["run/last"][...].tolist() == [0, 0, 0]
    client.close()


def test_no_dataset_lies_in_another(proxy, bucket):
    arrays = {"a": np.arange(3), "a/b": np.arange(4), "b": np.arange(5), "c": np.arange(6)}
    with connection(proxy.url, bucket) as con:
        report = con.ingest(arrays, "run", on_error="skip")
        assert list(report.skipped) == ["a/b"]
        assert con.names_in("run") == ["run/a", "run/b", "run/c"]
        with pytest.raises(errors.DatasetNameError):
            con.ingest({"run/a/x": np.arange(2), "run/a/y": np.arange(2)})
        assert con.names_in("run") == ["run/a", "run/b", "run/c"]


def test_copies_of_metadata_made_meanwhile_are_taken_out(proxy, moto_url, bucket):
    client = make_client(moto_url)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"by": "another"}}
    copies = {
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}}
    }
    once = threading.Lock()

    def consolidate(request):
        if request.method == "PUT" and "/c/" in request.path and once.acquire(blocking=False):
            body = json.dumps(group | copies).encode()
            client.put_object(Bucket=bucket, Key="tests/run/zarr.json", Body=body)

    with connection(proxy.url, bucket) as con:
        proxy.fault = consolidate
        con.ingest({f"array{n}": np.arange(5) for n in range(40)}, "run")
        proxy.reset()
        body = client.get_object(Bucket=bucket, Key="tests/run/zarr.json")["Body"].read()
        assert json.loads(body) == group
    client.close()


class Watched(Source):
    """A source that notes which threads read it, and cannot read one of its arrays."""

    def __init__(self):
        super().__init__("watched")
        self.threads = set()

    def names(self):
        return [f"array{n}" for n in range(40)]

    def describe(self, name):
        return ArrayDescription(name, (20,), np.dtype("i8"))

    def fingerprint(self):
        return "the same"

    def read(self, name, box):
        self.threads.add(threading.get_ident())
        if name == "array5":
            raise OSError("this part of the disk is damaged")
        return np.arange(20)[box]


def test_a_source_is_read_in_the_thread_of_the_caller(proxy, bucket):
    source = Watched()
    with connection(proxy.url, bucket) as con:
        report = con.ingest(source, "run", on_error="skip")
        assert source.threads == {threading.get_ident()}
        assert list(report.skipped) == ["array5"]
        assert "damaged" in report.skipped["array5"]
        assert len(report.made) == 39
        assert con["run/array5"].incomplete
