"""The backend sage over a stand-in for Motr; sh run_tests.sh --backend sage … takes a real one."""

from __future__ import annotations

import math
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits import EngineMatters
from motr_stand_in import Cluster, MotrStandIn
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.backends import Backend
from dosna.backends import registry as backends
from dosna.backends.sage import store as sage_store
from dosna.backends.sage.connection import SageConnection
from dosna.backends.sage.records import ObjectId
from dosna.backends.sage.store import SageStore
from dosna.backends.stores import watching
from dosna.backends.stores.connection import ABSENT, VersionConflict
from dosna.core.metadata import new_metadata
from dosna.testing import BackendTests, StoreTests

CHUNK = "entry/tomo/c/0/1"
DOCUMENT = "entry/tomo/zarr.json"


class StandInConnection(SageConnection):
    """A connection to a stand-in of this process, by the name of its configuration file."""

    shared_between_processes = False
    clusters: ClassVar = {}

    def open_motr(self):
        return MotrStandIn(self.clusters.setdefault(self.conffile, Cluster()))


backends.register(Backend("sage-stand-in", StandInConnection, "a stand-in, for tests"))


class Killed(BaseException):
    """The process ends here."""


class Recorder(MotrStandIn):
    """A client that notes its requests, and does something before one of them."""

    def __init__(self, cluster, at=None, act=None):
        super().__init__(cluster)
        self.log = []
        self.at, self.act = at, act

    def request(self, kind):
        if len(self.log) == self.at:
            self.at = None
            self.act()
        self.log.append(kind)


def store_of(cluster, **options):
    return SageStore(MotrStandIn(cluster, **options), "trial")


def kill():
    raise Killed


class TestStore(StoreTests):
    @pytest.fixture
    def store(self):
        return store_of(Cluster())


class OnSage:
    engine: ClassVar = ("cpu", {})
    examples = 5

    @pytest.fixture
    def make_connection(self):
        name, options = self.engine
        if name == "joblib":
            require("joblib")
        file = secrets.token_hex(8)
        return lambda: dn.Connection(
            "trial", backend="sage-stand-in", engine=name, engine_kw=options, conffile=file
        )


@pytest.mark.parametrize("recheck", ["always", "open"])
def test_a_cache_notices_changes_and_deletion(recheck):
    file = secrets.token_hex(8)
    options = {"backend": "sage-stand-in", "engine": "cpu", "conffile": file}
    with dn.Connection("trial", cache="1 MiB", recheck=recheck, **options) as con:
        old = con.create_dataset("a", data=np.arange(8), chunk_size=4)
        other = con["a"]
        assert other[...].tolist() == list(range(8))
        old[2:6] = 0
        assert other[...].tolist() == [0, 1, 0, 0, 0, 0, 6, 7]
        con.del_dataset("a")
        with pytest.raises(errors.DatasetNotFoundError):
            other[...]
        new = con.create_dataset("a", data=np.arange(8), chunk_size=4)
        assert new[...].tolist() == list(range(8))
        with pytest.raises(errors.StaleDatasetError):
            other[...]


class TestSage(OnSage, BackendTests):
    pass


class TestSageThreads(OnSage, EngineMatters):
    engine = ("joblib", {"njobs": 3})


@pytest.fixture
def con():
    with dn.Connection("trial", backend="sage-stand-in", conffile=secrets.token_hex(8)) as con:
        yield con


def cluster_of(con):
    return con.instance.store.motr.cluster


# -- what lies in Motr --------------------------------------------------------------------


def test_a_chunk_is_an_object_of_whole_blocks(con):
    data = np.arange(30_000, dtype="u2").reshape(3, 10_000)
    con.create_dataset("entry/tomo", data=data, chunk_size=(1, 10_000), checksum=False)
    objects = cluster_of(con).objects
    assert [len(data) for data in objects.values()] == [20_480] * 3
    ids = {oid.dataset for oid in objects}
    assert len(ids) == 1
    assert 0 < ids.pop() < 2**32
    assert sorted(data[:20_000] for data in objects.values()) == sorted(
        row.tobytes() for row in data
    )
    assert {data[20_000:] for data in objects.values()} == {bytes(480)}


def test_metadata_are_in_the_catalogue_unless_they_are_large(con):
    ds = con.create_dataset("tomo", (4,), chunk_size=(2,))
    ds.attrs["short"] = "x" * 1000
    assert cluster_of(con).objects == {}
    ds.attrs["long"] = "x" * sage_store.MOST_IN_ENTRY
    assert len(cluster_of(con).objects) == 1
    assert dict(con["tomo"].attrs) == {"short": "x" * 1000, "long": "x" * sage_store.MOST_IN_ENTRY}
    del ds.attrs["long"]
    assert cluster_of(con).objects == {}


def test_deleting_a_dataset_leaves_nothing_of_it(con):
    con.create_dataset("kept", data=np.ones(5), chunk_size=2)
    con.disconnect()
    con.connect()
    objects, before = dict(cluster_of(con).objects), cluster_of(con).alive
    ds = con.create_dataset("gone", data=np.ones((9, 9)), chunk_size=(2, 2))
    ds[1:4, 2] = 7
    ds.del_chunk((0, 0))
    ds.attrs["long"] = "x" * 20_000
    ds.delete()
    con.disconnect()
    con.connect()
    assert cluster_of(con).objects == objects
    assert cluster_of(con).alive == before


def test_a_part_is_read_by_the_blocks_that_it_touches():
    client = Recorder(Cluster())
    store = SageStore(client, "trial")
    reads = []
    read = client.read
    client.read = lambda oid, start, stop: reads.append((start, stop)) or read(oid, start, stop)
    data = secrets.token_bytes(20_000)
    store.put(CHUNK, data)
    for start, stop in [(0, 1), (4095, 4097), (5000, 6000), (19_999, 30_000), (0, 20_000)]:
        assert bytes(store.get(CHUNK, (start, stop)).data) == data[start:stop]
    assert bytes(store.get(CHUNK, (-5, None)).data) == data[-5:]
    assert reads == [
        (0, 4096),
        (0, 8192),
        (4096, 8192),
        (16_384, 20_480),
        (0, 20_480),
        (16_384, 20_480),
    ]


def test_ids_are_never_given_twice(monkeypatch):
    cluster = Cluster()
    draws = iter([4, 4, 4, 2**32 - 2])
    monkeypatch.setattr(sage_store.secrets, "randbelow", lambda most: next(draws))
    for name in ("a", "b"):
        store_of(cluster).put(f"{name}/c/0", b"data of " + name.encode())
    assert {oid.dataset for oid in cluster.objects} == {5, 2**32 - 1}


def test_an_id_that_an_object_has_is_not_taken(monkeypatch):
    cluster = Cluster()
    store = store_of(cluster)
    draws = iter([7, 7, 8])
    monkeypatch.setattr(sage_store.secrets, "randbits", lambda bits: next(draws))
    store.put("a/c/0", b"first")
    store.put("a/c/1", b"second")
    assert sorted(oid.number for oid in cluster.objects) == [7, 8]
    assert bytes(store.get("a/c/0").data) == b"first"


def test_connections_of_other_names_do_not_meet():
    cluster = Cluster()
    one, other = (SageStore(MotrStandIn(cluster), name) for name in ("scans", "scans2"))
    one.put(CHUNK, b"one")
    assert other.get(CHUNK) is None
    assert list(other.list("")) == []
    other.put(CHUNK, b"other")
    assert bytes(one.get(CHUNK).data) == b"one"


def test_a_lost_object_is_an_error_and_no_fill(con):
    ds = con.create_dataset("tomo", data=np.ones(4), chunk_size=2)
    cluster_of(con).objects.clear()
    with pytest.raises(errors.StorageError, match="was lost"):
        ds[:]


def test_names_beyond_what_the_index_takes_are_refused(con):
    with pytest.raises(errors.DatasetNameError, match="bytes"):
        con.create_dataset("x" * 1000, (2,))


def test_guarantees():
    store = SageStore(MotrStandIn(), "trial")
    assert store.shared_between_processes
    assert store.conditional_puts
    con = SageConnection("trial", secrets.token_hex(8))
    con.open_motr = MotrStandIn
    con.connect()
    ds = con.create_dataset("tomo", new_metadata((4,), "i4", 0, (2,)))
    assert ds.guarantees.partial_writes == "processes"
    assert "does not replicate" in ds.guarantees.notes[0]


@pytest.mark.parametrize(
    "options",
    [{"prefix_conffile": "yes"}, *({"timeout": t} for t in (0, "x", math.nan)), {"mode": "w"}],
)
def test_options_are_checked(options):
    with pytest.raises(errors.ConfigurationError):
        dn.Connection("trial", backend="sage", **options)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_names_of_connections_are_checked(name):
    with pytest.raises(errors.ConfigurationError):
        dn.Connection(name, backend="sage")


def test_requests_of_each_operation(con, monkeypatch):
    """The figures of docs/sage.md, as requests of the catalogue and calls for objects."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 60)
    ds = con.create_dataset("entry/tomo", (4, 6), "i4", chunk_size=(2, 3))
    motr = con.instance.store.motr
    log = []
    motr.request = log.append

    def count(func):
        log.clear()
        func()
        objects = [kind for kind in log if kind in ("create", "read", "remove")]
        return len(log) - len(objects), sorted(objects)

    def write(key, value):
        return lambda: ds.__setitem__(key, value)

    assert count(lambda: con["entry/tomo"]) == (1, [])
    assert count(write(..., 1)) == (1 + 4 * 5, ["create"] * 4)
    assert count(write(..., 2)) == (1 + 4 * 6, ["create"] * 4 + ["remove"] * 4)
    assert count(lambda: ds[...]) == (4 * 2, ["read"] * 4)
    assert count(write((0, 0), 3)) == (8, ["create", "read", "remove"])
    assert count(lambda: ds.has_chunk((0, 0))) == (2, ["read"])
    assert count(lambda: ds.attrs.update(unit="mm")) == (8, [])
    assert count(lambda: ds.del_chunk((0, 0))) == (7, ["remove"])
    assert count(lambda: con.instance.store.get("entry/tomo/c/0/0")) == (3, [])


# -- others at the same time --------------------------------------------------------------

ACTIONS = st.lists(
    st.sampled_from(["put", "add", "add", "delete", "drop", "drop and put"]), max_size=5
)


def act(store, action, log):
    """Change a chunk as another process would, and note what it then is."""
    if action == "put":
        store.put(CHUNK, b"p" * 5000)
        log.append(b"p" * 5000)
    elif action == "add":
        blob = store.get(CHUNK)
        data = (b"" if blob is None else bytes(blob.data)) + b"+"
        store.put(CHUNK, data, ABSENT if blob is None else blob.version)
        log.append(data)
    elif action == "delete":
        store.delete(CHUNK)
        log.append(None)
    else:
        store.delete(DOCUMENT)
        store.put(DOCUMENT, b"{}")
        log.append(None)
        if action == "drop and put":
            act(store, "put", log)


@given(before=ACTIONS, during=ACTIONS, later=ACTIONS, at=st.integers(0, 12), gap=st.integers(1, 6))
def test_a_conditional_put_counts_only_if_nothing_changed(before, during, later, at, gap):
    """Others change a chunk at two moments of a put, which then fails or was before them."""
    cluster, log = Cluster(), [None]
    other = store_of(cluster)
    other.put(DOCUMENT, b"{}")
    for action in before:
        act(other, action, log)
    client = Recorder(cluster)
    store = SageStore(client, "trial")
    found = store.get(CHUNK)
    version = ABSENT if found is None else found.version
    client.log.clear()
    happened = len(log)
    stale = landed = False

    def meanwhile(actions, after):
        nonlocal stale, landed
        seen = other.get(CHUNK)
        landed = landed or (seen is not None and b"mine" in bytes(seen.data))
        for action in actions:
            act(other, action, log)
        now = other.get(CHUNK)
        if not landed:
            stale = (ABSENT if now is None else now.version) != version
        if after is not None:
            client.at, client.act = len(client.log) + gap, after

    client.at = at
    client.act = lambda: meanwhile(during, lambda: meanwhile(later, None))
    try:
        store.put(CHUNK, b"mine" * 2000, version)
        done = True
    except VersionConflict:
        done = False
    changes = log[happened:]
    now = other.get(CHUNK)
    now = None if now is None else bytes(now.data)
    if done:
        assert not stale
        if not changes:
            assert now == b"mine" * 2000
    else:
        assert changes
        assert now == changes[-1]
        assert b"mine" not in (now or b"")
    other.delete(DOCUMENT)
    assert [key for key in cluster.alive if key[:1] in b"kdn"] == []
    assert cluster.objects == {}


@pytest.mark.parametrize("ahead", [0.0, 0.2, -0.2, 100.0])
def test_many_writers_whose_clocks_differ_lose_nothing(ahead):
    cluster = Cluster()

    def add(number):
        client = MotrStandIn(cluster, ahead=ahead * number)
        # A real request lasts longer than it takes the interpreter to change threads.
        client.request = lambda kind: time.sleep(0.0002)
        store = SageStore(client, "trial")
        added = 0
        while added < 25:
            blob = store.get(CHUNK)
            data = b"" if blob is None else bytes(blob.data)
            try:
                store.put(CHUNK, data + b"%d" % number, ABSENT if blob is None else blob.version)
            except VersionConflict:
                continue
            added += 1

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert sorted(store_of(cluster).get(CHUNK).data) == sorted(b"0123" * 25)


def test_a_client_behind_the_clock_of_another_waits_for_it():
    cluster = Cluster()
    ahead, behind = store_of(cluster, ahead=0.3), store_of(cluster)
    ahead.put(DOCUMENT, b"{}")
    ahead.put(CHUNK, b"data")
    assert behind.delete(DOCUMENT)
    assert behind.get(CHUNK) is None
    assert ahead.get(DOCUMENT) is None
    assert cluster.objects == {}
    behind.put(DOCUMENT, b"{}")
    ahead.delete(DOCUMENT)
    behind.put(DOCUMENT, b"[]")
    assert bytes(ahead.get(DOCUMENT).data) == b"[]"


def test_entries_of_a_client_ahead_are_deleted_with_the_dataset():
    cluster = Cluster()
    behind = store_of(cluster)
    behind.put(DOCUMENT, b"{}")
    store_of(cluster, ahead=0.3).put(CHUNK, b"data")
    assert behind.delete(DOCUMENT)
    assert [key for key in cluster.alive if key[:1] in b"knd"] == []


def test_clocks_that_differ_by_much_are_an_error(monkeypatch):
    monkeypatch.setattr(SageStore, "patience", 0.05)
    cluster = Cluster()
    store_of(cluster, ahead=60).put(DOCUMENT, b"{}")
    with pytest.raises(errors.StorageError, match="clocks"):
        store_of(cluster).delete(DOCUMENT)
    assert bytes(store_of(cluster).get(DOCUMENT).data) == b"{}"


def test_a_reader_never_takes_an_object_that_was_replaced_for_lost():
    cluster = Cluster()
    writer = store_of(cluster)
    writer.put(CHUNK, b"old" * 2000)
    for at in range(4):
        reader = SageStore(
            Recorder(cluster, at, lambda: writer.put(CHUNK, b"new" * 2000)), "trial"
        )
        assert bytes(reader.get(CHUNK).data) in (b"old" * 2000, b"new" * 2000)


# -- a process that ends ------------------------------------------------------------------


def requests_of(prepare, change):
    """Count the requests of a change."""
    cluster = Cluster()
    prepare(store_of(cluster))
    client = Recorder(cluster)
    change(SageStore(client, "trial"))
    return len(client.log)


def prepare(store):
    store.put(DOCUMENT, b"{}")
    store.put("entry/tomo/c/0/0", b"another")
    store.put(CHUNK, b"old" * 3000)


CHANGES = {
    "replace": (lambda store: store.put(CHUNK, b"new" * 3000), b"new" * 3000),
    "delete": (lambda store: store.delete(CHUNK), None),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_process_killed_anywhere_leaves_old_or_new(name):
    change, new = CHANGES[name]
    seen = set()
    for at in range(requests_of(prepare, change)):
        cluster = Cluster()
        prepare(store_of(cluster))
        with pytest.raises(Killed):
            change(SageStore(Recorder(cluster, at, kill), "trial"))
        other = store_of(cluster)
        blob = other.get(CHUNK)
        data = None if blob is None else bytes(blob.data)
        assert data in (b"old" * 3000, new)
        seen.add(data)
        assert list(other.list("entry/tomo/c/0/1")) == ([] if data is None else [CHUNK])
        # Whoever comes next is not in its way, and finds what it left.
        other.put(CHUNK, b"next", ABSENT if blob is None else blob.version)
        assert bytes(other.get(CHUNK).data) == b"next"
        assert bytes(other.get("entry/tomo/c/0/0").data) == b"another"
        other.delete(DOCUMENT)
        other.close()
        assert cluster.objects == {}
        assert cluster.alive == []
    assert seen == {b"old" * 3000, new}


def test_a_process_killed_while_it_deletes_a_dataset_leaves_it_to_be_deleted():
    def change(store):
        store.delete(DOCUMENT)

    finished = []
    for at in range(requests_of(prepare, change)):
        cluster = Cluster()
        prepare(store_of(cluster))
        with pytest.raises(Killed):
            change(SageStore(Recorder(cluster, at, kill), "trial"))
        other = store_of(cluster)
        there = other.get(DOCUMENT)
        finished.append(there is None)
        other.delete(DOCUMENT)
        assert cluster.objects == {}
        assert [key for key in cluster.alive if key[:1] == b"n"] == []
        other.put(DOCUMENT, b"{}", ABSENT)
        assert list(other.list("")) == [DOCUMENT]
    assert finished == sorted(finished)
    assert [a for a, b in pairwise(finished) if a != b] == [False]


@pytest.mark.parametrize(
    "error", [errors.StorageError, errors.OutcomeUnknown, errors.ConnectionError]
)
def test_a_request_that_fails_leaves_old_or_new_or_says_that_it_does_not_know(error):
    def fail():
        raise error("told to fail")

    change, new = CHANGES["replace"]
    outcomes = set()
    for at in range(requests_of(prepare, change)):
        cluster = Cluster()
        prepare(store_of(cluster))
        store = SageStore(Recorder(cluster, at, fail), "trial")
        try:
            change(store)
            outcome = "done"
        except errors.OutcomeUnknown:
            outcome = "unknown"
        except (errors.StorageError, errors.ConnectionError):
            outcome = "failed"
        outcomes.add(outcome)
        data = bytes(store_of(cluster).get(CHUNK).data)
        assert data in {"done": [new], "failed": [b"old" * 3000]}.get(
            outcome, [new, b"old" * 3000]
        )
        store.delete(DOCUMENT)
        store.close()
        assert cluster.objects == {}
        assert cluster.alive == []
    assert outcomes == {"done", "unknown", "failed"}


def test_object_ids():
    with pytest.raises(AssertionError):
        MotrStandIn().create(ObjectId(2**32, 1), bytes(4096))


def test_writers_beside_deletions_leave_nothing():
    cluster = Cluster()
    one, other = store_of(cluster), store_of(cluster)
    one.put("d/zarr.json", b"{}")
    ends = threading.Event()

    def write(store, number):
        while not ends.is_set():
            # Whether it counts is not known where many others deleted what it changed.
            with suppress(errors.DatasetNotFoundError, errors.OutcomeUnknown):
                store.put(f"d/c/{number % 3}", b"x" * 100)
                number += 1

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, [one, other][n % 2], n) for n in range(4)]
        try:
            for _ in range(20):
                time.sleep(0.02)
                one.delete("d/zarr.json")
                other.put("d/zarr.json", b"{}")
        finally:
            ends.set()
        for writer in writers:
            writer.result()
    one.delete("d/zarr.json")
    one.close()
    other.close()
    assert (cluster.objects, cluster.alive) == ({}, [])


def test_a_write_that_ends_with_the_deletion_of_its_dataset_leaves_no_note(monkeypatch):
    cluster = Cluster()
    store = store_of(cluster)
    prepare(store)
    begun, swept = threading.Event(), threading.Event()
    write, sweep = store._write, store._sweep

    def late_write(*arguments):
        begun.set()
        assert swept.wait(HANG)
        return write(*arguments)

    with ThreadPoolExecutor(1) as pool:

        def last_sweep(*arguments, **options):
            count = sweep(*arguments, **options)
            if not count:
                swept.set()
                with pytest.raises(VersionConflict):
                    late.result(HANG)
            return count

        monkeypatch.setattr(store, "_write", late_write)
        monkeypatch.setattr(store, "_sweep", last_sweep)
        late = pool.submit(store.put, "entry/tomo/c/9", b"x" * 100, ABSENT)
        assert begun.wait(HANG)
        assert store.delete(DOCUMENT)
    store.close()
    assert (cluster.objects, cluster.alive) == ({}, [])


def test_reading_makes_no_catalogue():
    cluster = Cluster()
    for mode in "ra":
        motr = Recorder(cluster)
        con = SageConnection("trial", secrets.token_hex(8), mode=mode)
        con.open_motr = lambda motr=motr: motr
        con.connect()
        assert con.dataset_names() == []
        assert ("make_catalogue" in motr.log) == (mode == "a")
        con.disconnect()
