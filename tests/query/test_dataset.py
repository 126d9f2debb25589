"""Trees that DuckDB, Polars and pyarrow filter and project by themselves."""

from __future__ import annotations

import pickle
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, require

import dosna as dn
from dosna.errors import QueryError, UnknownNameError
from dosna.testing import CountingStore, MemoryStore, use_store

ak = require("awkward")
pa = require("pyarrow")
import pyarrow.compute as pc  # noqa: E402
from pyarrow import dataset as arrow_dataset  # noqa: E402

from dosna.query import dataset, index, planning  # noqa: E402

N = 64
ARRAYS = {
    "run": np.arange(N),
    "met": np.where(np.arange(N) % 9 == 0, np.nan, np.arange(N) * 1.5),
    "pt": [[float(n)] * (n % 3) for n in range(N)],
    "label": [["", "e", "mu"][n % 3] for n in range(N)],
}


@pytest.fixture
def tree(monkeypatch):
    """Give a tree in memory, and the log of requests to its chunks."""
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    store, name = CountingStore(MemoryStore()), secrets.token_hex(8)
    use_store(name, store)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        put_tree(con, "Events", ARRAYS, 8, chunk_entries=8)
        index(con, "Events")
        store.reset()
        yield dataset(con, "Events"), store


@pytest.fixture
def events(tree):
    return tree[0]


@pytest.fixture
def table(events):
    return events.to_table()


def chunks(store):
    """Return the chunks that were asked for."""
    return {key for _, key in store.log if "/c/" in key}


def same(found, wanted):
    """Compare tables, in which NaN equals itself."""
    return found.schema == wanted.schema and repr(found.to_pydict()) == repr(wanted.to_pydict())


FILTERS = {
    "compare": pc.field("run") > 50,
    "both": (pc.field("run") > 50) & (pc.field("met") < 80.0),
    "nan": pc.is_nan(pc.field("met")),
    "text": pc.field("label") == "mu",
    "in": pc.field("run").isin([3, 5, 100]),
    "computed": pc.field("run") * 2 > 100,
    "length": pc.list_value_length(pc.field("pt")) == 2,
    "some of it": (pc.field("run") < 20) & (pc.list_value_length(pc.field("pt")) == 2),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_pyarrow(events, table, name):
    condition = FILTERS[name]
    wanted = table.filter(condition)
    assert 0 < len(wanted) < N
    assert same(events.to_table(filter=condition), wanted)
    assert same(events.to_table(["met", "run"], condition), wanted.select(["met", "run"]))
    assert same(events.scanner(["run"], condition).to_table(), wanted.select(["run"]))
    assert events.count_rows(condition) == len(wanted)
    assert sum(batch.num_rows for batch in events.to_batches(filter=condition)) == len(wanted)


def test_columns_of_pyarrow(events, table):
    assert events.schema == table.schema
    assert events.count_rows() == N
    computed = events.to_table({"twice": pc.field("run") * 2}, pc.field("run") < 3)
    assert computed["twice"].to_pylist() == [0, 2, 4]
    assert events.head(3, ["run"])["run"].to_pylist() == [0, 1, 2]


def test_only_the_chunks_of_a_filter_are_read(tree):
    events, store = tree
    found = events.to_table(["met"], (pc.field("run") >= 17) & (pc.field("run") < 19))
    assert len(found) == 2
    assert {key for key in chunks(store) if "/met/" in key} == {"Events/met/c/2"}
    assert not [key for key in chunks(store) if "/pt/" in key]


def test_duckdb_pushes_down(tree):
    duckdb = require("duckdb")
    events, store = tree
    with duckdb.connect() as sql:
        sql.register("events", events)
        found = sql.sql("select sum(met), count(*) from events where run between 19 and 20")
        assert found.fetchall() == [(58.5, 2)]
        assert not [key for key in chunks(store) if "/pt/" in key]
        assert {key for key in chunks(store) if "/met/" in key} == {"Events/met/c/2"}
        grouped = "select label, count(*) from events where run > 30 group by 1 order by 1"
        assert sql.sql(grouped).fetchall() == [("", 11), ("e", 11), ("mu", 11)]
        rare = "select run from events where list_sum(pt) > 120 and run > 3"
        assert sorted(sql.sql(rare).fetchall()) == [(62,)]


def test_polars_pushes_down(tree):
    pl = require("polars")
    events, store = tree
    frame = events.to_polars()
    found = frame.filter(pl.col("run").is_between(19, 20)).select("met").collect()
    assert found["met"].to_list() == [28.5, 30.0]
    assert {key for key in chunks(store) if "/met/" in key} == {"Events/met/c/2"}
    assert not [key for key in chunks(store) if "/pt/" in key]
    assert frame.select("run").head(10).collect()["run"].to_list() == list(range(10))
    lists = frame.filter(pl.col("pt").list.len() == 2, pl.col("run") > 50).select("run").collect()
    assert lists["run"].to_list() == [53, 56, 59, 62]
    whole = frame.collect()
    assert whole["run"].to_list() == list(range(N))
    # NaN is the greatest number of Polars.
    assert len(frame.filter(pl.col("met") > 90).collect()) == len(whole.filter(pl.col("met") > 90))


def test_a_dataset_travels(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        put_tree(con, "Events", ARRAYS, 8)
        events = pickle.loads(pickle.dumps(dataset(con, "Events", entry_stop=10)))
        assert events.count_rows() == 10
        assert events.to_table(["run"])["run"].to_pylist() == list(range(10))


def test_a_dataset_has_the_entries_and_columns_of_its_query(events):
    con = events.query(None, None).con
    some = dataset(
        con, "Events", where="run >= 40 && met > 0", columns=["double = run * 2", "met"]
    )
    wanted = [2 * n for n in range(40, N) if n % 9]
    assert some.schema.names == some.to_table().column_names == ["double", "met"]
    assert some.to_table()["double"].to_pylist() == wanted
    assert some.count_rows() == len(wanted)
    few = (pc.field("double") > 100) & (pc.field("met") < 90)
    assert some.to_table(["double"], few)["double"].to_pylist() == [
        n for n in wanted if 100 < n < 120
    ]
    assert some.count_rows(few) == len([n for n in wanted if 100 < n < 120])
    with pytest.raises(UnknownNameError, match="run"):
        some.to_table(["run"])
    # A name of the tree that is another column here.
    other = dataset(con, "Events", columns=["run = met", "met"])
    assert other.count_rows(pc.field("run") > 60) == sum(n % 9 > 0 for n in range(41, N))


def test_duckdb_and_polars_have_the_entries_of_the_query(events):
    duckdb, pl = require("duckdb"), require("polars")
    some = dataset(
        events.query(None, None).con, "Events", where="run >= 40", columns="n = run, met"
    )
    with duckdb.connect() as sql:
        sql.register("few", some)
        assert sql.sql("select count(*), min(n) from few where n > 42").fetchall() == [(21, 43)]
        assert sql.sql("select count(*) from few").fetchall() == [(24,)]
    frame = some.to_polars()
    assert frame.collect().columns == ["n", "met"]
    assert frame.filter(pl.col("n") < 42).collect()["n"].to_list() == [40, 41]


def test_what_else_a_dataset_of_pyarrow_can_do(events, table):
    few = events.filter(pc.field("run") < 20).filter(pc.field("label") == "mu")
    assert few.to_table(["run"])["run"].to_pylist() == [2, 5, 8, 11, 14, 17]
    with pytest.raises(QueryError, match="where="):
        events.filter(pc.field("run") * 2 > 5)
    turned = events.sort_by([("run", "descending")])
    assert turned.to_table()["run"].to_pylist() == list(reversed(range(N)))
    con = events.query(None, None).con
    left, right = (dataset(con, "Events", columns=["run", name]) for name in ("met", "label"))
    assert left.join(right, "run").count_rows() == N
    assert left.join_asof(right, "run", [], 0).count_rows() == N
    assert events.take([3, 5])["run"].to_pylist() == [3, 5]


def test_what_pyarrow_does_by_itself_is_an_error(events):
    # It was a crash.
    for scan in (
        lambda: [fragment.to_table() for fragment in events.get_fragments()],
        lambda: events.replace_schema(events.schema).to_table(),
        lambda: arrow_dataset.dataset([events, events]).to_table(),
    ):
        with pytest.raises(OSError, match="Events"):
            scan()


def test_names_that_are_patterns_of_polars():
    pl = require("polars")
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "T", {"*": np.arange(5), "^x.*$": np.arange(5) * 2, "x1": np.arange(5)}, 4)
        frame = dataset(con, "T").to_polars().filter(pl.col("x1") * 2 > 4)
        assert frame.collect().to_dict(as_series=False) == {
            "*": [3, 4],
            "^x.*$": [6, 8],
            "x1": [3, 4],
        }


def test_a_sign_of_zero_is_one_of_arrow():
    pl = require("polars")
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "T", {"x": np.array([0.0, -0.0, 1.0, 2.0])}, 4)
        tree = dataset(con, "T")
        for condition in (pc.field("x").isin([0.0]), ~pc.field("x").isin([-0.0, 1.0])):
            assert same(tree.to_table(filter=condition), tree.to_table().filter(condition))
        assert len(tree.to_polars().filter(pl.col("x").is_in([0.0, 1.0])).collect()) == 3


@pytest.mark.parametrize("dtype", ["M8[ns]", "m8[s]"])
def test_nat_is_null(dtype):
    duckdb, pl = require("duckdb"), require("polars")
    times = np.array([1, "NaT", 3, "NaT"], dtype)
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "T", {"t": times, "u": times[::-1], "n": np.arange(4)}, 4)
        tree = dataset(con, "T")
        t, u = pc.field("t"), pc.field("u")
        for condition in (t.is_null(), t.is_valid(), ~(t < u), t == t):
            assert same(tree.to_table(filter=condition), tree.to_table().filter(condition))
        found = duckdb.sql("select n from tree where t is null").fetchall()
        assert found == [(1,), (3,)]
        found = tree.to_polars().filter(pl.col("t").is_not_null()).collect()
        assert found["n"].to_list() == [0, 2]


LEFT = """
import secrets, sys
sys.path.insert(0, {tests!r})
import numpy as np
import dosna as dn
from kept_trees import put_tree
from dosna.query import dataset, planning
planning.LEAST_ROWS = 1
con = dn.Connection(secrets.token_hex(4), backend="ram")
con.connect()
put_tree(con, "Events", {{"x": np.arange(2000)}}, 10, chunk_entries=10)
events = dataset(con, "Events")
{use}
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "use"),
    [
        ("pyarrow", "assert events.head(5).num_rows == 5"),
        ("pyarrow", "assert events.scanner().head(5).num_rows == 5"),
        ("duckdb", "import duckdb; duckdb.sql('select * from events limit 3').fetchall()"),
        (
            "polars",
            "import polars; events.to_polars().filter(polars.col('x') > 5).head(3).collect()",
        ),
        ("pyarrow", "reader = con.query('Events').batches(); next(iter(reader))"),
    ],
)
def test_a_program_that_leaves_a_stream_unread_ends(program, use):
    require(program)
    script = LEFT.format(tests=str(Path(__file__).resolve().parents[1]), use=use)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_what_a_dataset_and_the_module_say_of_themselves(events):
    assert repr(events) == (
        "<dosna tree 'Events' as a pyarrow dataset: ['run', 'met', 'pt', 'label']>"
    )
    assert {"Query", "dataset", "index"} <= set(dir(dn.query))


def test_head_is_the_first_entries(events, table):
    first = events.head(7, ["run"])
    assert first.num_rows == 7
    assert first.equals(table.select(["run"]).slice(0, 7))
    assert events.head(0).num_rows == 0
    assert events.head(10**9).num_rows == table.num_rows
