"""The ceph backend on clusters of three OSDs: the conformance kit, names, requests, errors."""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from kits import ContentMatters, EngineMatters
from support import HANG, Gathering, require

import dosna as dn
from dosna import errors
from dosna.backends.stores import watching
from dosna.testing import BackendTests, StoreTests
from dosna.testing.connections import ConnectionTests
from dosna.testing.machine import MachineTests
from dosna.testing.samples import DTYPES
from dosna.testing.sharing import SharingTests
from dosna.testing.timing import within

rados = require("rados")

from services.admin import administrator, command  # noqa: E402

from dosna.backends.ceph import names  # noqa: E402
from dosna.backends.ceph.cluster import Cluster  # noqa: E402
from dosna.backends.ceph.connection import CephConnection  # noqa: E402
from dosna.backends.ceph.names import ENTRIES, NAMES  # noqa: E402
from dosna.backends.ceph.store import END, CephStore  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def connection(ceph, pool="kit", engine="cpu", engine_kw=None, **kwargs):
    kwargs = {"conffile": ceph.conf, "timeout": 60, **kwargs}
    return dn.Connection(pool, backend="ceph", engine=engine, engine_kw=engine_kw, **kwargs)


@pytest.fixture
def con(ceph):
    with connection(ceph) as con:
        yield con


@pytest.fixture
def name(ceph):
    name = f"test-{secrets.token_hex(6)}"
    yield name
    with connection(ceph) as con:
        for made in [n for n in con if n.startswith(name)]:
            con.del_dataset(made)


# -- conformance ---------------------------------------------------------------------------


class TestStore(StoreTests):
    @pytest.fixture
    def store(self, ceph):
        con = CephConnection("store", ceph.conf)
        con.connect()
        yield con.store
        con.disconnect()


class TestStoreWithCephx(StoreTests):
    @pytest.fixture
    def store(self, secured):
        con = CephConnection("store", secured.conf, client_id="dosna")
        con.connect()
        yield con.store
        con.disconnect()


class OnCeph:
    dtypes = DTYPES
    examples = 3
    engine: ClassVar = ("cpu", {})

    @pytest.fixture
    def make_connection(self, ceph):
        if self.engine[0] == "joblib":
            require("joblib")
        return lambda: connection(ceph, "kit", *self.engine)


class TestCpu(OnCeph, BackendTests):
    examples = 5


class TestUnchecked(OnCeph, ContentMatters):
    """Parts of chunks are written as such."""

    create_options: ClassVar = {"checksum": False}
    examples = 5


class TestCached(OnCeph, SharingTests, MachineTests):
    """Decoded chunks are kept in memory; objects have no marks."""

    @pytest.fixture
    def make_connection(self, ceph):
        return lambda: connection(ceph, "kit", cache="1 MiB")


@pytest.mark.parametrize("checksum", [True, False])
def test_a_cache_takes_in_what_was_written_in_a_batch(ceph, name, checksum):
    with connection(ceph, cache="1 MiB", recheck="open") as con:
        ds = con.create_dataset(name, (64, 64), "i4", chunk_size=(8, 8), checksum=checksum)
        other = con[name]
        for value in range(1, 20):
            ds[...] = value
            np.testing.assert_array_equal(other[...], np.full((64, 64), value))
            ds[value, :3] = other[value + 1, 60:] = -value
            assert other[value, :4].tolist() == [-value] * 3 + [value]
            assert ds[value + 1, 59:].tolist() == [value] + [-value] * 4


class TestThreads(OnCeph, EngineMatters):
    engine = ("joblib", {"njobs": 3})


class TestDask(OnCeph, EngineMatters):
    engine = ("dask", {"n_workers": 2, "threads_per_worker": 2})
    examples = 2


class TestLokyWithCephx(ConnectionTests, EngineMatters):
    dtypes = DTYPES
    examples = 3

    @pytest.fixture
    def make_connection(self, secured):
        require("joblib")
        processes = {"njobs": 2, "jlbackend": "loky"}
        return lambda: connection(secured, "kit", "joblib", processes, client_id="dosna")


# -- names ---------------------------------------------------------------------------------


def keys(con):
    return set(con.instance.store.list(""))


def test_objects_are_named_as_zarr_names_them(con, name):
    con.create_dataset(f"{name}/data", data=np.arange(6), chunk_size=4)
    made = {key for key in keys(con) if key.startswith(name)}
    assert made == {f"{name}/zarr.json"} | {
        f"{name}/data/{k}" for k in ("zarr.json", "c/0", "c/1")
    }
    document = json.loads(con.instance.store.get(f"{name}/data/zarr.json").data)
    assert (document["zarr_format"], document["shape"]) == (3, [6])
    assert bytes(con.instance.store.get(f"{name}/data/c/0").data[:32]) == np.arange(4).tobytes()


def test_copied_into_files_it_is_what_zarr_opens(con, name, tmp_path):
    zarr = require("zarr")
    data = np.arange(70, dtype=">f4").reshape(7, 10)
    con.create_dataset(f"{name}/data", data=data, chunk_size=(3, 4), compression="zstd")
    for key in con.instance.store.list(name):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(con.instance.store.get(key).data)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / name / "data")[...], data)
    with dn.Connection(str(tmp_path / name), backend="file") as files:
        np.testing.assert_array_equal(files["data"][...], data)


def test_deleting_leaves_nothing(con, name):
    before = keys(con)
    for shards in (None, (8, 8)):
        ds = con.create_dataset(name, (20, 20), "u1", chunk_size=(4, 4), shards=shards)
        ds[...] = 1
        ds.resize((30, 30))
        ds[...] = 2
        ds.resize((3, 3))
        con.del_dataset(name)
        assert keys(con) <= before | {ENTRIES, "zarr.json"}


def test_what_a_stale_handle_wrote_is_not_in_the_next_dataset(con, ceph, name):
    ds = con.create_dataset(name, (20,), "u1", chunk_size=2)
    with connection(ceph) as second:
        second.del_dataset(name)
    with pytest.raises(errors.DatasetNotFoundError):
        ds[...] = 1
    ds.instance._looked = time.monotonic() + 60  # as one that looked just before
    ds[...] = 1
    assert con.create_dataset(name, (30,), "u1", chunk_size=2)[...].tolist() == [0] * 30


def test_all_is_deleted_though_others_were_about_to_make_it(con, name):
    """With another number of axes, and noted its name after the one that made it in the end."""
    ds = con.create_dataset(name, (20, 20), "u1", chunk_size=(4, 4))
    ds[...] = 1
    other = con.create_dataset(name + "-other", (9,), "u1", chunk_size=3)
    con.instance.remember(name, other.instance.metadata)
    con.del_dataset(name)
    con.del_dataset(other.name)
    assert not [key for key in keys(con) if key.startswith(name)]


def test_names_are_listed_without_listing_the_pool(con, name, monkeypatch):
    monkeypatch.setattr(CephStore, "list", None)
    made = [f"{name}/{n}" for n in ("a", "b/c")]
    for full in made:
        con.create_dataset(full, data=[1, 2, 3], chunk_size=1)
    assert [n for n in con if n.startswith(name)] == made
    assert len(con[made[0]].written_chunks()) == 3
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset(name, (1,))
    for full in made:
        con.del_dataset(full)
    assert not [n for n in con if n.startswith(name)]
    con.create_dataset(name, (1,))


def test_a_dataset_whose_creation_was_cut_off_does_not_show(con, name):
    con.instance.remember(name, con.create_dataset(name + "-like", (4, 4)).instance.metadata)
    assert name not in list(con)
    assert name not in con
    con.create_dataset(name + "/below", (1,))
    con.del_dataset(name + "/below")
    assert con.create_dataset(name, (2,))[...].tolist() == [0, 0]


def test_arrays_that_others_put_there_are_opened_and_deleted(con, name):
    ds = con.create_dataset(name, data=np.arange(10), chunk_size=4)
    con.instance.forget(name)
    assert name not in list(con)
    assert con[name][...].tolist() == list(range(10))
    assert len(ds.written_chunks()) == 3
    con.del_dataset(name)
    assert not [key for key in keys(con) if key.startswith(name)]


def test_very_many_chunks_are_listed_and_not_asked_for(con, name, monkeypatch):
    monkeypatch.setattr("dosna.backends.ceph.connection._MOST_ASKED", 100)
    ds = con.create_dataset(name, (1 << 40,), "u1", chunk_size=1)
    ds[5], ds[1 << 39] = 1, 2
    assert sorted(ds.written_chunks()) == [(5,), (1 << 39,)]
    con.del_dataset(name)
    assert not [key for key in keys(con) if key.startswith(name)]


def test_damaged_names_are_an_error(con):
    con.instance.store.put(NAMES, b"{}")
    try:
        with pytest.raises(errors.FormatError, match=re.escape(NAMES)):
            list(con)
    finally:
        con.instance.store.delete(NAMES)


def earlier(con, datasets, deleted=()):
    """Write the document of names as earlier versions did."""
    grids = {"c/%d": [1]}
    document = {
        "datasets": dict.fromkeys(datasets, grids),
        "deleted": dict.fromkeys(deleted, grids),
    }
    con.instance.store.put(NAMES, json.dumps(document).encode())


@pytest.fixture
def _without_entries(con, monkeypatch):
    """Let a connection make datasets as earlier versions did."""
    con.instance._names._has_entries = False
    yield
    con.instance.store.delete(NAMES)


@pytest.mark.usefixtures("_without_entries")
def test_names_of_earlier_versions_are_listed_and_taken_over(con, ceph, name):
    for inner in ("a", "b"):
        con.create_dataset(f"{name}/{inner}", data=[1])
    before = con.instance.store.get(NAMES).data
    with connection(ceph) as now:
        assert [n for n in now if n.startswith(name)] == [f"{name}/a", f"{name}/b"]
        assert now.names_in(name) == [f"{name}/a", f"{name}/b"]
        with pytest.raises(errors.DatasetNameError):
            now.create_dataset(name, (1,))
        now.create_dataset(f"{name}/c", data=[1])
        now.del_dataset(f"{name}/a")
        found = now.instance._names.listed(name)
        assert (found.certain, found.doubtful) == ([f"{name}/b", f"{name}/c"], [])
        assert con.instance.store.get(NAMES).data == before
        assert con.names_in(name) == now.names_in(name)
        # A client of an earlier version goes on.
        con.create_dataset(f"{name}/d", data=[1])
        con.del_dataset(f"{name}/b")
        assert now.names_in(name) == [f"{name}/c", f"{name}/d"]
        now.create_dataset(f"{name}/e", data=[1])
        assert now.names_in(name) == [f"{name}/{n}" for n in "cde"]
        assert f"{name}/c" in now.instance._names.listed(name).certain


@pytest.mark.usefixtures("_without_entries")
def test_places_of_earlier_versions_are_taken_over(con, ceph, name):
    earlier(con, [], [name])
    con.instance.store.put(f"{name}/c/0", b"left")
    with connection(ceph) as now:
        assert now.create_dataset(name, (1,))[...].tolist() == [0]
        now.del_dataset(name)
        assert not [key for key in keys(now) if key.startswith(name)]


def test_creating_costs_the_same_beside_many_names(con, counts, ceph, name):
    def cost(which):
        counts.clear()
        con.create_dataset(f"{name}-{which}", (1,))
        return dict(counts)

    with connection(ceph) as con:
        first = cost("first")
        for number in range(0, 5000, 100):
            entry = names._entry({"c/%d": [1]}, made=True)
            con.instance.raw_store.change_entries(
                ENTRIES, {}, {f"+{name}/x{n}": entry for n in range(number, number + 100)}
            )
        try:
            assert cost("second") == first
            counts.clear()
            assert len(con.names_in(f"{name}")) == 5000
            assert counts == {"operate_read_op": 6, "read": 1}
        finally:
            for number in range(0, 5000, 100):
                con.instance.raw_store.change_entries(
                    ENTRIES, {}, {f"+{name}/x{n}": None for n in range(number, number + 100)}
                )


def test_who_was_slow_to_create_does_not_bring_back_a_deleted_name(con, name):
    known = con.instance._names
    entry = known.remember(name, {"c/%d": [1]})
    known.doubt(name)
    known.confirm(name, entry)
    assert known.listed(name) == ([], [name])
    known.forget(name)
    known.confirm(name, entry)
    assert known.listed(name) == ([], [])
    assert known.grids(name) == {"c/%d": [1]}


def test_places_of_the_latest_deleted_datasets_are_kept(con, name, monkeypatch):
    monkeypatch.setattr(names, "_MOST_DELETED", 3)
    monkeypatch.setattr(names, "_SWEEP_ONE_OF", 1)
    for number in range(5):
        con.instance.remember(f"{name}-{number}", con.create_dataset(name, (1,)).instance.metadata)
        con.del_dataset(name)
        con.instance.forget(f"{name}-{number}")
    kept = dict(con.instance.raw_store.entries(ENTRIES, f"-{name}"))
    assert sorted(kept) == sorted([f"-{name}", f"-{name}-3", f"-{name}-4"])


# -- requests ------------------------------------------------------------------------------


REQUESTING = (
    *("read", "stat", "write_full", "aio_write_full", "remove_object"),
    *("operate_read_op", "operate_write_op"),
)


class CountedObjects:
    """An I/O context that counts what is asked of it."""

    def __init__(self, objects, counts):
        self._objects, self._counts = objects, counts

    def __getattr__(self, what):
        if what in REQUESTING:
            self._counts[what.removeprefix("aio_")] += 1
        return getattr(self._objects, what)


@pytest.fixture
def counts(monkeypatch):
    counts = Counter()
    open_pool = Cluster.open_pool
    monkeypatch.setattr(Cluster, "open_pool", lambda s: CountedObjects(open_pool(s), counts))
    return counts


# docs/ceph.md states these.
REQUESTS = {
    "create": {"read": 4, "operate_read_op": 3, "operate_write_op": 3},
    "open": {"read": 1},
    "read a chunk": {"read": 2},
    "read four chunks": {"read": 5},
    "read part of a chunk": {"read": 2},
    "read four that were never written": {"read": 5},
    "write a chunk": {"read": 1, "write_full": 1},
    "write four chunks": {"read": 1, "write_full": 4},
    "write part of a chunk": {"read": 2, "operate_write_op": 1},
    "write part of an unchecked chunk": {"read": 1, "operate_write_op": 1},
    "read a chunk of a shard": {"read": 3, "stat": 1},
    "read another of it": {"read": 2},
    "has_chunk": {"read": 2},
    "del_chunk": {"read": 1, "remove_object": 1},
    "set an attribute": {"read": 2, "operate_write_op": 1},
    "written_chunks": {"read": 8, "operate_read_op": 1},
    "delete": {"read": 5, "operate_read_op": 5, "operate_write_op": 4, "remove_object": 5},
}


def test_requests_of_each_operation(ceph, counts, name, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 60)
    found = {}

    def count(what, operation):
        counts.clear()
        result = operation()
        found[what] = dict(counts)
        return result

    with connection(ceph) as con:
        options = {"shape": (4, 4), "chunk_size": (2, 2)}
        con.create_dataset(name + "-before", **options)
        plain = con.create_dataset(name + "-plain", **options, checksum=False)
        plain[...] = 0
        sharded = con.create_dataset(name + "-shards", **options, shards=(4, 4))
        sharded[...] = 0
        ds = count("create", lambda: con.create_dataset(name, **options))
        count("open", lambda: con[name])
        count("read four that were never written", lambda: ds[...])
        count("write a chunk", lambda: ds.__setitem__((slice(0, 2), slice(0, 2)), 1))
        count("write four chunks", lambda: ds.__setitem__(..., 2))
        count("write part of a chunk", lambda: ds.__setitem__((0, 0), 3))
        count("write part of an unchecked chunk", lambda: plain.__setitem__((0, 0), 3))
        count("read a chunk", lambda: ds[:2, :2])
        count("read four chunks", lambda: ds[...])
        count("read part of a chunk", lambda: plain[0, 1])
        count("read a chunk of a shard", lambda: sharded[0, 0])
        count("read another of it", lambda: sharded[3, 3])
        count("has_chunk", lambda: ds.has_chunk((0, 0)))
        count("del_chunk", lambda: ds.del_chunk((0, 0)))
        count("set an attribute", lambda: ds.attrs.__setitem__("unit", "mm"))
        count("written_chunks", ds.written_chunks)
        count("delete", lambda: con.del_dataset(name))
    assert found == REQUESTS


def test_a_part_of_an_unchecked_chunk_moves_only_its_bytes(con, name):
    data = np.arange(1 << 16)
    ds = con.create_dataset(name, data=data, chunk_size=1 << 16, checksum=False)
    objects = con.instance.store._handle().objects
    asked = []

    class Objects:
        def __getattr__(self, what):
            return getattr(objects, what)

        def read(self, *arguments):
            asked.append(arguments)
            return objects.read(*arguments)

    con.instance.store._handle().objects = Objects()
    assert ds[10:20].tolist() == data[10:20].tolist()
    ds[3:5] = -1
    assert [a for a in asked if "/c/" in a[0]] == [(f"{name}/c/0", 80, 80)]
    assert ds[:6].tolist() == [0, 1, 2, -1, -1, 5]


def test_large_objects_of_differing_sizes_are_read_whole(con):
    store = con.instance.store
    for size in (0, 1, 65_536, 65_537, 300_000, 5, 1 << 20, (1 << 20) + 1):
        data = os.urandom(size)
        store.put("sizes/c/0", data)
        assert store.get("sizes/c/0").data == data
    store.delete("sizes/c/0")


@pytest.mark.parametrize(("nbytes", "most"), [(1, 16), (24 << 20, 2), (100 << 20, 1)])
def test_requests_under_way_are_bounded(con, nbytes, most):
    gathering = Gathering(most)

    def work(item):
        con.instance.store.get("nothing")
        with gathering:
            pass

    con.instance.store.for_each(work, range(64), nbytes)
    assert gathering.most == most


def test_writes_under_way_are_bounded(con, monkeypatch):
    begun, most = [], []

    class Objects:
        def __init__(self, objects):
            self._objects = objects

        def __getattr__(self, what):
            return getattr(self._objects, what)

        def aio_write_full(self, key, data, ended):
            begun.append(self._objects.aio_write_full(key, data, ended))
            most.append(sum(not write.is_complete() for write in begun))

    def write():
        handle, store = con.instance.store._handle(), con.instance.store
        monkeypatch.setattr(handle, "objects", Objects(handle.objects))
        store.for_each(lambda n: store.put(f"bounded-{n}", bytes(1 << 20)), range(60), 8 << 20)

    with ThreadPoolExecutor(1) as pool:  # not the main thread, which has another one do it
        pool.submit(write).result()
    assert len(begun) == 60
    assert all(write.is_complete() for write in begun)
    assert 1 < max(most) <= 8
    con.instance.store.delete_many(f"bounded-{n}" for n in range(60))


# -- errors --------------------------------------------------------------------------------


@pytest.fixture
def quickly():
    with within(6):
        yield


@pytest.mark.usefixtures("quickly")
class TestErrors:
    @pytest.mark.parametrize(
        ("text", "match"),
        [(None, "cannot be read"), ("[global\n mon_host =[ = ] x[", "not a Ceph configuration")],
    )
    def test_an_unreadable_configuration(self, tmp_path, text, match):
        path = tmp_path / "ceph.conf"
        if text is not None:
            path.write_text(text)
        con = dn.Connection("kit", backend="ceph", conffile=path)
        with pytest.raises(errors.ConfigurationError, match=match) as caught:
            con.connect()
        assert str(path) in str(caught.value)
        assert not con.connected

    def test_no_monitor_is_named(self, tmp_path):
        (tmp_path / "ceph.conf").write_text("[global]\n")
        con = dn.Connection("kit", backend="ceph", conffile=tmp_path / "ceph.conf", timeout=60)
        with pytest.raises(errors.ConnectionError, match="mon_host"):
            con.connect()

    def test_nobody_there(self, tmp_path):
        (tmp_path / "ceph.conf").write_text(
            "[global]\nmon_host = [v2:127.0.0.1:9/0]\nauth_client_required = none\n"
        )
        con = dn.Connection("kit", backend="ceph", conffile=tmp_path / "ceph.conf", timeout=1)
        with pytest.raises(errors.ConnectionError, match=r"answer(ed)? within [12] s"):
            con.connect()

    def test_an_unknown_pool(self, ceph):
        with pytest.raises(errors.ConnectionError, match=r"no pool 'kitt'.*ceph osd pool create"):
            connection(ceph, "kitt").connect()

    def test_a_missing_keyring(self, secured, tmp_path):
        conf = self.with_keyring(secured, tmp_path / "no-such-keyring", tmp_path)
        con = dn.Connection("kit", backend="ceph", conffile=conf, client_id="dosna", timeout=60)
        with pytest.raises(errors.ConnectionError, match="keyring"):
            con.connect()

    def test_a_client_without_a_key(self, secured):
        with pytest.raises(errors.ConnectionError, match=r"client\.nobody"):
            connection(secured, client_id="nobody").connect()

    def test_a_wrong_key(self, secured, tmp_path):
        key = "AQBSdFhcGhTQMhAAd0SYfE9UFqCk0r9wHBwsbg=="
        (tmp_path / "keyring").write_text(f"[client.dosna]\n\tkey = {key}\n")
        conf = self.with_keyring(secured, tmp_path / "keyring", tmp_path)
        con = dn.Connection("kit", backend="ceph", conffile=conf, client_id="dosna", timeout=60)
        with pytest.raises(errors.ConnectionError, match=r"client\.dosna") as caught:
            con.connect()
        assert key not in str(caught.value)

    @staticmethod
    def with_keyring(ceph, keyring, folder):
        text = re.sub("(?m)^keyring = .*$", f"keyring = {keyring}", Path(ceph.conf).read_text())
        (folder / "ceph.conf").write_text(text)
        return folder / "ceph.conf"

    def test_what_a_client_may_not_do(self, secured):
        with connection(secured, client_id="dosna") as con:
            ds = con.create_dataset("forbidden", data=[1, 2, 3])
            with connection(secured, client_id="reader") as reader:
                found = reader["forbidden"]
                assert found[...].tolist() == [1, 2, 3]
                for change in (
                    lambda: found.__setitem__(..., 0),
                    lambda: found.__setitem__(0, 0),
                    lambda: reader.create_dataset("another", (1,)),
                    lambda: reader.del_dataset("forbidden"),
                ):
                    with pytest.raises(errors.StorageError, match=r"client\.reader may not"):
                        change()
            assert ds[...].tolist() == [1, 2, 3]
            con.del_dataset("forbidden")
        with (
            connection(secured, "faults", client_id="dosna") as con,
            pytest.raises(errors.StorageError, match=r"client\.dosna may not"),
        ):
            con.get_dataset("forbidden")

    def test_chunks_above_the_limits(self, con, name):
        with pytest.raises(errors.ConfigurationError, match="osd_max_write_size") as caught:
            con.create_dataset(name, (100 << 20,), "u1", chunk_size=91 << 20)
        assert str(90 << 20) in str(caught.value)
        with pytest.raises(errors.ConfigurationError, match="osd_max_write_size"):
            con.create_dataset(name, (100 << 20,), "u1", chunk_size=1 << 20, shards=95 << 20)
        assert name not in con
        largest = (90 << 20) - 4
        ds = con.create_dataset(name, (largest,), "u1", chunk_size=largest)
        ds[...] = 7
        assert ds[-3:].tolist() == [7, 7, 7]
        with pytest.raises(errors.StorageError, match="osd_max_write_size"):
            con.instance.store.put(name + "/c/too-large", bytes((90 << 20) + 1))

    def test_names_beyond_the_limit(self, con):
        for last in (200, 20):  # of which the shorter leaves room for zarr.json
            with pytest.raises(errors.DatasetNameError, match=r"too long|osd_max_object_name_len"):
                con.create_dataset("/".join(["n" * 200] * 10 + ["n" * last]), (1,) * 32)

    @pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan")])
    def test_bad_options(self, timeout):
        with pytest.raises(errors.ConfigurationError, match="timeout"):
            dn.Connection("kit", backend="ceph", timeout=timeout)

    def test_a_misspelt_option(self):
        with pytest.raises(TypeError, match="conffile"):
            dn.Connection("kit", backend="ceph", confile="ceph.conf")

    @staticmethod
    def read_until_an_error(ds, expected):
        while True:
            assert ds[...].tolist() == expected

    def test_a_pool_that_went_away_is_not_fill(self, ceph):
        command(ceph, "osd pool create", pool="gone", pg_num=4, pgp_num=4)
        with connection(ceph, "gone") as con:
            ds = con.create_dataset("data", data=[1, 2, 3, 4], chunk_size=2)
            arguments = {"pool": "gone", "pool2": "gone", "yes_i_really_really_mean_it": True}
            command(ceph, "osd pool delete", **arguments)
            with pytest.raises(errors.StorageError, match="'gone' does not exist"):
                self.read_until_an_error(ds, [1, 2, 3, 4])
            with pytest.raises(errors.StorageError, match="'gone'"):
                ds[...] = 1
            with pytest.raises(errors.StorageError, match="'gone' does not exist"):
                con.has_dataset("data")


def test_secrets_stay_secret(secured):
    keyring = Path(secured.folder, "keyring").read_text()
    found = re.findall(r"key = (\S+)", keyring)
    assert len(found) >= 5
    with connection(secured, client_id="dosna") as con:
        ds = con.create_dataset("secret", data=[1, 2])
        seen = [
            repr(con),
            repr(ds),
            repr(con.instance.__dict__),
            repr(con.instance.store.__dict__),
        ]
        seen += [repr(con.instance.store.cluster.__dict__), pickle.dumps(ds).decode("latin-1")]
        con.del_dataset("secret")
    assert not [key for key in found for text in seen if key in text]


def test_a_pickled_connection_opens_its_own(con, name):
    ds = con.create_dataset(name, data=np.arange(4))
    other = pickle.loads(pickle.dumps(ds))
    assert other[...].tolist() == [0, 1, 2, 3]
    assert other.connection.instance.store is not con.instance.store


def test_a_closed_store_says_so(ceph):
    con = CephConnection("store", ceph.conf)
    con.connect()
    store = con.store
    con.disconnect()
    with pytest.raises(errors.NotConnectedError):
        store.get("key")


def test_writes_under_way_are_not_collected_as_garbage(ceph):
    code = f"""
import gc, threading, dosna as dn
con = dn.Connection("kit", backend="ceph", engine="cpu", conffile={ceph.conf!r})
con.connect()
store = con.instance.store
def put(number):
    store.put(f"busy-{{number}}", bytes(1 << 22))
    if number == 15:
        store._local = threading.local()
        gc.collect()
thread = threading.Thread(target=store.for_each, args=(put, range(16)))
thread.start(); thread.join()
assert all(store.get(f"busy-{{number}}") for number in range(16))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_disconnecting_while_others_work_ends_no_process(ceph):
    code = f"""
import threading, dosna as dn, numpy as np
from dosna import errors
for _ in range(5):
    con = dn.Connection("kit", backend="ceph", engine="cpu", conffile={ceph.conf!r})
    con.connect()
    store = con.instance.store
    store.put("busy", bytes(1 << 20))
    def read():
        store.get("busy")
    def write():
        store.for_each(lambda n: store.put(f"busy-{{n}}", bytes(1 << 18)), range(20))
    def work(call):
        try:
            while True:
                call()
        except errors.NotConnectedError:
            ended.append(True)
    ended = []
    threads = [threading.Thread(target=work, args=(call,)) for call in (read, write) * 2]
    for thread in threads: thread.start()
    con.disconnect()
    for thread in threads: thread.join()
    assert len(ended) == 4
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert ran.returncode == 0, ran.stderr


def test_the_end_of_a_listing_is_the_last_of_a_pool(ceph):
    """As hashes of names decide, whose order is that of the listing."""
    with administrator(ceph) as cluster, cluster.open_ioctx("store") as objects:
        objects.write_full(END, b"")
        for number in range(2000):
            objects.write_full(f"order-{number}", b"")
        names = [found.key for found in objects.list_objects()]
        for number in range(2000):
            objects.remove_object(f"order-{number}")
    assert len(names) > 2000
    assert names[-1] == END


def test_a_listing_that_may_not_write_says_that_it_may_be_cut_short(ceph):
    with administrator(ceph) as cluster, cluster.open_ioctx("store") as objects:
        objects.write_full("listed", b"")
        with suppress(rados.ObjectNotFound):
            objects.remove_object(END)
        reading, writing = (CephConnection("store", ceph.conf, mode=mode) for mode in "ra")
        reading.connect()
        with pytest.warns(UserWarning, match="cut short"):
            assert "listed" in list(reading.store.list("l"))
        with pytest.raises(rados.ObjectNotFound):
            objects.stat(END)
        writing.connect()
        assert "listed" in list(writing.store.list("l"))
        assert "listed" in list(reading.store.list("l"))
        objects.remove_object("listed")
        for con in (reading, writing):
            con.disconnect()


def test_erasure_coded_pools_take_whole_and_partial_writes(ceph):
    profile = ["k=2", "m=1", "crush-failure-domain=osd"]
    command(ceph, "osd erasure-code-profile set", name="two-one", profile=profile)
    command(
        ceph,
        "osd pool create",
        **{"pool": "coded", "pg_num": 4, "pgp_num": 4, "pool_type": "erasure"},
        erasure_code_profile="two-one",
    )
    try:
        with connection(ceph, "coded") as con:
            for checksum in (True, False):
                ds = con.create_dataset(
                    "data", data=np.arange(20), chunk_size=7, checksum=checksum
                )
                ds[3:9] = -1
                ds[15] = -2
                expected = np.arange(20)
                expected[3:9], expected[15] = -1, -2
                np.testing.assert_array_equal(ds[...], expected)
                assert ds[4:6].tolist() == [-1, -1]
                assert list(con) == ["data"]
                con.del_dataset("data")
    finally:
        arguments = {"pool": "coded", "pool2": "coded", "yes_i_really_really_mean_it": True}
        command(ceph, "osd pool delete", **arguments)


def test_the_sample_configuration_works_once_it_is_filled_in(secured, tmp_path):
    sample = (ROOT / "ceph.sample.conf").read_text()
    conf = Path(secured.conf).read_text()
    values = {
        "fsid": re.search(r"(?m)^fsid = (.*)$", conf)[1],
        "mon_host": re.search(r"(?m)^mon_host = (.*)$", conf)[1],
        "keyring": f"{secured.folder}/keyring",
    }
    for option, value in values.items():
        sample, count = re.subn(rf"(?m)^{option} = .*$", f"{option} = {value}", sample)
        assert count == 1, option
    (tmp_path / "ceph.conf").write_text(sample)
    with dn.Connection(
        "kit", backend="ceph", conffile=tmp_path / "ceph.conf", client_id="dosna"
    ) as con:
        con.create_dataset("sample", data=[1, 2, 3])
        assert con["sample"][...].tolist() == [1, 2, 3]
        con.del_dataset("sample")


def test_without_the_binding_the_error_says_what_to_do(tmp_path):
    (tmp_path / "rados.py").write_text("raise ImportError('no rados here', name='rados')")
    code = (
        "import dosna as dn\ntry:\n    dn.use(backend='ceph')\nexcept ImportError as e: print(e)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert "python3-rados" in ran.stdout, ran.stderr
    assert "docs/ceph.md" in ran.stdout


MEMORY = """
import sys
import numpy as np
import dosna as dn

LIMIT = 16 << 20

class Source:
    shape, dtype = (1280, 256, 256), np.dtype("f4")  # 20 times the limit
    def __getitem__(self, key):
        rows = np.arange(1280, dtype="f4")[key[0]]
        return np.broadcast_to(rows[:, None, None], (len(rows), 256, 256))[:, key[1], key[2]]

def status(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))

with dn.Connection("single", backend="ceph", engine="joblib", engine_kw={"njobs": 2},
                   conffile=sys.argv[1]) as con:
    small = con.create_dataset("small", (8, 8, 8), "f4", chunk_size=(1, 8, 8))
    small.map(np.negative, "small-m", memory_limit=LIMIT)
    ds = con.create_dataset("large", Source.shape, "f4", chunk_size=(1, 256, 256))
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    ds.load(Source(), memory_limit=LIMIT)
    mapped = ds.map(np.negative, "large-m", memory_limit=LIMIT)
    grown = status("VmHWM") - before
    assert mapped.sum() == -256 * 256 * sum(range(1280))
    for name in list(con):
        con.del_dataset(name)
print(grown)
"""


def test_a_map_of_twenty_times_the_memory_limit_stays_within_it(ceph):
    require("joblib")
    command(ceph, "osd pool create", pool="single", pg_num=8, pgp_num=8, size=1)
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, ceph.conf], capture_output=True, text=True, timeout=HANG
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 16


# -- what must not come back, get lost or hang ---------------------------------------------


def test_what_others_put_in_the_pool_is_cut_off_too(con, name):
    data = np.arange(56, dtype="i4").reshape(7, 8)
    ds = con.create_dataset(name, data=data, chunk_size=(3, 3))
    con.instance.forget(name)
    con.instance.raw_store.change_entries(ENTRIES, {}, {f"-{name}": None})
    ds.resize((4, 5))
    ds.resize((9, 9))
    expected = np.zeros((9, 9), "i4")
    expected[:4, :5] = data[:4, :5]
    np.testing.assert_array_equal(ds[...], expected)


def test_late_writes_of_a_handle_do_not_show_up_two_datasets_later(con, name):
    like = {"dtype": "i4", "chunk_size": (1,)}
    late = con.create_dataset(name, shape=(10,), **like)
    con.del_dataset(name)
    con.create_dataset(name, shape=(2,), **like)
    with pytest.raises(errors.StaleDatasetError):
        late[9] = 42
    late.instance._looked = time.monotonic() + 60  # as one that looked just before
    late[9] = 42
    con.del_dataset(name)
    assert not con.create_dataset(name, shape=(10,), **like)[...].any()


def test_growing_beyond_the_longest_key_is_refused_before(con):
    cluster = con.instance.store.cluster
    limit = int(cluster.option("osd_max_object_name_len"))
    most = limit - len("/c/0/0/0/0/0")
    name = "/".join(["n" * 199] * 20)[:most].rstrip("/")
    ds = con.create_dataset(name, shape=(9, 1, 1, 1, 1), dtype="i4", chunk_size=(1,) * 5)
    ds[...] = 1
    with pytest.raises(errors.DatasetNameError, match="osd_max_object_name_len"):
        ds.resize((10**9, 1, 1, 1, 1))
    assert ds.shape[0] == 9
    con.del_dataset(name)


INTERRUPTED = """
import random, signal, sys, threading, time
import numpy as np
import dosna as dn
from dosna.io import parallel as workers

open_batches = []
do = workers.Batch._do

def counted(self):
    open_batches.append(self)
    do(self)
    open_batches.remove(self)

workers.Batch._do = counted
random.seed(0)
signal.signal(signal.SIGINT, signal.default_int_handler)
with dn.Connection("kit", backend="ceph", conffile=sys.argv[1]) as con:
    shape, chunk_size = (200, 64, 1024), (1, 64, 1024)
    ds = con.create_dataset(sys.argv[2], shape=shape, dtype="f4", chunk_size=chunk_size)
    values = np.ones(ds.shape, "f4")
    stopped = 0
    for _ in range(30):
        timer = threading.Timer(
            random.uniform(0.002, 0.04),
            lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT),
        )
        try:
            timer.start()
            ds[...] = values
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            stopped += not open_batches
            assert not open_batches
    assert stopped > 3, stopped
    ds[...] = values
    assert (ds[...] == 1).all()
    con.del_dataset(ds.name)
"""


def test_an_interrupt_leaves_nothing_under_way(ceph, name):
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, ceph.conf, name],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode == 0, ran.stderr
