"""Queries of trees on Ceph: with the object class and without, and while an OSD dies."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, require, wait_until

import dosna as dn
from dosna import errors
from dosna.query import index

ak, uproot = require("awkward"), require("uproot")
require("rados")

from test_ceph_class import connection, counting  # noqa: E402

from dosna.backends.ceph.store import CephStore  # noqa: E402
from dosna.columns import chunking  # noqa: E402
from dosna.query import planning  # noqa: E402
from dosna.query.scan import Scan  # noqa: E402
from dosna.skyhook import SkyhookDM  # noqa: E402

N = 20_000
CHUNK = 1500
RANDOM = np.random.default_rng(3)
COUNTS = RANDOM.integers(0, 4, N)
EVENTS = {
    "run": np.repeat(np.arange(20), N // 20).astype("i4"),
    "nMuon": COUNTS.astype("u4"),
    "MET": np.where(RANDOM.random(N) < 0.01, np.nan, RANDOM.exponential(20, N)).astype("f4"),
    "weight": RANDOM.normal(size=N),
    "trigger": RANDOM.random(N) < 0.02,
    "Muon_pt": ak.unflatten(RANDOM.exponential(30, COUNTS.sum()).astype("f4"), COUNTS),
    "vertex": RANDOM.random((N, 3)).astype("f4"),
    "name": ak.Array([f"event {n}" for n in range(N)]),
}
QUERIES = [
    ("MET > 60", ["weight", "run"]),
    ("MET > 60", ["MET", "Muon_pt"]),
    ("MET > 60 && nMuon >= 2", ["MET", "vertex"]),
    ("trigger && abs(weight) < 1.5", ["run", "name"]),
    ("!trigger", ["MET"]),
    ("nMuon in (0, 3) && any(Muon_pt > 50)", ["Muon_pt", "nMuon"]),
    ("5 <= run < 7 && MET > weight", ["vertex", "double = 2 * MET"]),
    ("MET != MET", ["run"]),
    ("run >= 0", ["run", "MET", "weight"]),
    ("run > 100", ["run", "Muon_pt"]),
    ("MET > 20 || run == 3", ["weight"]),
    ("any(Muon_pt > 100)", ["Muon_pt", "run"]),
    ("any(abs(Muon_pt) > 80 || Muon_pt < 1) && MET > 5", ["count(Muon_pt)", "weight"]),
    ("all(Muon_pt > 10) && nMuon > 0", ["Muon_pt", "nMuon"]),
    ("all(Muon_pt < 0)", ["run"]),
    ("any(Muon_pt > 1e9)", ["Muon_pt"]),
]


@pytest.fixture(params=["classed", "ceph"])
def con(request):
    name = f"query-{secrets.token_hex(4)}"
    with connection(request.getfixturevalue(request.param)) as con:
        con.test_tree, con.test_class = name, request.param == "classed"
        put_tree(con, name, EVENTS, CHUNK, chunk_entries=CHUNK)
        yield con
        for made in [made for made in con if made.startswith(name)]:
            con.del_dataset(made)


@pytest.fixture(scope="module")
def in_memory():
    with dn.Connection(f"{secrets.token_hex(6)}/query-pushdown", backend="ram") as con:
        put_tree(con, "Events", EVENTS, CHUNK, chunk_entries=CHUNK)
        yield con


@pytest.mark.slow
def test_results_are_those_of_other_backends(con, in_memory):
    for where, columns in QUERIES:
        for part in ({}, {"entry_start": 700, "entry_stop": 12_345}):
            query = con.query(con.test_tree, where, columns, **part)
            expected = in_memory.query("Events", where, columns, **part)
            assert query.to_arrow().schema == expected.to_arrow().schema, where
            assert query.count() == expected.count()
            found = query.to_awkward()
            assert ak.array_equal(found, expected.to_awkward(), equal_nan=True), where


@pytest.mark.slow
def test_where_a_condition_is_computed(con, monkeypatch):
    query = con.query(con.test_tree, "MET > 100 && weight > run", ["run", "weight"])
    places = [place for _, place, _ in query.explain().conditions]
    assert places[0] == ("computed by the store" if con.test_class else "computed here")
    assert places[1] == "computed here"
    with counting(monkeypatch) as seen:
        table = query.to_arrow()
    assert 0 < table.num_rows < 1000
    if con.test_class:
        assert set(seen["called"]) == {"mask", "take"}
        assert seen["read"] == []
        assert seen["bytes"] < 0.05 * N * 4 * 3
    else:
        assert set(seen["called"]) <= {"version"}
        assert len(seen["read"]) > 0


@pytest.mark.slow
def test_elements_of_lists_are_tested_where_they_are(con, monkeypatch):
    query = con.query(con.test_tree, "any(Muon_pt > 200)", ["run"])
    (condition,) = query.explain().conditions
    assert condition[1] == ("computed by the store" if con.test_class else "computed here")
    with counting(monkeypatch) as seen:
        count = query.count()
    assert count == np.count_nonzero(ak.any(EVENTS["Muon_pt"] > 200, axis=1)) > 0
    if con.test_class:
        assert "mask" in seen["called"]
        assert not [key for key in seen["read"] if "content" in key]


@pytest.mark.slow
@pytest.mark.parametrize("memory_limit", [None, "1 GiB"])
def test_one_look_at_each_description_checks_all_ranges(con, monkeypatch, memory_limit):
    """An object of Ceph does not tell to which dataset it belongs."""
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    query = con.query(con.test_tree, "MET > 60", ["weight", "run"], memory_limit=memory_limit)
    expected, ranges = query.to_numpy(), query.explain().ranges
    looks, get = Counter(), CephStore.get

    def counted(self, key, byte_range=None):
        looks[key] += "/c/" not in key
        return get(self, key, byte_range)

    with monkeypatch.context() as patched:
        patched.setattr(CephStore, "get", counted)
        query.open()
        opened, looks = looks, Counter()
        found = query.to_numpy()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert ranges == -(-N // CHUNK)
    if con.test_class:
        assert sum((looks - opened).values()) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("where", ["MET > 60", None])
def test_a_column_that_is_replaced_in_the_midst_is_noticed(con, monkeypatch, where):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    name, seen, get, execute = f"{con.test_tree}/weight", [], CephStore.get, CephStore.execute

    def replace():
        if not seen:
            seen.append(True)
            con.del_dataset(name)
            con.create_dataset(name, data=np.zeros(N), chunk_size=CHUNK)

    def get_later(self, key, byte_range=None):
        if key.endswith("weight/c/3"):
            replace()
        return get(self, key, byte_range)

    def execute_later(self, calls):
        if any(call.key.endswith("weight/c/3") for call in calls):
            replace()
        return execute(self, calls)

    query = con.query(con.test_tree, where, ["weight", "run"])
    monkeypatch.setattr(CephStore, "get", get_later)
    monkeypatch.setattr(CephStore, "execute", execute_later)
    # Another range may look while it is gone.
    with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError), match="weight"):
        query.to_numpy()
    assert seen


@pytest.mark.slow
def test_counting_ships_no_values(con, monkeypatch):
    with counting(monkeypatch) as seen:
        count = con.query(con.test_tree, "abs(weight) > 3").count()
    assert count == np.count_nonzero(np.abs(EVENTS["weight"]) > 3)
    if con.test_class:
        assert seen["called"] == ["version", *["mask"] * -(-N // CHUNK)]
        assert seen["bytes"] < 5000


@pytest.mark.slow
def test_the_osds_find_the_extremes_of_chunks(con, monkeypatch):
    flat = ["run", "MET", "weight", "trigger"]
    with counting(monkeypatch) as seen:
        assert index(con, con.test_tree, flat) == flat
    if con.test_class:
        assert set(seen["called"]) <= {"version", "stats"}
        assert len(seen["read"]) <= len(flat) * -(-N // CHUNK)  # a byte of each, for its mark
        assert seen["bytes"] < 20_000
    query = con.query(con.test_tree, "run == 3 && MET > 50", ["weight"])
    assert "zones of run" in str(query.explain())
    run, met = EVENTS["run"], EVENTS["MET"]
    expected = EVENTS["weight"][(run == 3) & (met > 50)]
    np.testing.assert_array_equal(query.to_numpy()["weight"], expected)
    everywhere = con.query(con.test_tree, "MET > -1 || MET != MET").count()
    assert everywhere == N


def to_file(path):
    """Write the columns that the tests below query as a ROOT file."""
    columns = {name: EVENTS[name] for name in ("MET", "weight", "Muon_pt")}
    types = {"MET": "f4", "weight": "f8", "Muon_pt": "var * float32"}
    with uproot.recreate(path) as file:
        file.mktree("Events", types, counter_name=lambda _: "nMuon").extend(columns)


@pytest.mark.slow
def test_an_osd_that_dies_in_the_midst_of_queries_costs_no_rows(
    start_cluster, ceph_class, tmp_path, monkeypatch
):
    """Each door has a query under way at that moment: with the class, without, and Skyhook's."""
    monkeypatch.setattr(chunking, "TARGET_CHUNK_ENTRIES", 250)
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    can_execute, one, done = CephStore.can_execute, Scan.one, Counter()
    goes_on, counting_lock, stores = Event(), Lock(), {}

    def door_of(store):
        return stores.get(id(store), "skyhook")

    def unless_without(store):
        return door_of(store) != "without" and can_execute(store)

    def counted(scan, piece, reads):
        door = door_of(scan.columns["MET"].datasets[""].store)
        if done[door] >= 5:
            assert goes_on.wait(HANG)
        time.sleep(0.01)  # so that the rest is not done before
        found = one(scan, piece, reads)
        with counting_lock:
            done[door] += 1
        return found

    where, columns = "MET > 60 && nMuon >= 2", ["weight", "Muon_pt"]
    mask = (EVENTS["MET"] > 60) & (EVENTS["nMuon"] >= 2)
    expected = ak.zip({name: EVENTS[name][mask] for name in columns}, depth_limit=1)
    with (
        start_cluster(f"--classes={ceph_class}") as ceph,
        connection(ceph, timeout=HANG) as con,
        connection(ceph, timeout=HANG) as other,
        SkyhookDM() as sk,
    ):
        to_file(tmp_path / "events.root")
        sk.connect(f"ceph:kit?conffile={ceph.conf}&timeout={HANG}")
        sk.writeDataset([tmp_path / "events.root"], "aod")
        (file,) = sk.getDataset("aod").getFiles()
        query, without = (
            some.query(f"aod/{file.group}/Events", where, columns) for some in (con, other)
        )
        stores |= {id(con.instance.store): "with", id(other.instance.store): "without"}
        ranges = query.explain().ranges
        doors = {
            "with": query.to_awkward,
            "without": without.to_awkward,
            "skyhook": lambda: sk.runQuery(
                file, f"select {where}, project Events;1.weight,Events;1.Muon_pt"
            ),
        }
        monkeypatch.setattr(CephStore, "can_execute", unless_without)
        monkeypatch.setattr(Scan, "one", counted)
        with counting(monkeypatch) as seen, ThreadPoolExecutor(3) as pool:
            asked = {door: pool.submit(ask) for door, ask in doors.items()}
            wait_until(lambda: all(done[door] >= 5 for door in doors))
            goes_on.set()
            ceph.kill("osd.2")
            found = {door: future.result(HANG) for door, future in asked.items()}
    assert {"mask", "take"} <= set(seen["called"])
    assert all(5 < ranges == done[door] for door in doors), (done, ranges)
    assert ak.array_equal(found["with"], expected)
    assert ak.array_equal(found["without"], expected)
    assert found["skyhook"].to_pylist() == expected.to_list()
