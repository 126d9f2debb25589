"""Queries of trees on Ceph: with the object class and without, and while an OSD dies."""

from __future__ import annotations

import secrets
from threading import Thread

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, require, wait_until

import dosna as dn
from dosna.columns import read_columns
from dosna.query import index

ak = require("awkward")
require("rados")

from test_ceph_class import connection, counting  # noqa: E402

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
    with dn.Connection("query-pushdown", backend="ram") as con:
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


@pytest.mark.slow
def test_an_osd_that_dies_in_the_midst_of_queries_costs_no_rows(start_cluster, ceph_class):
    with (
        start_cluster(f"--classes={ceph_class}") as ceph,
        connection(ceph, timeout=HANG) as con,
    ):
        put_tree(con, "Events", EVENTS, 200, chunk_entries=200)
        everything = read_columns(con, "Events", ["MET", "nMuon", "weight", "Muon_pt"])
        expected = everything[(everything.MET > 60) & (everything.nMuon >= 2)]
        found, killed = [], []

        def ask():
            while not killed or len(found) < killed[0] + 3:
                query = con.query("Events", "MET > 60 && nMuon >= 2", ["weight", "Muon_pt"])
                found.append(query.to_awkward())

        thread = Thread(target=ask)
        thread.start()
        wait_until(lambda: found or not thread.is_alive())
        ceph.kill("osd.2")
        killed.append(len(found))
        thread.join(HANG)
        assert len(found) >= 4
        for one in found:
            assert ak.array_equal(one, expected[["weight", "Muon_pt"]])
