"""Trees of columns: layout of every form, and reading of entry ranges."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_trees import put_tree as put
from support import require

import dosna as dn
from dosna.columns import Branch, FileRange, Tree, escape, find_trees, get_tree, read_columns
from dosna.columns.chunking import choose_chunk_entries, column_chunks
from dosna.columns.description import unescape
from dosna.core.names import check_name
from dosna.errors import (
    DatasetError,
    DatasetNotFoundError,
    FormatError,
    RefusedError,
    SourceChangedError,
)
from dosna.testing import CountingStore, MemoryStore, use_store

ak = require("awkward")

from dosna.columns.joining import compose  # noqa: E402
from dosna.columns.layout import columns, form_of, plain_form  # noqa: E402
from dosna.columns.splitting import decompose  # noqa: E402

SAMPLES = {
    "flat": np.arange(7, dtype="u2"),
    "matrix": np.arange(42, dtype="f4").reshape(7, 2, 3),
    "no extent": np.zeros((7, 0), "i1"),
    "date": np.arange(7).astype("M8[us]"),
    "complex": np.arange(7) * 1j,
    "jagged": [[1.5], [], [2, 3], [], [], [4], [5, 6, 7]],
    "all empty": ak.values_astype(ak.Array([[], [], [], [], [], [], [1]])[:7], "i4"),
    "nested": [[[1], []], [], [[2, 3]], [[], []], [], [[4]], [[5]]],
    "flags": [[True], [False, True], [], [], [], [True], []],
    "text": ["", "é", "three", "", "5", "sechs", "\N{OWL}"],
    "texts": [["a"], [], ["b", ""], [], [], ["c"], []],
    "bytes": [b"\xff", b"", b"\0", b"3", b"4", b"5", b"6"],
    "record": [{"x": i, "y": [i] * i} for i in range(7)],
    "records": [[{"x": i, "in/ner": {"z": "t" * i}}] * i for i in range(7)],
    "tuple": [(i, [float(i)]) for i in range(7)],
    "option": [1, None, 3, None, None, 6, 7],
    "options": [[None, 1], [], [2], None, [], [None], []],
    "union": [1, "two", [3.5], "four", 5, 6, "seven"],
    "unions": [[1, "two"], [], ["x"], [3], [], [], []],
    "fixed lists": ak.to_regular(ak.Array([[[1], []]] * 7), axis=1),
    "fixed texts": ak.to_regular(ak.Array([["a", "bc"]] * 7), axis=1),
    "nothing": [[]] * 7,
}


def same(a, b):
    return ak.array_equal(a, b, dtype_exact=True, check_parameters=True, equal_nan=True)


@pytest.mark.parametrize("name", SAMPLES)
def test_there_and_back(name):
    array = ak.Array(SAMPLES[name])
    form = form_of(plain_form(array.layout.form))
    parts = decompose(array, form)
    laid_out = {column.path: column for column in columns(form)}
    assert sorted(parts) == sorted(laid_out)
    for path, column in laid_out.items():
        counted = 7 if column.counted_by is None else parts[column.counted_by][-1]
        assert parts[path].shape == (column.rows(int(counted)), *column.inner)
        assert parts[path].dtype == column.dtype
        if path:
            check_name(path)
    for start, stop in [(0, 7), (2, 5), (3, 3), (7, 7)]:
        again = ak.Array(compose(form, start, stop, lambda path, a, b: parts[path][a:b]))
        assert same(again, array[start:stop]), (start, stop)
        assert len(again) == stop - start


@given(
    st.lists(
        st.lists(st.lists(st.one_of(st.integers(-9, 9), st.none()), max_size=3), max_size=3),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_any_lists(values, start, stop):
    array = ak.Array([[[None, 1]], *values])[1:]
    form = form_of(plain_form(array.layout.form))
    parts = decompose(array, form)
    start, stop, _ = slice(start, stop).indices(len(array))
    stop = max(start, stop)
    again = ak.Array(compose(form, start, stop, lambda path, a, b: parts[path][a:b]))
    assert again.to_list() == values[start:stop]
    assert again.type.content == array.type.content


def test_an_array_of_another_type_is_noticed():
    form = form_of({"class": "ListOffsetArray", "offsets": "i64", "content": "float32"})
    for wrong in ([1.5], [[1.5]], [["a"]], [[[1.5]]]):
        with pytest.raises(FormatError, match="where a branch has"):
            decompose(ak.Array(wrong), form)


def test_big_endian_is_turned():
    form = form_of("float32")
    parts = decompose(ak.Array(np.arange(3, dtype="f4")), form)
    assert parts[""].dtype == columns(form)[0].dtype == np.dtype("=f4")


def test_what_has_no_layout_is_refused():
    with pytest.raises(RefusedError, match="IndexedForm"):
        columns(ak.str.to_categorical(ak.Array(["a"])).layout.form)


@pytest.mark.parametrize(
    "name", ["nMuon", "a/b", "", "%", "%2F", ".hidden", "a.b", "..", "x\ny", "é", "a\\b", "\ud800"]
)
def test_escape(name):
    part = escape(name)
    assert "/" not in check_name(part)
    assert unescape(part) == name


@given(st.text(max_size=20), st.text(max_size=20))
def test_escaped_names_stay_different(one, other):
    assert unescape(escape(one)) == one
    assert (escape(one) == escape(other)) is (one == other)


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.mark.parametrize("engine", ["cpu", "joblib"])
def test_reading(con, engine):
    put(con, "one/Events", SAMPLES)
    if engine != "cpu":
        require(engine)
    with dn.Connection(con.name, backend="ram", engine=engine) as other:
        whole = read_columns(other, "one/Events")
        assert whole.fields == list(SAMPLES)
        for name, array in SAMPLES.items():
            assert same(whole[name], ak.Array(array))
        part = read_columns(other, "one/Events", ["text", "n*", "flat"], -5, 6)
    assert part.fields == ["text", "no extent", "nested", "nothing", "flat"]
    assert same(part["nested"], ak.Array(SAMPLES["nested"])[2:6])
    assert read_columns(con, "one/Events", "flat", 5, 2).to_list() == []
    assert read_columns(con, "one/Events", "flat", 5, 99)["flat"].to_list() == [5, 6]


def test_only_the_chunks_that_are_needed_are_read():
    store = CountingStore(MemoryStore())
    name = secrets.token_hex(8)
    use_store(name, store)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        put(con, "Events", {"x": [[i] * i for i in range(30)], "y": np.arange(30)}, chunk=5)
        store.reset()
        found = read_columns(con, "Events", "x", 6, 8)
    assert found["x"].to_list() == [[6] * 6, [7] * 7]
    # Rows 15 to 28 of the content, offsets 6 to 9; each document once.
    assert sorted(store.log) == [
        ("get", "Events/x/content/c/3"),
        ("get", "Events/x/content/c/4"),
        ("get", "Events/x/content/c/5"),
        ("get", "Events/x/content/zarr.json"),
        ("get", "Events/x/offsets/c/1"),
        ("get", "Events/x/offsets/zarr.json"),
        ("get", "Events/zarr.json"),
    ]


def test_a_description_comes_back(con):
    files = (FileRange("a.root", 0, 3), FileRange("s3://b/c.root", 3, 7))
    tree = put(con, "Events", SAMPLES, cycle=4, title="some", files=files, fingerprint="f")
    assert get_tree(con, "Events") == tree
    assert find_trees(con) == {"Events": tree}
    con.set_group_attrs("other", {"tree": "of another kind"})
    assert list(find_trees(con)) == ["Events"]
    with pytest.raises(DatasetNotFoundError, match=r"no tree 'other': it has Events"):
        get_tree(con, "other")


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_a_tree_stays_one_in_a_file(con, tmp_path, suffix):
    require("h5py" if suffix == ".h5" else "zarr")
    put(con, "one/Events", SAMPLES, fingerprint="f")
    con.set_group_attrs("one", {"tree": '{"of": "another kind"}', "branch x": "no JSON"})
    con.export(tmp_path / f"a{suffix}")
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as other:
        other.ingest(tmp_path / f"a{suffix}")
        assert list(find_trees(other)) == ["one/Events"]
        assert other.get_group_attrs("one") == con.get_group_attrs("one")
        found = read_columns(other, "one/Events")
        assert other.query("one/Events", "flat > 2").count() == 4
        for name in list(other):
            del other[name]
    for name, array in SAMPLES.items():
        assert same(found[name], ak.Array(array))


def test_branches_that_come_later_join(con):
    array = ak.Array([1, 2, 3])
    for index, name in [(2, "c"), (0, "a"), (1, "b")]:
        branch = Branch(name, plain_form(array.layout.form), index=index)
        tree = Tree("TTree", "Events", 3, (branch,))
        con.set_group_attrs("Events", {**con.get_group_attrs("Events"), **tree.to_attrs()})
    assert [b.name for b in get_tree(con, "Events").branches] == ["a", "b", "c"]


def test_a_newer_description_is_refused(con):
    tree = put(con, "Events", {"x": [1]})
    attrs = tree.to_attrs()
    attrs["tree"]["version"] = 2
    con.set_group_attrs("Events", attrs)
    with pytest.raises(FormatError, match="version 2"):
        get_tree(con, "Events")
    del attrs["tree"]["entries"]
    attrs["tree"] |= {"version": 1, "entries": 1, "files": [["only a name"]]}
    con.set_group_attrs("Events", attrs)
    with pytest.raises(FormatError, match="broken"):
        get_tree(con, "Events")


def test_what_is_not_whole_is_not_read(con):
    put(con, "Events", {"x": [[1], [2, 3]], "y": [1, 2]}, fingerprint="now")
    with pytest.raises(DatasetNotFoundError, match=r"no branch like 'z\*'"):
        read_columns(con, "Events", "z*")
    del con["Events/y"]
    with pytest.raises(DatasetNotFoundError, match="was skipped or interrupted"):
        read_columns(con, "Events")
    con.create_dataset("Events/y", (1,), "i8")
    with pytest.raises(FormatError, match="ends at row 1"):
        read_columns(con, "Events", "y")
    del con["Events/y"]
    con.create_dataset("Events/y", (2,), "i8", origin={"fingerprint": "before"})
    with pytest.raises(SourceChangedError, match="another state"):
        read_columns(con, "Events", "y")
    del con["Events/y"]
    con.create_dataset("Events/y", (2,), "i8", incomplete=True)
    with pytest.raises(DatasetError, match="is incomplete"):
        read_columns(con, "Events", "y")
    con["Events/x/offsets"][1] = 9
    with pytest.raises(FormatError, match="decreasing"):
        read_columns(con, "Events", "x")


def test_arrow(con):
    pa = require("pyarrow")
    from dosna.columns import to_arrow

    put(con, "Events", {n: SAMPLES[n] for n in ("flat", "jagged", "text", "records")})
    table = to_arrow(con, "Events", ["flat", "jagged", "text"], 1, 4)
    assert table.column_names == ["flat", "jagged", "text"]
    assert table.schema.field("flat").type == pa.uint16()
    assert table.to_pylist() == [
        {"flat": i, "jagged": SAMPLES["jagged"][i], "text": SAMPLES["text"][i]} for i in (1, 2, 3)
    ]
    assert to_arrow(con, "Events", "records")["records"].to_pylist() == SAMPLES["records"]


def test_arrow_has_dates_in_whole_units():
    from dosna.columns.arrow import for_arrow

    times = ak.unflatten(ak.Array(np.array([1, -2, 3], "M8[25s]")), [2, 0, 1])
    taken = for_arrow(times)
    assert str(taken.type) == "3 * var * ?datetime64[s]"
    assert taken.to_list() == times.to_list()


@pytest.mark.parametrize("entries", [3, 0])
def test_arrow_takes_nat_for_missing(con, entries):
    pa = require("pyarrow")
    from dosna.columns import to_arrow

    times = np.array([1, "NaT", "NaT", 2, 3, "NaT"], "M8[s]")
    lists = ak.unflatten(times, [2, 0, 4])
    dates = {"flat": times[:3], "lists": lists, "pairs": times.reshape(3, 2), "optional": lists}
    dates["optional"] = ak.mask(lists, [True, False, True])
    put(con, "Events", dates)
    table = to_arrow(con, "Events", None, 0, entries)
    assert table.schema.field("lists").type == pa.large_list(pa.timestamp("s"))
    assert table.to_pylist() == ak.to_list(ak.Array(dates)[:entries])


MISSING = {
    "text": ["a", None, None],
    "lists": [[1.0], None, None],
    "inside": [["a"], [None], [None, None]],
    "records": [{"t": "a"}, {"t": None}, {"t": None}],
    "numbers": [1, None, None],
    "times": ak.mask(np.array([1, 2, 3], "M8[s]"), [True, False, False]),
    "optional": ak.mask([{"t": "a"}, {"t": None}, {"t": None}], [True, False, False]),
}


def test_arrow_where_all_are_missing(con):
    require("pyarrow")
    from dosna.columns import to_arrow

    put(con, "Events", MISSING)
    found = to_arrow(con, "Events", None, 1).to_pydict()
    assert found == {name: ak.to_list(values[1:]) for name, values in MISSING.items()}


@pytest.mark.parametrize(
    ("entries", "cluster", "chunk"),
    [
        (0, None, 1),
        (1, 1, 1),
        (2421, 100, 2421),
        (None, None, 262_144),
        (None, 1000, 262_000),
        (10**6, 1000, 250_000),
        (10**6, 10_000, 250_000),
        (400_000, 50_000, 200_000),
        (262_145, None, 131_073),
        (263_000, 1000, 132_000),
        (10**6, 262_144, 262_144),
        (10**6, 400_000, 200_000),
        (None, 10**6, 250_000),
    ],
)
def test_chunks_follow_clusters(entries, cluster, chunk):
    assert choose_chunk_entries(entries, cluster) == chunk


@pytest.mark.parametrize(
    ("inner", "itemsize", "rows_per_entry", "chunks"),
    [
        ((), 8, 1, (1000,)),
        ((), 4, 2.5, (2500,)),
        ((), 4, 0.0, (1,)),
        ((3, 0), 4, 1, (1000, 3, 1)),
        ((1000,), 8, 8.0, (1000, 1000)),
        ((1024, 1024), 8, 1, (1, 1024, 1024)),
        ((4096, 1024), 8, 1, (1, 1024, 1024)),
    ],
)
def test_chunks_have_a_bounded_size(inner, itemsize, rows_per_entry, chunks):
    assert column_chunks(1000, inner, itemsize, rows_per_entry) == chunks


TEXT, RAW = ak.Array(["a", "bc"]), ak.Array([b"a", b"bc"])
NUMBERS = ak.values_astype(ak.Array([[97], [98, 99]]), "u1")
FIXED = ak.to_regular(ak.Array([b"abc", b"def"]), axis=1)


@pytest.mark.parametrize("inside", [lambda a: a, lambda a: ak.unflatten(a, [2]), lambda a: a[:0]])
def test_texts_bytes_and_numbers_are_not_each_other(inside):
    for one in (TEXT, RAW, NUMBERS):
        form = ak.to_layout(inside(one)).form
        for other in (TEXT, RAW, NUMBERS):
            if one is other:
                assert decompose(inside(other), form)
            else:
                with pytest.raises(FormatError, match="was given where a branch has"):
                    decompose(inside(other), form)


def test_bytes_of_a_fixed_length(con):
    numbers = ak.to_regular(ak.from_numpy(np.zeros((2, 3), "u1")), axis=1)
    assert [c.inner for c in columns(FIXED.layout.form)] == [(3,)]
    with pytest.raises(FormatError, match="was given where a branch has"):
        decompose(numbers, FIXED.layout.form)
    put(con, "T", {"f": FIXED})
    found = read_columns(con, "T").f
    assert found.type == FIXED.type
    assert found.to_list() == [b"abc", b"def"]
