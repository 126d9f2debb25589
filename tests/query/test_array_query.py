"""Queries of N-dimensional arrays."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import QueryError, QueryTypeError, UnknownNameError

pa = require("pyarrow")

VOLUME = np.random.default_rng(0).integers(-50, 50, (7, 5, 6))


@pytest.fixture(params=[("cpu", {}), ("joblib", {"njobs": 2})], ids=["cpu", "joblib"])
def con(request):
    engine, options = request.param
    with dn.Connection(
        secrets.token_hex(8), backend="ram", engine=engine, engine_kw=options
    ) as connection:
        yield connection


def found(array, mask):
    places = np.nonzero(mask)
    return sorted(zip(*(p.tolist() for p in places), array[mask].tolist(), strict=True))


def rows(table):
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_places_and_values(con):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(3, 5, 4))
    query = ds.query("value > 20")
    assert query.count() == (VOLUME > 20).sum()
    table = query.to_arrow()
    assert table.column_names == ["i0", "i1", "i2", "value"]
    assert rows(table) == found(VOLUME, VOLUME > 20)
    assert pa.Table.from_batches(query.batches(), query.schema) == table
    arrays = query.to_numpy()
    places = tuple(arrays[f"i{axis}"] for axis in range(3))
    assert (VOLUME[places] == arrays["value"]).all()


def test_coordinates_in_the_condition(con):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(3, 5, 4))
    query = ds.query("i1 == 2 && i2 * 2 > i0 + 3 && abs(value) < 10", ["i0", "twice = 2 * value"])
    i, j, k = np.indices(VOLUME.shape)
    mask = (j == 2) & (k * 2 > i + 3) & (abs(VOLUME) < 10)
    wanted = sorted((a, 2 * v) for a, _, _, v in found(VOLUME, mask))
    assert rows(query.to_arrow()) == wanted
    assert ds.query("i0 < 0").to_arrow().num_rows == 0
    assert ds.query().count() == VOLUME.size


def test_fields_of_a_structured_dtype(con):
    data = np.zeros((4, 5), [("x", "f4"), ("n", "i8")])
    data["x"] = np.arange(20).reshape(4, 5) / 2
    data["n"] = np.arange(20).reshape(4, 5) % 3
    ds = con.create_dataset("s", data=data, chunk_size=(2, 2))
    table = ds.query("x > 5 && n == 1").to_arrow()
    assert table.column_names == ["i0", "i1", "x", "n"]
    mask = (data["x"] > 5) & (data["n"] == 1)
    assert sorted(table["x"].to_pylist()) == data["x"][mask].tolist()


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">u2", ">M8[ns]"])
def test_other_byte_orders(con, dtype):
    ak = require("awkward")
    values = np.arange(6).astype(dtype)
    query = con.create_dataset("v", data=values, chunk_size=4).query("i0 > 2")
    native = values.astype(np.dtype(dtype).newbyteorder("="))
    for found in (query.to_arrow()["value"].to_numpy(), ak.to_numpy(query.to_awkward().value)):
        assert found.dtype == native.dtype
        np.testing.assert_array_equal(found, native[3:])


def test_fields_of_other_byte_orders(con):
    data = np.zeros(5, [("p", [("x", ">f4"), ("y", "<f4")]), ("n", ">i2"), ("v", ">f8", (2,))])
    data["p"]["x"], data["n"], data["v"] = np.arange(5), np.arange(5) * 300, [[1, 2]] * 5
    query = con.create_dataset("s", data=data, chunk_size=2).query("p.x > 2 && n < 1200")
    assert query.to_awkward().to_list() == [
        {"i0": 3, "p": {"x": 3.0, "y": 0.0}, "n": 900, "v": [1.0, 2.0]}
    ]


@pytest.mark.parametrize("dtype", ["M8[25s]", ">m8[10ns]", "M8[7D]"])
def test_dates_in_multiples_of_a_unit(con, dtype):
    times = np.array([[1, -3], [2**20, "NaT"]], dtype)
    single = f"{times.dtype.kind}8[{np.datetime_data(times.dtype)[0]}]"
    table = con.create_dataset("t", data=times).query().to_arrow()
    assert np.array_equal(table["value"].to_numpy(), times.ravel().astype(single), equal_nan=True)
    records = np.zeros(2, [("pair", dtype, (2,))])
    records["pair"] = times
    pairs = con.create_dataset("r", data=records).query().to_arrow()["pair"].combine_chunks()
    assert np.array_equal(
        pairs.values.to_numpy(zero_copy_only=False), times.ravel(), equal_nan=True
    )


def test_dates_beyond_those_of_arrow(con):
    days = np.array([2**31 - 1, -(2**31), "NaT"], "M8[D]")
    table = con.create_dataset("d", data=days).query().to_arrow()
    assert table["value"].cast("int32").to_pylist() == [2**31 - 1, -(2**31), None]
    beyond = con.create_dataset("b", data=days[:1] + 1)
    with pytest.raises(ValueError, match="days of dates"):
        beyond.query().to_arrow()
    assert beyond.query().to_numpy()["value"] == days[:1] + 1


def test_fields_that_are_arrays_of_another_byte_order(con):
    data = np.zeros(2, [("v", ">i4", (2,))])
    data["v"] = [[1, 256], [-1, 5]]
    query = con.create_dataset("v", data=data).query()
    assert query.to_arrow()["v"].to_pylist() == data["v"].tolist()


def test_text_of_variable_length(con):
    require("awkward")
    texts = np.array([["a\0b", "", "\u00e9"], ["\U0001f600", "x", "y\0"]], "T")
    ds = con.create_dataset("t", data=texts, chunk_size=(1, 2))
    found = ds.query("i1 != 1").to_awkward()
    assert str(found.value.type) == "4 * string"
    assert sorted(found.value.to_list()) == sorted(texts[:, ::2].ravel().tolist())
    assert ds.query("i0 > 1").to_awkward().value.to_list() == []


@pytest.mark.parametrize("dtype", ["S3", "U3", ">U3"])
def test_text_with_nul_inside(con, dtype):
    texts = np.array(["a\0b", "", "abc", "\0\0c", "d"]).astype(dtype)
    table = con.create_dataset("t", data=texts).query("i0 != 4").to_arrow()
    assert table["value"].to_pylist() == texts[:4].tolist()
    assert con.create_dataset("none", shape=0, dtype=dtype).query().to_arrow().num_rows == 0


def test_fields_with_the_names_of_coordinates(con):
    data = np.zeros(4, [("i0", "f4"), ("value", "i8")])
    data["i0"], data["value"] = [5, 6, 7, 8], [1, 2, 3, 4]
    ds = con.create_dataset("s", data=data, chunk_size=2)
    wanted = {"i0_": [1, 2], "i0": [6.0, 7.0], "value": [2, 3]}
    assert ds.query("i0 > 5 && value < 4").to_arrow().to_pydict() == wanted
    assert ds.query("i0_ == 3").to_numpy()["i0"].tolist() == [8.0]


def test_names_of_axes(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        ds = con.create_dataset("v", data=VOLUME, chunk_size=(3, 5, 4), dims=("z", "y", "x"))
        assert ds.query("z == 1 && value > 0").schema.names == ["z", "y", "x", "value"]
        assert ds.query("z == 1").count() == 30


@pytest.fixture
def boxes_read(monkeypatch):
    """Give a list, to which boxes are added as they are read."""
    from dosna.query import arrays

    boxes, read_box = [], arrays.read_box
    monkeypatch.setattr(arrays, "read_box", lambda ds, box: boxes.append(box) or read_box(ds, box))
    return boxes


I0, I1, I2 = np.indices(VOLUME.shape)


@pytest.mark.parametrize(
    ("where", "columns", "mask", "pruned", "certain", "read"),
    [
        ("value > 20", None, VOLUME > 20, 0, 0, 6),
        ("i0 == 1 && value > 9", None, (I0 == 1) & (VOLUME > 9), 4, 0, 2),
        ("i0 >= 3 && i2 < 4", ["i1"], (I0 >= 3) & (I2 < 4), 4, 2, 0),
        ("i0 >= 3 && i2 < 4", None, (I0 >= 3) & (I2 < 4), 4, 2, 2),
        ("i0 + i2 > 100", None, I0 < 0, 6, 0, 0),
        ("i1 < i0 - 5", ["i0"], I1 < I0 - 5, 4, 0, 0),
        ("!(i0 == 6 || i2 >= 4)", ["value"], (I0 != 6) & (I2 < 4), 4, 2, 2),
        (None, None, I0 >= 0, 0, 0, 6),
    ],
)
def test_what_coordinates_rule_out_is_not_read(
    con, boxes_read, where, columns, mask, pruned, certain, read
):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(3, 5, 4))
    query = ds.query(where, columns)
    explained = query.explain()
    assert boxes_read == []
    assert (explained.entries, explained.ranges, explained.chunks) == (VOLUME.size, 6, 6)
    assert (explained.pruned, explained.certain, explained.read) == (pruned, certain, read)
    assert query.count() == mask.sum()
    del boxes_read[:]
    assert query.to_arrow().num_rows == mask.sum()
    assert len(boxes_read) == read
    assert rows(ds.query(where).to_arrow()) == found(VOLUME, mask)


def test_what_an_explanation_says(con):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(3, 5, 4))
    explained = ds.query("i0 == 1 && value > 9").explain()
    assert explained.nbytes == 3 * 5 * 6 * VOLUME.itemsize
    assert str(explained).splitlines() == [
        "entries: 210 in 6 ranges",
        "ruled out without reading: 4 ranges; certain: 0",
        "chunks: 6, of which at most 2 are read (720 B)",
        "condition: i0 == 1 [computed here; coordinates i0]",
        "condition: value > 9 [computed here; no zones]",
    ]
    empty = con.create_dataset("e", shape=(0, 3), dtype="f4", chunk_size=(1, 3))
    assert empty.query("i0 > 2 && value > 0").explain().entries == 0
    assert empty.query("i0 > 2 && value > 0").count() == 0
    scalar = con.create_dataset("scalar", data=np.float32(3))
    assert scalar.query("value > 2").explain().read == 1


def test_arrays_of_one_axis_and_none(con):
    line = con.create_dataset("line", data=np.arange(10), chunk_size=4)
    assert line.query("value >= 8").to_numpy()["i0"].tolist() == [8, 9]
    scalar = con.create_dataset("scalar", data=np.float32(3))
    assert scalar.query("value > 2").to_arrow().to_pydict() == {"value": [3.0]}


def test_errors(con):
    ds = con.create_dataset("v", data=VOLUME)
    with pytest.raises(UnknownNameError, match="value"):
        ds.query("values > 3")
    with pytest.raises(QueryTypeError, match="condition"):
        ds.query("value + 3")
    with pytest.raises(QueryError, match="query"):
        ds.query("value >")
    with pytest.raises(QueryError, match="int"):
        ds.query(5)
    with pytest.raises(QueryTypeError, match="Arrow"):
        con.create_dataset("c", data=np.arange(3) * 1j).query("value != 1").to_arrow()
    with pytest.raises(QueryTypeError, match="int"):
        ds.query("value > 3", 5)
    with pytest.raises(ValueError, match="batch_rows"):
        ds.query("value > 3", batch_rows=0)


def test_text_that_is_not_unicode(con):
    require("awkward")
    query = con.create_dataset("t", data=np.array(["a", "\ud800"])).query()
    for convert in (query.to_arrow, query.to_awkward):
        with pytest.raises(QueryTypeError, match=r"'value' .* surrogates.*to_numpy"):
            convert()
    assert query.to_numpy()["value"].tolist() == ["a", "\ud800"]


@pytest.mark.parametrize("dtype", ["V3", [("x", "i4"), ("y", [("z", "i2")])]])
def test_elements_that_only_numpy_has(con, dtype):
    require("awkward")
    records = np.zeros(2, [("r", dtype)])
    query = con.create_dataset("r", data=records).query()
    for convert in (query.to_arrow, query.to_awkward):
        with pytest.raises(QueryTypeError, match=r"'r' .* no type: use to_numpy"):
            convert()
    np.testing.assert_array_equal(query.to_numpy()["r"], records["r"])


@pytest.mark.parametrize("dtype", ["U2", "T"])
def test_text_is_compared(con, dtype):
    words = np.array([["a", "\u00e9b"], ["", "a"], ["a", "c"]], dtype)
    ds = con.create_dataset("words", data=words, chunk_size=(2, 1))
    for where, wanted in (
        ("value == 'a'", words == "a"),
        ("'\u00e9b' != value", words != "\u00e9b"),
        ("value in ('', 'c') && i0 > 0", (words == "") | (words == "c")),
        ("value == value", np.ones((3, 2), bool)),
    ):
        found = ds.query(where).to_numpy()
        assert sorted(zip(found["i0"], found["i1"], strict=True)) == list(
            zip(*np.nonzero(wanted), strict=True)
        )
        assert ds.query(where).count() == np.count_nonzero(wanted)
    for where in ("value < 'b'", "value == 5", "value"):
        with pytest.raises(QueryTypeError, match="value"):
            ds.query(where)


def test_bytes_are_text_in_csv(con, tmp_path):
    from pyarrow import csv

    from dosna.query.output import write

    values = np.array([b"a", b"\xff\xe9", "\u00e9".encode(), b""])
    query = con.create_dataset("b", data=values, chunk_size=2).query()
    write(query, tmp_path / "b.csv")
    assert csv.read_csv(tmp_path / "b.csv")["value"].to_pylist() == [
        "a",
        "\\xff\\xe9",
        "\u00e9",
        "",
    ]


def test_time_spans_have_their_unit_in_csv(con, tmp_path):
    from dosna.query.output import write

    spans = np.array([5, -3, "NaT", 2**62], "m8[s]")
    write(con.create_dataset("s", data=spans).query(columns="value"), tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().split("\n")[1:5] == [
        '"5 s"',
        '"-3 s"',
        "",
        f'"{2**62} s"',
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("dtype", ["M8[s]", "M8[D]", "M8[us]"])
def test_dates_that_a_format_does_not_have(con, tmp_path, dtype, ending):
    from pyarrow import csv, parquet

    from dosna.query.output import write

    dates = np.array([0, 1, "NaT"], dtype)
    query = con.create_dataset("t", data=dates).query()
    write(query, tmp_path / f"there.{ending}")
    read = csv.read_csv if ending == "csv" else parquet.read_table
    found = read(tmp_path / f"there.{ending}")["value"].to_numpy()
    np.testing.assert_array_equal(found.astype(dtype), dates)
    con["t"][1] = np.array(2**31 - 1 if dtype == "M8[D]" else 2**62).astype(dtype)
    if (ending, dtype) in {("parquet", "M8[D]"), ("parquet", "M8[us]")}:
        write(query, tmp_path / "far.parquet")
    else:
        with pytest.raises(QueryError, match="file of Arrow"):
            write(query, tmp_path / f"far.{ending}")
    write(query, tmp_path / "far.arrow")


@pytest.mark.parametrize("dtype", ["M8[D]", "m8[s]"])
def test_times_that_python_does_not_have(con, dtype, tmp_path):
    from dosna.query.output import as_python, write

    records = np.zeros(2, [("pair", dtype, (2,))])
    records["pair"][1] = np.array(2**31 - 1 if dtype == "M8[D]" else 2**62).astype(dtype)
    query = con.create_dataset("t", data=records).query()
    for convert in (lambda: write(query, tmp_path / "t.csv"), lambda: as_python(query.to_arrow())):
        with pytest.raises(QueryError, match=r"dates or time spans .* Parquet"):
            convert()
