"""Files of events that come one after the other: their columns, and trees of types that differ."""

from __future__ import annotations

import datetime
import decimal
import secrets
from dataclasses import replace

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.columns import get_tree, read_columns
from dosna.errors import RefusedError, SourceError, SourceNotFoundError

ak, uproot, pa = require("awkward"), require("uproot"), require("pyarrow")

import pyarrow.parquet as pq  # noqa: E402

from dosna.columns.layout import columns  # noqa: E402
from dosna.columns.widening import widened  # noqa: E402
from dosna.io.local import LocalFile  # noqa: E402
from dosna.sources.servicex.eventfiles import open_events  # noqa: E402
from dosna.sources.servicex.growing import FoundTree, GrowingTrees, WiderError  # noqa: E402

A = ak.Array
BATCH = 1 << 25


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture
def write(tmp_path):
    """Write arrays or tables to files of Parquet, and give their paths."""

    def make(*tables):
        paths = []
        for table in tables:
            paths.append(str(tmp_path / f"{secrets.token_hex(4)}.parquet"))
            (pq.write_table if isinstance(table, pa.Table) else ak.to_parquet)(table, paths[-1])
        return paths

    return make


def take(con, paths, select=None, skips=False, kind="parquet", batch=BATCH):
    """Take files in, as those of a request are; give the trees."""
    trees = GrowingTrees(
        con,
        "test:x",
        "one",
        {},
        expected_files=len(paths),
        batch_bytes=batch,
        select=select,
        skips=skips,
    )
    ahead = list(paths)
    while ahead:
        path = ahead.pop(0)
        events = open_events(LocalFile(path), kind)
        trees.begin(path, False)
        try:
            for name in events.kinds:
                names, refused = events.columns(name), events.refused(name)
                wanted = [n for n in trees.wanted("t", names) if n not in refused]
                types = events.typenames(name)
                for piece in events.pieces(name, batch, wanted):
                    tree = FoundTree("t", "t", "test", piece, types, names, refused)
                    trees.prepare(tree)
                    trees.add(tree, piece)
        except WiderError as error:
            trees.abandon()
            trees.restart(error)
            ahead = list(paths)
        else:
            trees.end()
    trees.finish({})
    return trees


WIDER = {
    # First, second, and the type of both.
    "lists of nothing": ([[], []], [[1.5], []], "var * float64"),
    "nothing at all": ([None, None], [1.5, None], "?float64"),
    "deep": ([[[]], []], [[[1], [2, 3]], []], "var * var * int64"),
    "records": ([{"x": []}], [{"x": ["a"]}], "{x: var * string}"),
    "a None later": ([1.5, 2.5], [1.5, None], "?float64"),
    "a None in lists": ([[1], []], [[None, 2]], "var * ?int64"),
    "a None in records": ([{"x": 1}], [{"x": None}], "{x: ?int64}"),
    "a record that is None": ([{"x": 1}], [{"x": 2}, None], "?{x: int64}"),
    "both at once": ([[], []], [[None, 2], None], "option[var * ?int64]"),
}


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("turned", [False, True], ids=["narrow first", "wide first"])
@pytest.mark.parametrize("name", WIDER)
def test_columns_become_as_wide_as_is_needed(con, write, name, turned, batch):
    one, two, wide = WIDER[name]
    arrays = [A({"e": A(v), "n": np.arange(len(v))}) for v in (one, two, one)]
    if turned:
        arrays = [arrays[1], arrays[0], arrays[1]]
    take(con, write(*arrays), batch=batch)
    found = read_columns(con, "t")
    assert str(found.e.type.content) == wide
    assert found.e.to_list() == [v for array in arrays for v in array.e.to_list()]
    assert found.n.to_list() == [v for array in arrays for v in array.n.to_list()]
    tree = get_tree(con, "t")
    assert tree.by_name["e"].typename == wide
    assert [f.stop - f.start for f in tree.files] == [len(array) for array in arrays]
    used = {f"t/e/{c.path}" if c.path else "t/e" for c in columns(ak.to_layout(found.e).form)}
    assert set(con.names_in("t")) == {"t/n", *used}
    assert not any(con[dataset].incomplete for dataset in con.names_in("t"))


def test_an_ingest_that_ends_while_a_column_becomes_wider_goes_on(con, write, monkeypatch):
    arrays = [A({"e": [1.5, 2.5], "n": [1, 2]}), A({"e": [None, 4.0], "n": [3, 4]})]
    paths = write(*arrays)

    trees = GrowingTrees(con, "test:x", "one", {}, expected_files=2, batch_bytes=1)
    first, second = (next(open_events(LocalFile(p), "parquet").pieces("", BATCH)) for p in paths)
    tree = FoundTree("t", "t", "test", first, {}, first.fields)
    trees.prepare(tree)
    trees.begin(paths[0], False)
    trees.add(tree, first)
    trees.end()
    trees.begin(paths[1], False)
    with pytest.raises(WiderError) as raised:
        trees.add(replace(tree, names=second.fields), second)
    trees.abandon()

    class End(BaseException):
        pass

    def end(*_):
        raise End

    with monkeypatch.context() as patch:
        patch.setattr("dosna.columns.datasets.TreeDatasets._remove_others", end)
        with pytest.raises(End):
            trees.restart(raised.value)
    assert get_tree(con, "t").entries == 0
    take(con, paths)
    found = read_columns(con, "t")
    assert found.e.to_list() == [1.5, 2.5, None, 4.0]
    assert found.n.to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (["a", "b"], [b"\xff", b"b"], "has bytes in column 'e', where others have string"),
        ([b"a"], ["a"], "has string in column 'e', where others have bytes"),
        (["a"], ak.values_astype(A([[200]]), "u1"), r"has var \* uint8 in column 'e'"),
        ([[1]], [[1.5]], r"has var \* float64 in column 'e', where others have var \* int64"),
        ([{"x": 1}], [{"y": 1}], "has {y: int64} in column 'e'"),
        ([(1, 2)], [{"0": 1, "1": 2}], "in column 'e'"),
    ],
)
def test_types_that_are_others_stay_so(con, write, one, two, message):
    with pytest.raises(SourceError, match=message):
        take(con, write(A({"e": A(one)}), A({"e": A(two)})))


def test_a_wider_form_takes_both():
    forms = [ak.to_layout(A(v)).form for one, two, _ in WIDER.values() for v in (one, two)]
    for form, other in zip(forms[::2], forms[1::2], strict=True):
        assert widened(form, other).type == widened(other, form).type
        assert columns(widened(form, form)) == columns(form)
        wide = widened(form, other)
        assert columns(widened(wide, form)) == columns(widened(wide, other)) == columns(wide)


# -- columns of Parquet -------------------------------------------------------------------------

TYPED = A(
    {
        "tuples": A([(1, 2.0), (3, 4.0)]),
        "named": ak.with_name(A([{"x": 1}, {"x": 2}]), "P"),
        "maybe": A([{"x": 1}, None]),
        "texts": A(["a", None]),
        "nested": A([[(1, "a")], []]),
        "even": ak.to_regular(A([[1, 2], [3, 4]])),
        "empty": A([[], []]),
        "n": np.arange(2, dtype="u2"),
    }
)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("entries", [2, 0])
@pytest.mark.parametrize("select", [None, ["tuples", "maybe"], ["n"]])
def test_types_are_what_awkward_reads(con, write, select, entries, extended):
    typed = TYPED[:entries]
    (path,) = write(ak.to_arrow_table(typed, extensionarray=True) if extended else typed)
    expected = ak.from_parquet(path)
    take(con, [path], select)
    found = read_columns(con, "t")
    assert found.fields == [n for n in expected.fields if select is None or n in select]
    for name in found.fields:
        assert found[name].type == expected[name].type
        assert found[name].to_list() == expected[name].to_list()


def test_entries_that_are_none(con, write):
    (path,) = write(A([{"x": 1}, None]))
    take(con, [path])
    assert read_columns(con, "t").x.to_list() == ak.from_parquet(path)["x"].to_list() == [1, None]


UNREADABLE = {
    "decimal": pa.array([decimal.Decimal("1.5"), None]),
    "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
    "interval": pa.array([None, None], pa.decimal256(50)),
}


def unreadable():
    return pa.table(
        {"x": pa.array([1, 2]), **UNREADABLE, "y": pa.array([b"abc", b"de0"], "binary")}
    )


def test_columns_that_cannot_be_read_cost_themselves(con, write):
    paths = write(unreadable(), unreadable())
    with pytest.raises(RefusedError, match=r"column 'decimal'.*awkward cannot read decimal128"):
        take(con, paths)
    trees = take(con, paths, skips=True)
    assert list(trees.skipped) == list(UNREADABLE)
    for why, kind in zip(
        trees.skipped.values(), ["decimal128", "map<", "decimal256"], strict=True
    ):
        assert f"awkward cannot read {kind}" in why
    found = read_columns(con, "t")
    assert found.to_list() == 2 * [{"x": 1, "y": b"abc"}, {"x": 2, "y": b"de0"}]


def test_columns_that_are_not_selected_are_not_touched(con, write, monkeypatch):
    (path,) = write(unreadable())
    read = []
    batches = pq.ParquetFile.iter_batches

    def iter_batches(file, **options):
        read.append(options["columns"])
        return batches(file, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    with pytest.raises(RefusedError, match="'map'"):
        take(con, [path], ["map"])
    with pytest.raises(SourceNotFoundError, match="like 'z': it has x, decimal"):
        take(con, [path], ["z"])
    assert read == []
    trees = take(con, [path], ["x"])
    assert read == [["x"]]
    assert trees.skipped == {}
    assert read_columns(con, "t").x.to_list() == [1, 2]


def test_a_later_file_whose_column_cannot_be_read(con, write):
    paths = write(
        pa.table({"x": [1], "map": [1]}), pa.table({"x": [1], "map": UNREADABLE["map"][:1]})
    )
    take(con, paths, ["x"])
    assert read_columns(con, "t").x.to_list() == [1, 1]
    for name in con.names_in("t"):
        con.del_dataset(name)
    with pytest.raises(SourceError, match=r"has no column 'map' that can be read: awkward cannot"):
        take(con, paths)


def test_bytes_of_a_fixed_length_and_times_of_a_zone(con, write):
    when = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "fixed": pa.array([b"abc", b"def"], pa.binary(3)),
            "when": pa.array([when, None], pa.timestamp("us", "UTC")),
        }
    )
    (path,) = write(table)
    take(con, [path])
    found = read_columns(con, "t")
    expected = ak.from_parquet(path)
    assert found.type == expected.type
    assert found.to_list() == expected.to_list()
    assert get_tree(con, "t").by_name["when"].typename == "timestamp[us, tz=UTC]"


def test_a_second_column_of_a_name_is_named(con, write):
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "b", "a"])
    trees = take(con, write(table), skips=True)
    assert trees.skipped == {"a (2)": "an earlier column has the same name"}
    assert read_columns(con, "t").to_list() == [{"a": 1, "b": 2}]


def test_entries_that_are_no_records_are_refused(con, write):
    with pytest.raises(RefusedError, match=r"has no columns, but entries that are large_list"):
        take(con, write(A([[1, 2], [3]])))


# -- columns of ROOT files ----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, BATCH])
def test_variants_of_several_clusters(con, tmp_path, batch):
    path = tmp_path / "variants.root"
    values = [i if i % 2 else "s" * (i % 5) for i in range(40)]
    with uproot.recreate(path) as file:
        tree = file.mkrntuple("T", {"v": A(values).type.content, "x": "i4"})
        for start in (0, 10, 20, 30):
            part = slice(start, start + 10)
            tree.extend({"v": A(values[part]), "x": np.arange(40, dtype="i4")[part]})
    take(con, [str(path)], kind="root", batch=batch)
    found = read_columns(con, "t")
    assert found.v.to_list() == values
    assert found.x.to_list() == list(range(40))


def test_a_branch_that_cannot_be_interpreted_costs_itself(con, tmp_path, monkeypatch):
    path = str(tmp_path / "tree.root")
    with uproot.recreate(path) as file:
        file.mktree("T", {"good": "i4", "bad": "i4"}).extend(
            {"good": np.arange(5, dtype="i4"), "bad": np.arange(5, dtype="i4")}
        )
    found = uproot.TBranch.interpretation

    def interpretation(branch):
        if branch.name == "bad":
            raise AttributeError("'NoneType' object has no attribute 'name'")
        return found.fget(branch)

    monkeypatch.setattr(uproot.TBranch, "interpretation", property(interpretation))
    trees = take(con, [path], skips=True, kind="root")
    assert list(trees.skipped) == ["bad"]
    assert read_columns(con, "t").to_list() == [{"good": i} for i in range(5)]


# -- files of dosna's own delivery service -------------------------------------------------------

EVENTS = A(
    {
        "run": np.arange(30_000),
        "pt": ak.unflatten(np.arange(60_000.0), np.arange(30_000) % 5),
        "name": A(["a", "bc", ""] * 10_000),
        "maybe": A([1, None, 3] * 10_000),
    }
)


@pytest.mark.parametrize("batch", [1 << 16, BATCH])
@pytest.mark.parametrize("kind", ["arrow", "hdf5"])
def test_own_formats_are_read_in_pieces(con, tmp_path, kind, batch):
    if kind == "hdf5":
        require("h5py")
    from dosna.delivery.transform.writing import Part, write

    path = str(tmp_path / "result")
    halves = EVENTS[:10_000], EVENTS[10_000:]
    write(path, kind, [Part("a/tree", lambda: iter(halves), lambda: EVENTS[:0])])
    events = open_events(LocalFile(path), kind)
    (name,) = events.kinds
    assert events.entries(name) == len(EVENTS)
    pieces = list(events.pieces(name, batch))
    assert len(pieces) > 3 or batch == BATCH
    assert ak.concatenate(pieces).to_list() == EVENTS.to_list()
    take(con, [path], ["pt"], kind=kind, batch=batch)
    assert ak.array_equal(read_columns(con, "t").pt, EVENTS.pt)


@pytest.mark.parametrize("kind", ["arrow", "hdf5"])
def test_own_formats_that_are_damaged(tmp_path, kind):
    if kind == "hdf5":
        require("h5py")
    from dosna.delivery.transform.writing import Part, write

    path = tmp_path / "result"
    write(str(path), kind, [Part("t", lambda: iter([EVENTS]), lambda: EVENTS[:0])])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="result"):
        open_events(LocalFile(str(path)), kind)
    # Offsets that lead outside.
    offsets = ak.to_layout(EVENTS.pt).offsets.data.astype("i8")
    start = whole.index(offsets[:200].tobytes())
    path.write_bytes(whole[: start + 400] + b"\xff\xff\xff\x7e" + whole[start + 404 :])
    events = open_events(LocalFile(str(path)), kind)
    (name,) = events.kinds
    with pytest.raises(SourceError, match="result"):
        list(events.pieces(name, BATCH))
