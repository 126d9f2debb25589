"""Datasets of stores of bytes: which requests they make, and what they survive."""

from __future__ import annotations

import json
import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HANG

import dosna as dn
from dosna import errors
from dosna.backends import Backend
from dosna.backends import registry as backends
from dosna.backends.stores import deletion as deletion
from dosna.backends.stores import watching
from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.dataset import StoreDataset
from dosna.core.metadata import DatasetMetadata
from dosna.io import processes as processes
from dosna.io.ranges import byte_runs
from dosna.io.scratch import scratch
from dosna.testing import CountingStore, FaultyStore, MemoryStore, use_store
from dosna.testing.doubles import FolderStore, MemoryConnection
from dosna.testing.samples import check
from dosna.testing.timing import patience


@pytest.fixture
def store():
    return CountingStore(MemoryStore())


@pytest.fixture
def connect(store):
    name = secrets.token_hex(8)
    use_store(name, store)
    return lambda: dn.Connection(name, backend="memory", engine="cpu")


@pytest.fixture
def con(connect):
    with connect() as connection:
        yield connection


def requests(store, use):
    """Give what a call asks of the store, by kind."""
    store.reset()
    use()
    return dict(store.requests)


DATA = np.arange(96.0).reshape(8, 12)


# Requests


def test_what_each_operation_asks_of_the_store(con, store, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 60)
    ds = con.create_dataset("x", data=DATA, chunk_size=(4, 4))
    sparse = con.create_dataset("y", shape=(8, 12), chunk_size=(4, 4))
    for use, expected in [
        (lambda: ds[...], {"get": 6}),
        (lambda: ds[1, 1], {"get": 1}),
        (lambda: ds[2:6, 5:7], {"get": 2}),
        (lambda: ds.get_chunk_data((0, 0)), {"get": 1}),
        (lambda: ds.get_chunk((0, 0)), {}),
        (lambda: ds.has_chunk((0, 0)), {"get": 1}),
        # A look at the document comes before a write that reads nothing.
        (lambda: ds.__setitem__(..., DATA), {"get": 1, "put": 6}),
        (lambda: ds.__setitem__((slice(4), slice(4)), 1), {"get": 1, "put": 1}),
        (lambda: ds.__setitem__((1, 1), 1), {"get": 1, "put": 1}),
        (lambda: ds.attrs.__setitem__("a", 1), {"get": 2, "put": 1}),
        (lambda: ds.attrs["a"], {}),
        (lambda: ds.written_chunks(), {"list": 1, "get": 1}),
        (lambda: con["x"], {"get": 1}),
        (lambda: ds.clear(), {"list": 1, "get": 1, "delete": 6}),
        # However many chunks are absent, one look proves them fill.
        (lambda: sparse[...], {"get": 7}),
        (lambda: sparse[1, 1], {"get": 2}),
    ]:
        assert requests(store, use) == expected


@pytest.mark.parametrize("shards", [None, (8,)])
def test_without_conditional_puts_rows_of_others_are_kept(tmp_path, shards):
    con, other = (dn.Connection(str(tmp_path), backend="folder", engine="cpu") for _ in "ab")
    with con, other:
        ds = con.create_dataset("x", data=np.zeros(5), chunk_size=4, shards=shards)
        with pytest.warns(UserWarning, match="no conditional writes"):
            other["x"].append([7, 8])
        ds[...] = 1  # without a warning: it is all that this handle knows of
        assert con["x"][...].tolist() == [1, 1, 1, 1, 1, 7, 8]
        with pytest.warns(UserWarning, match="no conditional writes"):
            ds[1] = 2


def test_names_are_listed_once(con, store):
    for name in ("a", "b", "c"):
        con.create_dataset(name, (1,))
    once = requests(store, lambda: con.instance.dataset_names())
    for use in (lambda: list(con), lambda: sorted(con), lambda: set(con), lambda: len(con)):
        assert requests(store, use) == once
    names = iter(con)
    assert next(names) == "a"
    con.create_dataset("d", (1,))
    assert len(con) == 4
    assert list(names) == ["b", "c"]
    iter(con)
    con.del_dataset("d")
    assert (len(con), list(con)) == (3, ["a", "b", "c"])


def test_what_each_operation_asks_of_a_store_with_shards(con, store, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 60)
    ds = con.create_dataset("x", data=DATA, chunk_size=(2, 2), shards=(4, 12))
    other = con["x"]
    for use, expected in [
        (lambda: ds[...], {"get": 2}),
        (lambda: ds.__setitem__(..., DATA), {"get": 1, "put": 2}),
        (lambda: ds.__setitem__((slice(4), slice(12)), 1), {"get": 1, "put": 1}),
        (lambda: ds.__setitem__((slice(2), slice(2)), 1), {"get": 1, "put": 1}),
        (lambda: ds.load(DATA), {"get": 1, "put": 2}),
        (lambda: ds.apply(np.negative), {"get": 3, "put": 2}),
        (lambda: ds.sum(), {"get": 2}),
        (lambda: other[1, 1], {"get": 2}),  # the index, and the chunk
        (lambda: other[2, 3], {"get": 1}),
        (lambda: other[0:4, 5], {"get": 2}),
        (lambda: ds.written_chunks(), {"list": 1, "get": 3}),
        (lambda: ds.clear(), {"list": 1, "get": 1, "delete": 2}),
    ]:
        assert requests(store, use) == expected


class SharedMemory(MemoryConnection):
    """As if another process saw the same, so that handles may be pickled."""

    shared_between_processes = True


backends.register(Backend("shared-memory", SharedMemory))


class Unmarked(FaultyStore):
    """A store that keeps no marks."""

    def put_marked(self, key, data, expected, mark):
        self.put(key, data, expected)


@pytest.mark.parametrize("shards", [None, 10, 20])
@pytest.mark.parametrize("kind", [CountingStore, Unmarked])
@pytest.mark.parametrize("key", [25, 19, slice(15, 20), slice(None), [3, 18], slice(20, 30)])
def test_what_was_cut_off_is_not_read_by_an_old_handle(kind, key, shards):
    inner = MemoryStore()
    use_store("cut", kind(inner))
    with dn.Connection("cut", backend="memory", engine="cpu") as con:
        data = np.arange(30)
        chunks = 10 if shards is None else 5
        ds = con.create_dataset("x", data=data, chunk_size=chunks, shards=shards)
        other = con["x"]
        other.resize(17)
        with pytest.raises(errors.StaleDatasetError):
            print(ds[key])
        # By now it knows.
        check(ds[...], data[:17])
        ds = con["x"]
        other.resize(12)
        check(ds[2:8], data[2:8])
        check(ds[:12], data[:12])


@pytest.mark.parametrize("kind", [CountingStore, Unmarked])
@pytest.mark.parametrize("dtype", ["<f4", "<i4", ">f4", "<f8"])
@pytest.mark.parametrize("shards", [None, 10])
def test_a_pickled_handle_is_of_one_dataset(kind, dtype, shards):
    inner = MemoryStore()
    inner.shared_between_processes = True
    use_store("pickled", kind(inner))
    with dn.Connection("pickled", backend="shared-memory", engine="cpu") as con:
        ds = con.create_dataset("x", data=np.arange(20, dtype="<f4"), chunk_size=5, shards=shards)
        text = pickle.dumps(ds)
        check(pickle.loads(text)[...], np.arange(20, dtype="<f4"))
        con.del_dataset("x")
        anew = np.arange(100, 120, dtype=dtype)
        con.create_dataset("x", data=anew, chunk_size=5, shards=shards)
        for use in (
            lambda ds: ds[3],
            lambda ds: ds[:10],
            lambda ds: ds[...],
            lambda ds: ds.__setitem__(slice(0, 10), 7),
            lambda ds: ds.__setitem__(3, 7),
            lambda ds: ds.attrs.update(a=1),
            lambda ds: ds.append(np.zeros(3, "<f4")),
        ):
            with pytest.raises(errors.StaleDatasetError):
                use(pickle.loads(text))
        check(con["x"][...], anew)


def test_what_comes_too_late_is_seen_by_who_reads(monkeypatch):
    """A write that passed its look when the dataset was there, and is done when it is another."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 60)  # however slow this is
    inner = MemoryStore()
    use_store("late", CountingStore(inner))
    with dn.Connection("late", backend="memory", engine="cpu") as con:
        ds = con.create_dataset("x", data=np.arange(4.0), chunk_size=2)
        look = StoreDataset.look

        def then_others(self):
            look(self)
            monkeypatch.setattr(StoreDataset, "look", look)
            con.del_dataset("x")
            con.create_dataset("x", data=np.arange(10.0, 14.0), chunk_size=2)

        monkeypatch.setattr(StoreDataset, "look", then_others)
        ds[:2] = 7
        new = con["x"]
        with pytest.raises(errors.ChunkCorruptError, match=r"chunk \(0,\).*another dataset"):
            print(new[...])
        with pytest.raises(errors.ChunkCorruptError, match="another dataset"):
            new[0] = 1
        assert new.verify().corrupt == ((0,),)
        assert new[2:].tolist() == [12, 13]
        new[:2] = [10, 11]
        assert new[...].tolist() == [10, 11, 12, 13]


def test_what_other_programs_write_is_read_and_looked_into(con, store):
    """Chunks without a mark, and an array without an id."""
    ds = con.create_dataset("x", data=np.arange(8), chunk_size=2)
    plain = store.get("x/c/1").data
    store.put("x/c/0", plain)
    assert ds[...].tolist() == [2, 3, 2, 3, 4, 5, 6, 7]
    assert requests(store, lambda: ds[2:4]) == {"get": 1}
    assert requests(store, lambda: ds[:4]) == {"get": 3}
    document = json.loads(store.get("x/zarr.json").data)
    del document["dosna"]
    store.put("x/zarr.json", json.dumps(document).encode())
    with pytest.raises(errors.StaleDatasetError):
        print(ds[:2])
    theirs = con["x"]
    assert requests(store, lambda: theirs[2:8]) == {"get": 4}
    assert theirs[2:8].tolist() == [2, 3, 4, 5, 6, 7]
    theirs[3:5] = -1
    assert theirs[...].tolist() == [2, 3, 2, -1, -1, 5, 6, 7]
    document["fill_value"] = 9
    store.put("x/zarr.json", json.dumps(document).encode())
    with pytest.raises(errors.StaleDatasetError):
        print(theirs[:2])


def test_parts_of_unchecked_chunks_are_read_by_their_range(con, store):
    data = np.arange(10_000, dtype="f4").reshape(100, 100)
    for checksum in (False, True):
        ds = con.create_dataset(f"{checksum}", data=data, chunk_size=(50, 100), checksum=checksum)
        sizes = []
        inner_get = store.inner.get

        def get(key, byte_range=None, sizes=sizes, inner_get=inner_get):
            blob = inner_get(key, byte_range)
            sizes.append(len(blob.data))
            return blob

        store.inner.get = get
        try:
            check(ds[60, 7], data[60, 7])
            check(ds[52:54, 3:5], data[52:54, 3:5])
            check(ds[[51, 53], [4, 9]], data[[51, 53], [4, 9]])
        finally:
            del store.inner.get
        assert sizes == ([20_004] * 3 if checksum else [4, 408, 824])


@st.composite
def boxes(draw):
    """Give the shape of a chunk, and slices and integers for each of its axes."""
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    key = []
    for length in shape:
        start = draw(st.integers(0, length - 1))
        stop = draw(st.integers(start, length))
        key.append(draw(st.sampled_from([start, slice(start, stop), slice(0, length)])))
    return shape, tuple(key)


@given(boxes(), st.integers(1, 40))
def test_the_runs_of_a_part_are_its_bytes_and_no_others(box, most):
    shape, key = box
    chunk = np.arange(np.prod(shape, dtype=int), dtype="i4").reshape(shape)
    metadata = DatasetMetadata(shape, chunk.dtype, np.int32(0), shape)
    runs = byte_runs(metadata, key, most)
    data = chunk.tobytes()
    fewest = byte_runs(metadata, key, 1 << 30)
    assert b"".join(data[first:last] for first, last in fewest) == np.array(chunk[key]).tobytes()
    assert all(a[1] < b[0] for a, b in pairwise(fewest))
    assert runs == (fewest if len(fewest) <= most else None)


@pytest.mark.parametrize("key", [(slice(0, 4, 2),), ([1, 2],), (np.array([0, 3]),)])
def test_parts_with_gaps_are_no_runs(key):
    metadata = DatasetMetadata((4,), np.dtype("i4"), np.int32(0), (4,))
    assert byte_runs(metadata, key, 100) is None


def test_a_range_beyond_the_end_is_corruption(con, store):
    ds = con.create_dataset("x", data=DATA, chunk_size=(8, 12), checksum=False)
    store.inner.put("x/c/0/0", DATA.tobytes()[:-8])
    for key in [(7, 11), (slice(6, 8), 11), ...]:
        with pytest.raises(errors.ChunkCorruptError, match=r"\(0, 0\) of dataset 'x'.*x/c/0/0"):
            ds[key]


# Shards


def test_writers_in_one_shard_lose_nothing(con, connect):
    con.create_dataset("x", shape=(16,), dtype="i8", chunk_size=2, shards=16)

    def write(number):
        with connect() as own:
            ds = own["x"]
            for value in range(1, 26):
                ds[4 * number + value % 4] = value
                ds[4 * number : 4 * number + 4] = value
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(4)))
    check(con["x"][...], np.full(16, 25))


def test_a_shard_that_changes_is_read_with_its_own_index(con, connect):
    ds = con.create_dataset(
        "x", data=np.zeros(64, "i8"), chunk_size=8, shards=64, compression="gzip"
    )
    stop = threading.Event()

    def write():
        rng = np.random.default_rng(0)
        with connect() as own:
            target = own["x"]
            while not stop.is_set():
                value = int(rng.integers(100))
                target[...] = np.where(np.arange(64) % 8 < value % 8, value, -1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            part = ds[16:24]
            assert len(set(part.tolist())) <= 2
    finally:
        stop.set()
        writer.join()


def test_chunks_of_shards_are_absent_until_they_are_written(con):
    ds = con.create_dataset("x", shape=(10, 10), chunk_size=(2, 2), shards=(6, 6), fillvalue=7)
    ds[3, 3] = 1
    assert ds.written_chunks() == [(1, 1)]
    assert not ds.has_chunk((0, 0))
    check(ds[...], np.where(np.eye(10) * (np.arange(10) == 3), 1, 7).astype("f4"))
    ds[:6, :6] = 2
    assert len(ds.written_chunks()) == 9
    assert ds.del_chunk((1, 1))
    assert not ds.del_chunk((1, 1))
    assert np.all(ds[2:4, 2:4] == 7)
    found = ds.verify()
    assert (len(found.ok), len(found.never_written)) == (8, 17)


# Creating and deleting, when it does not go to its end


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(StoreConnection, "lease", 0.4)
    monkeypatch.setattr(StoreConnection, "settle", 0.02)


def names(store):
    return sorted(key for key in store.list("") if not key.endswith("zarr.json"))


@pytest.mark.parametrize("fault", ["error", "lost"])
def test_a_deletion_that_fails_is_finished_by_who_creates(connect, store, fault, short_lease):
    for at in range(1, 30):
        name = f"x{at}"
        with connect() as con:
            con.create_dataset(name, data=DATA, chunk_size=(4, 4))
            faulty = FaultyStore(store, lambda number, *_, at=at: fault if number == at else None)
            con.instance._store = faulty
            try:
                con.del_dataset(name)
                failed = False
            except errors.StorageError:
                failed = True
            con.instance._store = store
            if name in con:
                check(con[name][...], DATA)
                con.del_dataset(name)
            made = con.create_dataset(name, shape=(8, 12), chunk_size=(4, 4))
            assert made.written_chunks() == []
            check(made[...], np.zeros((8, 12), "f4"))
            con.del_dataset(name)
        if not failed:
            break
    assert at > 8
    assert names(store) == []


def test_who_died_while_deleting_is_outlived(con, store, short_lease):
    con.create_dataset("x", data=DATA, chunk_size=(4, 4))
    died = FaultyStore(store, lambda number, kind, key: SystemExit() if kind == "delete" else None)
    con.instance._store = died
    died.put = lambda *args: store.put(*args) if 'abandoned": true' not in str(args) else None
    with pytest.raises(SystemExit):
        con.del_dataset("x")
    con.instance._store = store
    assert json.loads(store.get("x/zarr.json").data)["node_type"] == "dosna.deleted"
    assert "x" not in con
    with pytest.raises(errors.DatasetNotFoundError):
        con["x"]
    made = con.create_dataset("x", shape=4)
    assert made.written_chunks() == []


DELETE = """
import sys
import dosna as dn
import dosna.testing.doubles
with dn.Connection(sys.argv[1], backend="folder", engine="cpu", seconds=0.2) as con:
    con.del_dataset("x")
"""


@pytest.mark.parametrize("finish", ["create", "delete"])
@pytest.mark.slow
def test_a_deletion_whose_process_was_killed_here_is_finished_at_once(
    tmp_path, monkeypatch, finish
):
    monkeypatch.setattr(StoreConnection, "lease", 1000.0)
    monkeypatch.setattr(StoreConnection, "settle", 0.1)
    store = FolderStore(tmp_path)
    with dn.Connection(str(tmp_path), backend="folder", engine="cpu") as con:
        con.create_dataset("x", data=np.zeros(100), chunk_size=1)
        with subprocess.Popen([sys.executable, "-c", DELETE, str(tmp_path)]) as deleting:
            while len(list(store.list("x/c/"))) == 100:
                time.sleep(0.01)
            deleting.kill()  # and not yet waited for: it is a zombie
            left = len(list(store.list("x/c/")))
            assert "x" not in con
            if finish == "create":
                assert con.create_dataset("x", shape=4, dtype="f8").written_chunks() == []
            else:
                con.del_dataset("x")
                assert list(store.list("x/")) == []
    assert 0 < left < 100


def test_who_waits_for_a_sign_of_life_says_so(con, store, monkeypatch):
    monkeypatch.setattr(StoreConnection, "lease", 0.2)
    monkeypatch.setattr("dosna.backends.stores.deletion._SILENT", 0.1)
    con.create_dataset("x", data=DATA, chunk_size=(4, 4))
    mark = {
        "zarr_format": 3,
        "node_type": "dosna.deleted",
        "token": "theirs",
        "process": {"machine": "another", "host": "node7", "pid": 1, "began": "2"},
        "abandoned": False,
    }
    store.put("x/zarr.json", json.dumps(mark).encode())
    with pytest.warns(UserWarning, match="process 1 on node7"):
        made = con.create_dataset("x", shape=4)
    assert made.written_chunks() == []


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),
        ({"began": "1"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"machine": "another", "pid": 2**22 + 1}, False),
        ({"machine": None}, False),
    ],
)
def test_only_processes_of_this_machine_are_known_to_be_dead(change, dead):
    parent = processes.describe(os.getppid())
    assert deletion._has_ended({"token": "theirs", "process": {**parent, **change}}) is dead


def test_a_process_knows_its_own_deletions(monkeypatch):
    mark = {"token": "mine", "process": processes.describe(os.getpid())}
    assert deletion._has_ended(mark)
    monkeypatch.setattr(deletion, "_under_way", {"mine"})
    assert not deletion._has_ended(mark)


def test_nothing_is_deleted_after_its_time(store):
    for key in ("a", "b", "c"):
        store.put(key, b"")
    with pytest.raises(errors.StoreTimeoutError, match="'a'"):
        store.delete_many(["a", "b"], until=time.monotonic() - 1)
    store.delete_many(["a", "b"], until=time.monotonic() + 60)
    assert list(store.list("")) == ["c"]


def test_a_deletion_that_lives_is_not_disturbed(con, connect, store, monkeypatch):
    seconds = patience(0.4)
    monkeypatch.setattr(StoreConnection, "lease", 4 * seconds)
    monkeypatch.setattr(StoreConnection, "settle", 0.02)
    monkeypatch.setattr("dosna.backends.stores.deletion._SILENT", HANG)
    con.create_dataset("x", data=np.zeros(5), chunk_size=1)
    slow = FaultyStore(store, lambda number, kind, key: seconds if kind == "delete" else None)
    con.instance._store = slow
    deleting = threading.Thread(target=con.del_dataset, args=("x",))
    deleting.start()
    with connect() as other:
        while "x" in other:
            pass
        with pytest.raises(errors.DatasetExistsError, match="being deleted"):
            other.create_dataset("x", shape=3)
        deleting.join()
        made = other.create_dataset("x", data=np.ones(3))
        check(made[...], np.ones(3))


def test_who_was_taken_for_dead_deletes_nothing_more(con, connect, store, short_lease):
    con.create_dataset("x", data=np.zeros(6), chunk_size=1)
    asleep, awake = threading.Event(), threading.Event()

    def pause(number, kind, key):
        if kind == "delete" and not asleep.is_set():
            asleep.set()
            awake.wait(HANG)

    con.instance._store = FaultyStore(store, pause)
    caught = []

    def delete():
        try:
            con.del_dataset("x")
        except errors.StorageError as error:
            caught.append(str(error))

    sleeper = threading.Thread(target=delete)
    sleeper.start()
    asleep.wait(HANG)
    with connect() as other:
        made = other.create_dataset("x", shape=8, dtype="f8", chunk_size=1)
        made[2:] = 5
        awake.set()
        sleeper.join()
        assert "sign of life" in caught[0]
        assert made.written_chunks() == [(n,) for n in range(2, 8)]
        check(other["x"][...], np.array([0, 0, 5, 5, 5, 5, 5, 5.0]))


def test_groups_are_described_and_may_become_datasets(con, store):
    con.create_dataset("a/b/c", shape=3)
    for group in ("", "a/", "a/b/"):
        assert json.loads(store.get(f"{group}zarr.json").data)["node_type"] == "group"
    assert list(con) == ["a/b/c"]
    assert "a/b" not in con
    with pytest.raises(errors.DatasetNotFoundError):
        con["a/b"]
    with pytest.raises(errors.DatasetNotFoundError):
        con.del_dataset("a/b")
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("a/b", shape=3)
    con.del_dataset("a/b/c")
    con.create_dataset("a/b", data=np.ones(3))
    assert list(con) == ["a/b"]


def test_a_broken_document_is_seen_and_never_deleted(con, store):
    store.put("x/zarr.json", b"{")
    assert "x" in con
    assert list(con) == ["x"]
    for use in [lambda: con["x"], lambda: con.del_dataset("x")]:
        with pytest.raises(errors.FormatError, match=r"x/zarr\.json"):
            use()
    with pytest.raises(errors.DatasetExistsError):
        con.create_dataset("x", shape=3)
    assert store.get("x/zarr.json").data == b"{"


@pytest.mark.parametrize(
    "keep",
    [
        lambda raw: raw,
        lambda raw: raw[3:5],
        lambda raw: raw.view([("a", "i4")])[1],
        memoryview,
        lambda raw: raw[:8].view("f8").reshape(()),
    ],
)
def test_scratch_memory_that_somebody_keeps_is_not_used_again(keep):
    before = scratch.raw(80)
    before[...] = 1
    kept, place = keep(before), before.__array_interface__["data"][0]
    image = bytes(memoryview(before))
    again = scratch.raw(80)
    again[...] = 2
    assert bytes(memoryview(before)) == image
    del before, kept, again
    once = scratch.raw(80).__array_interface__["data"][0]
    assert once == scratch.raw(80).__array_interface__["data"][0], "free memory is used again"
    assert once != place


@pytest.mark.parametrize("process", [None, "7", {}, {"machine": None}, {"pid": "7"}])
@pytest.mark.parametrize("then", ["gone", "another", "the same"])
def test_a_mark_that_says_little_is_waited_for(store, connect, monkeypatch, process, then):
    """As others write it, or earlier versions did."""
    monkeypatch.setattr(StoreConnection, "lease", 0.2)
    with connect() as con:
        con.create_dataset("x", data=DATA, chunk_size=(4, 4))
        mark = {"zarr_format": 3, "node_type": "dosna.deleted", "process": process}
        store.put("x/zarr.json", json.dumps(mark).encode())
        asked = []

        def look(key, byte_range=None, get=store.get):
            asked.append(key)
            if key == "x/zarr.json" and asked.count(key) == 3:
                if then == "gone":
                    for left in list(store.list("x/")):
                        store.delete(left)
                elif then == "another":
                    store.put(key, json.dumps({**mark, "more": 1}).encode())
            return get(key, byte_range)

        monkeypatch.setattr(store, "get", look)
        for _ in range(20):
            try:
                made = con.create_dataset("x", shape=4)
                break
            except errors.DatasetExistsError:
                continue
        assert made[...].tolist() == [0, 0, 0, 0]
