"""Zones: made by ingests and by `index`, believed while they hold, and never changing a result."""

from __future__ import annotations

import secrets
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept_trees import put_tree
from support import require

import dosna as dn
from dosna.backends.zones import known_zones, unchanged
from dosna.core.zones import ZoneMaker, Zones
from dosna.errors import DatasetNotFoundError, ReadOnlyError
from dosna.query import index, planning
from dosna.testing import CountingStore, MemoryStore, use_store

ak = require("awkward")
require("pyarrow")


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)


BACKENDS = ["ram", "file", "hdf5", "memory"]


@pytest.fixture(params=BACKENDS)
def con(request, tmp_path):
    name = secrets.token_hex(8) if request.param in ("ram", "memory") else str(tmp_path)
    use_store(name, MemoryStore())
    with dn.Connection(name, backend=request.param, engine="cpu") as connection:
        yield connection


def holding(con, name):
    """Return for each chunk of a dataset whether it has a zone that holds."""
    instance = con[name].instance
    found = known_zones(instance)
    if found is None:
        return []
    zones, good = found
    at = np.flatnonzero(good)
    good[at] = unchanged(instance, zones, at)
    return good.tolist()


def test_extremes_of_chunks():
    maker = ZoneMaker(4)
    maker.add(0, np.array([3, np.nan, -0.0]))
    maker.add(3, np.array([1, np.nan, np.nan, np.nan, np.nan]))
    maker.add(8, np.array([np.inf, -np.inf]))
    zones = maker.zones(10, np.dtype("f8"), np.arange(3, dtype="u8"))
    assert zones.least.tolist()[::2] == [0, -np.inf]
    assert np.isnan(zones.least[1])
    assert zones.most.tolist()[::2] == [3, np.inf]
    assert zones.nans.tolist() == [1, 4, 0]
    again = Zones.from_json(zones.to_json())
    for name in ("least", "most", "nans", "objects"):
        np.testing.assert_array_equal(getattr(again, name), getattr(zones, name))


def test_rows_out_of_order_make_no_zone():
    maker = ZoneMaker(4)
    maker.add(0, np.arange(2))
    maker.add(3, np.arange(3))
    maker.add(6, np.arange(2))
    zones = maker.zones(8, np.dtype(int), np.zeros(2, "u8"))
    assert zones.known.tolist() == [False, True]


def test_differences_of_offsets():
    maker = ZoneMaker(3, is_offsets=True)
    for start, rows in [(0, [0]), (1, [2, 2]), (3, [7, 8, 20]), (6, [20])]:
        maker.add(start, np.array(rows))
    zones = maker.zones(7, np.dtype("i8"), np.zeros(3, "u8"))
    assert zones.steps.tolist() == [[0, 2], [1, 12], [0, 0]]


@pytest.mark.parametrize("broken", [{}, {"version": 1}, {"version": 2, "chunk": 3}])
def test_broken_zones_are_none(broken):
    assert Zones.from_json(broken) is None


def test_a_write_is_noticed_for_its_chunk(con):
    put_tree(con, "T", {"x": np.arange(12)}, 4, chunk_entries=4)
    assert holding(con, "T/x") == []
    assert index(con, "T") == ["x"]
    assert holding(con, "T/x") == [True] * 3
    con["T/x"][5] = 100
    expected = [False] * 3 if con.instance.shared_between_processes is False else None
    found = holding(con, "T/x")
    assert found in ([True, False, True], expected)
    assert con.query("T", "x == 100", ["x"]).count() == 1
    index(con, "T")
    assert holding(con, "T/x") == [True] * 3
    assert con.query("T", "x == 100", ["x"]).count() == 1
    assert con.query("T", "x == 100", ["x"]).explain().pruned == 2


def test_a_write_of_the_same_size_at_once_is_noticed(con):
    # Many writes within a step of the clock of the file system.
    con.create_dataset("x", data=np.zeros(4), chunk_size=4)
    put_tree(con, "T", {"x": np.zeros(4)}, 4)
    for number in range(20):
        index(con, "T")
        con["T/x"][0] = number + 1
        con["T/x"][0] = number + 2
        assert con.query("T", f"x == {number + 2}").count() == 1


def test_what_became_longer_or_shorter_is_not_believed(con):
    put_tree(con, "T", {"x": np.arange(10) + 1}, 4)
    index(con, "T")
    ds = con["T/x"]
    ds.resize((12,))
    assert holding(con, "T/x")[2] is False
    ds.resize((6,))
    assert holding(con, "T/x")[1] is False
    ds.resize((10,))
    assert not any(holding(con, "T/x")[1:])


def test_a_dataset_that_was_replaced_has_no_zones(con):
    put_tree(con, "T", {"x": np.arange(10)}, 4)
    index(con, "T")
    con.del_dataset("T/x")
    con.create_dataset("T/x", data=np.arange(10)[::-1].copy(), chunk_size=4)
    assert holding(con, "T/x") == []
    assert con.query("T", "x == 9", ["x"]).count() == 1


def test_a_chunk_that_was_never_written_has_no_zone(con):
    put_tree(con, "T", {"x": np.arange(12) + 1}, 4)
    con["T/x"].del_chunk((1,))
    index(con, "T")
    assert holding(con, "T/x")[1] is False
    con["T/x"][5] = 7
    assert con.query("T", "x == 7", ["x"]).count() == 1


def test_lists_and_their_lengths(con):
    put_tree(con, "T", {"x": [[n] * (n % 3) for n in range(12)], "y": [[n] for n in range(12)]}, 4)
    assert index(con, "T") == ["x", "y"]
    assert holding(con, "T/x/content") == [True] * 3
    assert holding(con, "T/y/offsets") == [True] * 4


def test_numbers_that_may_be_missing(con):
    values = [None if 20 <= n < 30 else n for n in range(40)]
    put_tree(con, "T", {"o": ak.Array(values), "run": np.arange(40)}, 4, chunk_entries=4)
    assert index(con, "T") == ["o", "run"]
    for where, rows, pruned in [
        ("o > 35", [*range(36, 40)], 7),
        ("ismissing(o)", [*range(20, 30)], 5),
    ]:
        query = con.query("T", where, ["run"])
        assert query.to_numpy()["run"].tolist() == rows
        assert query.explain().pruned >= pruned, where


def test_what_can_have_no_zones_is_left_out(con):
    put_tree(con, "T", {"s": ["a", "b"], "z": np.arange(2) * 1j, "n": [[[1]], []], "x": [1, 2]})
    assert index(con, "T") == ["x"]
    assert index(con, "T", "s") == []
    with pytest.raises(DatasetNotFoundError):
        index(con, "T", "unknown")
    with pytest.raises(DatasetNotFoundError):
        index(con, "U")


def test_a_connection_for_reading_is_not_indexed(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        put_tree(con, "T", {"x": np.arange(12)}, 4, chunk_entries=4)
    with (
        dn.Connection(str(tmp_path), backend="file", engine="cpu", mode="r") as con,
        pytest.raises(ReadOnlyError),
    ):
        index(con, "T")


def test_a_copy_of_the_folder_is_read_again(tmp_path):
    (tmp_path / "a").mkdir()
    with dn.Connection(str(tmp_path / "a"), backend="file", engine="cpu") as con:
        put_tree(con, "T", {"x": np.arange(12)}, 4, chunk_entries=4)
        index(con, "T")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with dn.Connection(str(tmp_path / "b"), backend="file", engine="cpu") as con:
        assert not any(holding(con, "T/x"))
        assert con.query("T", "x > 10", ["x"]).count() == 1


# -- pruned results are those of all data --------------------------------------------------

FLOATS = st.sampled_from([np.nan, 0.0, -0.0, np.inf, -np.inf, 1.5, -2.5, 1e30])
BIG = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, -(2**63)])
WHERE = st.sampled_from(
    [
        "f > 1", "f <= 0", "f == 0", "f != f", "!(f > 1)", "isnan(f)", "f * 2 > 3", "-f >= 2.5",
        "i == 9007199254740993", "i > 9007199254740992", "i <= 9007199254740992.0", "i + 1 > i",
        "i in (1, 9007199254740994)", "abs(i) > 5", "any(l > 1)", "all(l > 1)", "count(l) == 0",
        "max(l) > 1", "min(l) < 0", "l[0] > 0", "sum(l) > 2", "count(l) >= 2 && f > 0",
        "f > 0 || i > 0", "b", "!b", "b == (i > 0)", "f > i", "f / i > 1", "sqrt(f) > 1",
        "0 < f <= 1.5", "any(l > f)", "ismissing(l[1])", "fill(l[0], 7) == 7",
        "o > 1", "!(o > 1)", "o <= 1.5 || f > 0", "ismissing(o)", "!ismissing(o)", "o != o",
        "fill(o, 7) == 7", "o > f", "o in (1.5, 3)", "where(ismissing(o), 1, o) > 1", "isnan(o)",
    ]
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(1, 14), where=WHERE)
def test_pruned_results_are_those_of_all_data(monkeypatch, data, count, where):
    def draw(of):
        return data.draw(st.lists(of, min_size=count, max_size=count))

    ordered = data.draw(st.booleans())
    arrays = {
        "f": np.array(draw(FLOATS)),
        "i": np.array(sorted(draw(BIG)) if ordered else draw(BIG), "i8"),
        "b": np.array(draw(st.booleans())),
        "o": ak.Array([0.0, None, *draw(st.none() | FLOATS)])[2:],
        "l": ak.values_astype(ak.Array([[0.0], *draw(st.lists(FLOATS, max_size=3))])[1:], "f4"),
    }
    with (
        np.errstate(all="ignore"),
        dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con,
    ):
        put_tree(con, "T", arrays, 2, chunk_entries=2)
        monkeypatch.setattr(planning, "LEAST_ROWS", data.draw(st.sampled_from([1, 6, 100])))
        plain = con.query("T", where)
        for name in data.draw(
            st.sets(st.sampled_from(["T/f", "T/i", "T/l/content", "T/b", "T/o/content"]))
        ):
            ds = con[name]
            if ds.total_chunks:
                ds.del_chunk((data.draw(st.integers(0, ds.total_chunks - 1)),))
        before = plain.to_arrow().to_pydict()
        index(con, "T")
        if data.draw(st.booleans()):
            con["T/f"][data.draw(st.integers(0, count - 1))] = 1.5
            pruned = con.query("T", where).to_arrow().to_pydict()
            for name in con.names_in("T"):
                con[name].instance.update(lambda m: m.replace(zones=None))
            before = con.query("T", where).to_arrow().to_pydict()
        else:
            pruned = con.query("T", where).to_arrow().to_pydict()
    assert repr(pruned) == repr(before)


# -- made while ingesting ------------------------------------------------------------------


ENGINES = [("cpu", {}), ("joblib", {"njobs": 2, "jlbackend": "loky"})]


@pytest.fixture
def events(tmp_path):
    """Give the location of a tree of ROOT."""
    uproot = require("uproot")
    lists = ak.unflatten(np.arange(300, dtype="f4"), np.full(100, 3))
    with uproot.recreate(tmp_path / "a.root") as file:
        tree = file.mktree("Events", {"run": "int64", "pt": "var * float32"})
        for start in range(0, 100, 20):
            part = slice(start, start + 20)
            tree.extend({"run": np.arange(100)[part], "pt": lists[part]})
    return f"{tmp_path / 'a.root'}:Events"


def check_ingested(con, group="Events"):
    """Check that a tree as it was ingested has zones, before `index` could have made them."""
    assert holding(con, f"{group}/run") == [True] * 3
    assert holding(con, f"{group}/pt/content") == [True] * 8
    assert holding(con, f"{group}/pt/offsets") == [True] * 3
    zones, _ = known_zones(con[f"{group}/pt/offsets"].instance)
    assert zones.steps.tolist() == [[3, 3]] * 3
    assert con.query(group, "run > 90").count() == 9
    assert index(con, group) == ["run", "npt", "pt"]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_ingested_tree_has_zones(engine, tmp_path, events):
    (tmp_path / "store").mkdir()
    with dn.Connection(
        str(tmp_path / "store"), backend="file", engine=engine[0], engine_kw=engine[1]
    ) as con:
        con.ingest(events, chunk_size=(40,))
        check_ingested(con)


def test_zones_take_no_request_where_a_write_tells_the_version(events):
    store, name = CountingStore(MemoryStore()), secrets.token_hex(8)
    use_store(name, store)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        con.ingest(events, chunk_size=(40,))
        # The chunks at the ends, which may have become longer, are read before they are written.
        read = sorted(key for kind, key in store.log if kind == "get" and "/c/" in key)
        ends = [("npt", 2), ("pt/content", 7), ("pt/offsets", 2), ("run", 2)]
        assert read == [f"Events/{name}/c/{last}" for name, last in ends]
        check_ingested(con)
        con["Events/run"][0] = 99
        assert holding(con, "Events/run") == [False, True, True]
        assert con.query("Events", "run == 99").count() == 2


def test_a_chunk_that_others_write_meanwhile_is_not_believed(events, monkeypatch):
    store, name, others = CountingStore(MemoryStore()), secrets.token_hex(8), []
    use_store(name, store)
    request = store.request

    def meddling(kind, key, call):
        found = request(kind, key, call)
        if kind == "put" and key == "Events/run/c/1" and not others:
            others.append(key)
            store.inner.put(key, store.inner.get(key).data)
        return found

    monkeypatch.setattr(store, "request", meddling)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        con.ingest(events, chunk_size=(40,))
        assert holding(con, "Events/run") == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{}, {"chunk_size": (20,), "shards": (40,)}])
@pytest.mark.parametrize("store", ["ceph", "gateway"])
def test_a_tree_in_an_object_store_has_zones(store, engine, options, events, request):
    service, group = request.getfixturevalue(store), f"t{secrets.token_hex(4)}"
    if store == "ceph":
        place = {"name": "kit", "backend": "ceph", "conffile": service.conf}
    else:
        from services.s3 import make_bucket

        url = service.endpoint_url
        place = {"name": "zones", "backend": "s3", "endpoint_url": url, "bucket": make_bucket(url)}
    with dn.Connection(**place, engine=engine[0], engine_kw=engine[1]) as con:
        con.ingest(events, group, **{"chunk_size": (40,), **options})
        group = f"{group}/Events"
        if options:
            assert all(holding(con, f"{group}/run"))
            assert con.query(group, "run > 90").count() == 9
        else:
            check_ingested(con, group)
        for name in con.names_in(group):
            con.del_dataset(name)


def test_a_tree_that_grows_keeps_its_zones(tmp_path):
    from dosna.columns import Branch, Tree
    from dosna.columns.writing import TreeWriter

    form = {"class": "ListOffsetArray", "offsets": "i64", "content": "float64"}
    tree = Tree("test", "T", 0, (Branch("x", "int64"), Branch("l", form)), chunk_entries=4)
    part = ak.Array({"x": np.arange(6), "l": [[1.0, n] for n in range(6)]})
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        writer = TreeWriter.begin(con, "T", tree, {})
        for _ in range(2):
            writer.open("somewhere", {}, part)
            writer.write([part])
            writer.commit([])
            writer.finish()
            for name in writer.datasets:
                con[name].instance.update(lambda m: m.replace(incomplete=True))
        for name in writer.datasets:
            con[name].instance.update(lambda m: m.replace(incomplete=False))
        assert len(con["T/x"]) == 12
        # A writer that continues has not seen the first half of the chunk in the middle.
        assert holding(con, "T/x") == [True, False, True]
        assert index(con, "T") == ["x", "l"]
        assert holding(con, "T/x") == [True] * 3
        assert holding(con, "T/l/offsets") == [True] * len(holding(con, "T/l/offsets"))


def test_chunks_that_are_ruled_out_are_not_read():
    store, name = CountingStore(MemoryStore()), secrets.token_hex(8)
    use_store(name, store)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        put_tree(con, "T", {"x": np.arange(32), "y": np.arange(32)}, 4, chunk_entries=4)
        index(con, "T")
        query = con.query("T", "10 <= x < 12", ["y"])
        explained = query.explain()
        assert (explained.ranges, explained.pruned) == (8, 7)
        store.reset()
        assert query.to_numpy()["y"].tolist() == [10, 11]
        whole = [key for key in sorted(store.log) if key == ("get", "T/y/c/2")]
        assert len(whole) == 1
        assert not [key for _, key in store.log if key.startswith("T/y/c/") and key[-1] != "2"]
        assert con.query("T", "x < 4", ["y"]).explain().certain == 1


@pytest.mark.parametrize("where", ["13 <= x < 18", "13 <= x < 18 && y != 0", "w < 100"])
def test_chunks_at_the_ends_of_a_range_are_not_read(monkeypatch, where):
    monkeypatch.setattr(planning, "LEAST_ROWS", 32)
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        x = np.arange(64)
        columns = {"x": x, "y": x, "w": np.where((x >= 13) & (x < 18), x, 100 + x % 7)}
        put_tree(con, "T", columns, 4, chunk_entries=4)
        index(con, "T")
        for start, stop, looked_at in (
            (None, None, (12, 20)),
            (14, 17, (14, 17)),
            (0, 14, (12, 14)),
            (17, 50, (17, 20)),
            (5, 23, (12, 20)),
        ):
            query = con.query("T", where, ["y"], entry_start=start, entry_stop=stop)
            assert [piece[:2] for piece in query.scan()[1]] == [looked_at]
            found = query.to_numpy()["y"].tolist()
            assert found == [n for n in range(start or 0, stop or 64) if 13 <= n < 18]
        for start, stop in ((12, 12), (12, 3), (16, -60), (64, None)):
            query = con.query("T", where, ["y"], entry_start=start, entry_stop=stop)
            assert query.count() == query.to_arrow().num_rows == query.explain().ranges == 0
        con["T/x"][20] = 15
        con["T/w"][20] = 15
        found = con.query("T", where, ["y"]).to_numpy()["y"].tolist()
        assert found == [13, 14, 15, 16, 17, 20]
