"""Queries of trees: their results, what they read, and their errors."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, mpiexec, require

import dosna as dn
from dosna.columns import Tree
from dosna.errors import (
    DatasetError,
    DatasetNotFoundError,
    FormatError,
    MemoryLimitError,
    QueryError,
    QueryTypeError,
    SourceChangedError,
    UnknownNameError,
)
from dosna.testing import CountingStore, MemoryStore, use_store

ak = require("awkward")
pa = require("pyarrow")

from dosna.query import branches, planning  # noqa: E402
from dosna.query.expressions import Lists  # noqa: E402

N = 1000
ENGINES = [
    ("cpu", {}),
    ("joblib", {"njobs": 3}),
    ("joblib", {"njobs": 2, "jlbackend": "loky"}),
]


def events(count=N, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 4, count)
    muons = ak.unflatten(rng.exponential(20, lengths.sum()).astype("f4"), lengths)
    return {
        "run": np.arange(count, dtype="i8") // 10,
        "nMuon": lengths.astype("u4"),
        "MET": rng.exponential(30, count).astype("f4"),
        "Muon_pt": muons,
        "trigger": rng.random(count) < 0.5,
        "label": [["", "e", "mu"][n % 3] for n in range(count)],
        "maybe": ak.mask(np.arange(count), np.arange(count) % 3 > 0),
        "vector": rng.random((count, 3)),
        "jets": [[{"pt": i, "hits": [i] * i} for i in range(n % 4)] for n in range(count)],
    }


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)


@pytest.fixture(params=ENGINES, ids=lambda e: "-".join(map(str, [e[0], *e[1].values()])))
def con(request, tmp_path):
    engine, options = request.param
    with dn.Connection(
        str(tmp_path), backend="file", engine=engine, engine_kw=options
    ) as connection:
        put_tree(connection, "Events", events(), 64, chunk_entries=128)
        yield connection


@pytest.fixture
def ram():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as connection:
        put_tree(connection, "Events", events(), 64, chunk_entries=128)
        yield connection


def chosen(arrays):
    return ak.to_numpy((arrays["nMuon"] >= 2) & ak.any(arrays["Muon_pt"] > 30, axis=1))


WHERE = "nMuon >= 2 && any(Muon_pt > 30)"


@pytest.mark.slow
def test_results_are_those_of_awkward(con):
    arrays = events()
    mask = chosen(arrays)
    query = con.query("Events", WHERE)
    found = query.to_awkward()
    assert query.count() == len(found) == mask.sum() > 0
    for name, array in arrays.items():
        assert found[name].to_list() == ak.Array(array)[mask].to_list(), name
    table = query.to_arrow()
    assert table.column_names == list(arrays)
    for name, array in arrays.items():
        assert table[name].to_pylist() == ak.Array(array)[mask].to_list(), name
    assert pa.Table.from_batches(list(query.batches()), query.schema) == table
    assert pa.table(query) == table


def test_columns_and_new_columns(ram):
    arrays = events()
    mask = ak.to_numpy(arrays["MET"] > 50)
    query = ram.query(
        "Events", "MET > 50", ["run", "half = MET / 2", "Muon_*", "soft = Muon_pt[Muon_pt < 20]"]
    )
    found = query.to_awkward()
    assert found.fields == ["run", "half", "Muon_pt", "soft"]
    assert found["half"].to_list() == (arrays["MET"][mask] / 2).tolist()
    muons = arrays["Muon_pt"][mask]
    assert found["soft"].to_list() == muons[muons < 20].to_list()
    assert query.schema.names == found.fields
    flat = ram.query("Events", "MET > 50", "run, half = MET / 2").to_numpy()
    assert flat["run"].tolist() == arrays["run"][mask].tolist()
    assert flat["half"].dtype == np.float32


def test_ranges_of_entries(ram):
    arrays = events()
    for start, stop in [(None, None), (5, 700), (130, 131), (-50, None), (400, 300), (0, 10**9)]:
        part = slice(start, stop)
        query = ram.query("Events", "MET > 50", "MET", entry_start=start, entry_stop=stop)
        wanted = arrays["MET"][part]
        assert query.to_numpy()["MET"].tolist() == wanted[wanted > 50].tolist(), part
        whole = ram.query("Events", None, ["run"], entry_start=start, entry_stop=stop)
        assert whole.count() == whole.to_arrow().num_rows == len(wanted)


def test_nothing_and_everything(ram):
    nothing = ram.query("Events", "MET < 0")
    assert nothing.count() == 0
    assert nothing.to_arrow().schema == nothing.schema == ram.query("Events").schema
    assert len(nothing.to_awkward()) == 0
    assert nothing.to_awkward().type.content == ram.query("Events").to_awkward().type.content
    assert ram.query("Events", "MET >= 0").to_arrow() == ram.query("Events").to_arrow()


def test_batches_are_no_longer_than_asked_for(ram):
    query = ram.query("Events", "MET > 10", ["MET"], batch_rows=7)
    batches = list(query.batches())
    assert max(batch.num_rows for batch in batches) == 7
    assert pa.Table.from_batches(batches) == query.to_arrow()


def test_other_libraries_take_a_query_for_a_table(ram):
    duckdb, polars, pandas = require("duckdb"), require("polars"), require("pandas")
    query = ram.query("Events", "MET > 50", ["run", "MET"])
    wanted = query.to_numpy()
    assert duckdb.sql("select count(*), min(run) from query").fetchall() == [
        (len(wanted["run"]), wanted["run"].min())
    ]
    assert polars.DataFrame(query)["MET"].to_list() == wanted["MET"].tolist()
    assert pandas.DataFrame.from_arrow(query)["run"].tolist() == wanted["run"].tolist()


def test_dask_has_a_partition_for_each_range(con):
    require("dask.dataframe")
    query = con.query("Events", "MET > 50", ["run", "Muon_pt"])
    frame = query.to_dask()
    assert frame.npartitions == 8
    found = frame.compute(scheduler="threads")
    assert found["run"].tolist() == query.to_arrow()["run"].to_pylist()


def test_dask_has_what_is_stored_when_it_is_computed(ram):
    require("dask.dataframe")
    query = ram.query("Events", "run >= 98", ["run"])
    first = query.to_dask()
    assert len(first.compute(scheduler="threads")) == 20
    ram["Events/run"][:5] = 99
    # The name is what a scheduler keeps results by.
    second = query.to_dask()
    assert second._name != first._name
    assert len(second.compute(scheduler="threads")) == 25


def test_ranges_in_which_all_are_missing(ram):
    arrays = {"x": [0, 1, 2], "lists": [[1.0], [2.0], []], "text": ["a", None, None]}
    put_tree(ram, "Missing", arrays, 1, chunk_entries=1)
    columns = ["text", "ratio = lists / max(lists)", "longest = fill(text, 'b') == 'b'"]
    table = ram.query("Missing", "x >= 1", columns).to_arrow()
    assert table.to_pydict() == {
        "text": [None, None],
        "ratio": [[1.0], None],
        "longest": [True, True],
    }


@pytest.mark.parametrize("values", [[1, "two"], [{}, {}]])
def test_types_that_parquet_does_not_have(ram, tmp_path, values):
    from dosna.query.output import write

    put_tree(ram, "Odd", {"x": values})
    with pytest.raises(QueryError, match="file of Arrow"):
        write(ram.query("Odd"), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
    assert write(ram.query("Odd"), tmp_path / "a.arrow") == 2


def test_columns_keep_the_parameters_of_branches(ram):
    numbers = ak.Array([[2.0, 3.0], [], [5.0], [1.0]])
    arrays = {
        "set": ak.with_parameter(numbers, "__list__", "set"),
        "bits": ak.with_parameter(ak.to_regular([[True, False]] * 4), "__list__", "bitset"),
        "flat": ak.with_parameter(np.arange(4), "unit", "mm"),
        "optional": ak.with_parameter(ak.Array([1, None, 3, None]), "unit", "mm"),
        "nothing": ak.Array([[]] * 4),
    }
    put_tree(ram, "Named", arrays, 2, chunk_entries=2)
    for start, stop in ((0, 4), (1, 3), (2, 2)):
        found = ram.query("Named", entry_start=start, entry_stop=stop).to_awkward()
        for name, array in arrays.items():
            assert found[name].type == array[start:stop].type, name
            assert found[name].tolist() == array[start:stop].tolist(), name
    assert (
        str(ram.query("Named", None, "b = set * 2").to_awkward().type) == "4 * {b: var * float64}"
    )


def test_no_column_at_all(ram):
    query = ram.query("Events", "MET > 50", [])
    assert query.to_arrow().num_rows == len(query.to_awkward()) == query.count() > 0
    assert query.to_numpy() == {}


def counted(arrays, chunk, **described):
    store = CountingStore(MemoryStore())
    name = secrets.token_hex(8)
    use_store(name, store)
    con = dn.Connection(name, backend="memory", engine="cpu")
    con.connect()
    put_tree(con, "Events", arrays, chunk, **described)
    store.reset()
    return con, store


def read(store):
    found = sorted(key for kind, key in store.log if "/c/" in key)
    store.reset()
    return found


def test_only_the_chunks_of_entries_that_are_left_are_read(monkeypatch):
    # One chunk a range, as on local stores.
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    arrays = {"x": np.arange(40), "y": np.arange(40) % 7, "z": [[n] * 2 for n in range(40)]}
    con, store = counted(arrays, 10, chunk_entries=20)
    with con:
        query = con.query("Events", "x == 25 && y == 4", ["z"])
        assert query.to_awkward()["z"].to_list() == [[25, 25]]
        chunks = read(store)
        # The second condition, and the result, only where the first is true.
        assert [key for key in chunks if "/x/" in key] == [f"Events/x/c/{i}" for i in range(4)]
        assert [key for key in chunks if "/y/" in key] == ["Events/y/c/2"]
        assert [key for key in chunks if "content" in key] == ["Events/z/content/c/5"]
        assert con.query("Events", "x == 25", ["z"]).count() == 1
        assert all("/x/" in key for key in read(store))
        assert con.query("Events", "x < 0", ["y"]).to_arrow().num_rows == 0
        assert all("/x/" in key for key in read(store))


def test_planning_reads_no_chunk(ram):
    con, store = counted(events(), 64, chunk_entries=128)
    with con:
        query = con.query("Events", "MET > 50", ["run"])
        explained = query.explain()
        assert not read(store)
    assert (explained.entries, explained.ranges, explained.pruned) == (N, 1, 0)
    assert explained.chunks == explained.read == 32
    assert "MET > 50" in str(explained)


def test_errors_name_what_is_wrong(ram):
    with pytest.raises(UnknownNameError, match="Muon_pt"):
        ram.query("Events", "Muon_pz > 5")
    with pytest.raises(QueryError, match="query"):
        ram.query("Events", "nMuon >")
    with pytest.raises(QueryTypeError, match="any"):
        ram.query("Events", "Muon_pt > 5")
    with pytest.raises(DatasetNotFoundError, match="Evts"):
        ram.query("Evts", "nMuon > 5")
    with pytest.raises(QueryTypeError, match="=="):
        ram.query("Events", "label")
    with pytest.raises(UnknownNameError, match="no fields"):
        ram.query("Events", "MET.real > 5")
    with pytest.raises(UnknownNameError, match="'hits'"):
        ram.query("Events", "any(any(jets.hit > 5))")
    with pytest.raises(QueryError, match=r"Muon_pt > jets.pt: lists of"):
        ram.query("Events", "any(Muon_pt > jets.pt)").count()
    for where, columns in ((5, None), (None, [5]), (None, ["run", None])):
        with pytest.raises(QueryError, match="text"):
            ram.query("Events", where, columns)
    with pytest.raises(QueryTypeError, match="Muon_pt"):
        ram.query("Events", None, ["Muon_pt"]).to_numpy()
    with pytest.raises(QueryTypeError, match="columns"):
        ram.query("Events", columns=3)
    with pytest.raises(ValueError, match="batch_rows"):
        ram.query("Events", batch_rows=0)
    with pytest.raises(MemoryLimitError, match="query"):
        ram.query("Events", "MET > 5", memory_limit=10).count()


def test_a_branch_that_is_not_whole(ram):
    tree = put_tree(ram, "Other", {"x": np.arange(9), "y": np.arange(9)}, fingerprint="new")
    ram["Other/y"].instance.update(lambda m: m.replace(incomplete=True))
    assert ram.query("Other", "x > 5", ["x"]).count() == 3
    assert ram.query("Other", "x > 5", ["y"]).count() == 3
    with pytest.raises(DatasetError, match="incomplete"):
        ram.query("Other", "x > 5", ["y"]).to_arrow()
    with pytest.raises(DatasetError, match="incomplete"):
        ram.query("Other", "y > 5", ["x"]).count()
    ram["Other/y"].instance.update(
        lambda m: m.replace(incomplete=False, origin={"fingerprint": "old"})
    )
    with pytest.raises(SourceChangedError, match="another state"):
        ram.query("Other", "y > 5").to_arrow()
    ram["Other/x"].resize((5,))
    with pytest.raises(FormatError, match="ends at row 5"):
        ram.query("Other", "x > 2", ["x"]).to_arrow()
    ram.del_dataset("Other/x")
    with pytest.raises(DatasetNotFoundError, match="Other/x"):
        ram.query("Other", "x > 2", ["x"]).to_arrow()
    assert tree.entries == 9


def test_a_chunk_that_was_never_written_is_fill(ram):
    put_tree(ram, "Other", {"x": np.arange(1, 10), "y": np.arange(9)})
    ram["Other/x"].del_chunk((1,))
    assert ram.query("Other", "x == 0", ["y"]).to_numpy()["y"].tolist() == [3, 4, 5]


def test_progress_is_told(ram):
    told = []
    ram.query("Events", "MET > 5", progress=lambda *done: told.append(done)).count()
    assert told[-1] == (8, 8)


@pytest.mark.slow
def test_ranks_share_the_ranges_and_all_have_the_result(tmp_path):
    script = (
        "import sys\n"
        "import numpy as np\n"
        "import dosna as dn\n"
        "from dosna.query import index, planning\n"
        "from dosna.serve.trees.filling import HistogramRequest, Variable, fill_histogram\n"
        "from kept_trees import put_tree\n"
        "planning.LEAST_ROWS = 1\n"
        "with dn.Connection(sys.argv[1], backend='file', engine='mpi') as con:\n"
        "    put_tree(con, 'T', {'x': np.arange(100), 'l': [[n] for n in range(100)]}, 10,"
        " chunk_entries=10)\n"
        "    index(con, 'T')\n"
        "    q = con.query('T', 'x % 7 == 0 && x > 50', ['l'])\n"
        "    assert q.count() == len(q.to_awkward()) == 7\n"
        "    assert q.to_arrow()['l'].to_pylist()[0] == [56]\n"
        "    assert q.explain().pruned == 5\n"
        "    assert con['T/x'].query('value > 90').count() == 9\n"
        "    mine, of_rank = con.query('T', f'x > {con.mpi_rank}'), ['x', 'l'][con.mpi_rank]\n"
        "    limits = (0, 9 + con.mpi_rank)\n"
        "    counted = HistogramRequest('T', (Variable('x', limits=limits),))\n"
        "    for call in (mine.count, mine.to_arrow, q.count if con.mpi_is_root else q.to_arrow,\n"
        "                 con['T/x'].query(f'value > {con.mpi_rank}').count,\n"
        "                 lambda: index(con, 'T', of_rank),\n"
        "                 lambda: fill_histogram(con, counted)):\n"
        "        try:\n"
        "            raise AssertionError(call())\n"
        "        except dn.errors.CollectiveError as error:\n"
        "            assert 'rank 1: ' in str(error)\n"
    )
    done = subprocess.run(
        [*mpiexec(2), sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr


def test_chosen_lists_are_gathered_in_parts(monkeypatch):
    monkeypatch.setattr(branches, "_TOGETHER", 3)
    random = np.random.default_rng(5)
    lengths = random.integers(0, 4, 40) * (random.random(40) > 0.3)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    array = ak.unflatten(np.arange(offsets[-1], dtype="f4"), lengths)
    value = Lists(offsets, np.arange(offsets[-1], dtype="f4"))
    for rows in ([], [0], [39], np.flatnonzero(lengths == 0), np.arange(40), np.arange(1, 40, 3)):
        found = branches.chosen(value, np.asarray(rows, np.int64))
        wanted = array[np.asarray(rows, np.int64)]
        assert found.content.dtype == np.float32
        assert ak.unflatten(found.content, np.diff(found.offsets)).to_list() == wanted.to_list()


def test_ranges_are_longer_where_a_tree_has_many(monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1 << 19)

    def entries_of_a_range(entries, chunk):
        tree = Tree("test", "T", entries, (), chunk_entries=chunk)
        return planning.step_of({}, tree, None)

    chunk = 1 << 17
    assert entries_of_a_range(2 * chunk, chunk) == 4 * chunk
    assert entries_of_a_range(40 * chunk, chunk) == 5 * chunk
    assert entries_of_a_range(80 * chunk, chunk) == 8 * chunk
    assert entries_of_a_range(800 * chunk, chunk) == 8 * chunk
    assert entries_of_a_range(80 * chunk, 32 * chunk) == 32 * chunk


def test_branches_with_other_chunks_are_read_at_the_same_entries(monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 24)
    name, n = secrets.token_hex(8), np.arange(100)
    with dn.Connection(name, backend="ram") as con:
        put_tree(
            con,
            "T",
            {"a": n, "b": n * 2, "c": n * 3, "d": np.stack([n, n], 1)},
            8,
            chunk_entries=8,
        )
        con.del_dataset("T/c")
        con.create_dataset("T/c", data=n * 3, chunk_size=7)
        found = con.query("T", "a % 5 == 3", entry_start=3, entry_stop=97).to_numpy()
        kept = n[3:97][n[3:97] % 5 == 3]
        for column, by in zip("abc", (1, 2, 3), strict=True):
            assert found[column].tolist() == (kept * by).tolist()
        assert found["d"].tolist() == np.stack([kept, kept], 1).tolist()


def test_conditions_in_parentheses_are_tested_one_by_one(ram):
    query = ram.query("Events", "(run > 3 && (MET > 20 && nMuon > 1)) && !(run > 50 && trigger)")
    assert [str(test.expr) for test in query.tests] == [
        "run > 3", "MET > 20", "nMuon > 1", "!(run > 50 && trigger)"
    ]  # fmt: skip
    of = events()
    late = (of["run"] > 50) & of["trigger"]
    kept = (of["run"] > 3) & (of["MET"] > 20) & (of["nMuon"] > 1) & ~late
    assert query.count() == np.count_nonzero(kept) > 0
