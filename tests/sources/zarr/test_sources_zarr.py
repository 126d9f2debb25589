"""Zarr as a source: stores that others made, grew, and left without documents of groups."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import pytest
from support import require

zarr = require("zarr")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning"),
]


@pytest.fixture
def con(tmp_path):
    (tmp_path / "out").mkdir()
    with dn.Connection(str(tmp_path / "out"), backend="file", engine="cpu") as connection:
        yield connection


def open_or_path(path, how):
    return zarr.open_group(path, mode="r") if how == "open" else str(path)


# What is there, and not what a copy of metadata says


@pytest.mark.parametrize("how", ["path", "open"])
@pytest.mark.parametrize("version", [2, 3])
def test_copies_of_metadata_are_not_believed(con, tmp_path, version, how):
    path = tmp_path / "in.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("a", shape=(5,), chunks=(5,), dtype="i8")[...] = np.arange(5)
    group.create_array("gone", shape=(1,), dtype="i8")[...] = 1
    group.create_group("g").create_array("b", shape=(2,), dtype="i8")[...] = 1
    zarr.consolidate_metadata(path)
    opened = open_or_path(path, how)
    zarr.open_array(path / "a", mode="a").append(np.array([50, 60, 70]))
    zarr.open_group(path, mode="a", use_consolidated=False)["c"] = np.arange(6)
    zarr.open_group(path / "g", mode="a").attrs["of"] = "late"
    for file in (path / "gone").rglob("*"):
        if file.is_file():
            file.unlink()
    assert con.ingest(opened).made == ["a", "c", "g/b"]
    assert con["a"][...].tolist() == [0, 1, 2, 3, 4, 50, 60, 70]
    assert con.get_group_attrs("g") == {"of": "late"}


@pytest.mark.parametrize("how", ["path", "open"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("root", [True, False])
def test_arrays_in_folders_without_a_document_are_found(con, tmp_path, root, version, how):
    path = tmp_path / "in.zarr"
    if root or how == "open":
        zarr.open_group(path, mode="w", zarr_format=version)["ok"] = np.arange(3)
    for name in ("g/h/a", "g/b"):
        zarr.create_array(path / name, shape=(4,), dtype="i4", zarr_format=version)[...] = 7
    for document in ("zarr.json", ".zgroup", ".zattrs"):
        for group in ("g", "g/h"):
            if (path / group / document).exists():
                (path / group / document).unlink()
    made = con.ingest(open_or_path(path, how)).made
    assert made == ["g/b", "g/h/a", *["ok"] * (root or how == "open")]
    assert con["g/h/a"][...].tolist() == [7] * 4
    assert con.ingest(f"{path}:g/h", "inner").made == ["inner/g/h/a"]
    assert con.ingest(f"{path}:g/h/a", "one").made == ["one"]


@pytest.mark.parametrize("version", [2, 3])
def test_nodes_whose_names_begin_with_a_dot_are_found(con, tmp_path, version):
    path = tmp_path / "in.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=version)
    for name in (".x", "g/.y", ".h/z", "..w"):
        root.create_array(name, shape=(4,), dtype="i4")[...] = 7
    for name in (".creating-1", ".deleting-1", ".replacing-1/new", ".in.1-2.part"):
        zarr.create_array(path / name, shape=(4,), dtype="i4", zarr_format=version)
    zarr.create_array(path / ".cache" / "a", shape=(4,), dtype="i4", zarr_format=version)
    for document in ("zarr.json", ".zgroup"):
        (path / ".cache" / document).unlink(missing_ok=True)
    assert con.ingest(str(path)).made == ["%2E.w", "%2Eh/z", "%2Ex", "g/%2Ey"]
    assert con["%2Eh/z"][...].tolist() == [7] * 4
    assert con["%2Ex"].origin["name"] == ".x"


def test_a_folder_in_itself_ends(con, tmp_path):
    path = tmp_path / "in.zarr"
    zarr.create_array(path / "g" / "a", shape=(4,), dtype="i4")
    os.symlink(path, path / "g" / "again")
    os.symlink(path / "g" / "a", path / "linked")
    assert con.ingest(str(path)).made == ["g/a", "linked"]


def test_arrays_in_many_folders_are_found(con, tmp_path):
    name = "/".join("a" * 120)
    zarr.create_array(tmp_path / "in.zarr" / name, shape=(4,), dtype="i4")
    assert con.ingest(str(tmp_path / "in.zarr")).made == [name]


def test_a_folder_is_known_by_what_it_holds(con, tmp_path):
    zarr.create_array(tmp_path / "three", shape=(3,), dtype="i4")[...] = 3
    zarr.create_array(tmp_path / "two.h6", shape=(3,), dtype="i4", zarr_format=2)[...] = 2
    zarr.create_group(tmp_path / "group", zarr_format=2)["a"] = np.arange(2)
    assert con.ingest(tmp_path / "three").made == ["three"]
    assert con.ingest(str(tmp_path / "two.h6")).made == ["two.h6"]
    assert con.ingest(f"{tmp_path / 'group'}:a").made == ["a"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(errors.SourceError, match="kind of the source"):
        con.ingest(tmp_path / "nothing")
    with pytest.raises(errors.SourceNotFoundError, match="no Zarr array or group"):
        con.ingest(tmp_path / "nothing", kind="zarr")


# One array that cannot be read, beside good ones


def spoil(path, how):
    """Make the array x of a group one that zarr-python cannot read."""
    group = zarr.open_group(path, mode="w")
    group["ok"] = np.arange(3)
    group.create_group("g")["fine"] = np.arange(2)
    x = group.create_array("x", shape=(3,), dtype="f4")
    x[...] = 1
    changes = {
        "data type": {"data_type": "bfloat16"},
        "codec": {"codecs": [{"name": "example.org/foo", "configuration": {}}]},
        "chunk grid": {"chunk_grid": {"name": "example.org/grid", "configuration": {}}},
        "shape": {"shape": "many"},
        "nesting": {},
    }
    document = path / "x" / "zarr.json"
    if how in changes:
        document.write_text(json.dumps(json.loads(document.read_text()) | changes[how]))
    if how == "nesting":
        document.write_text("[" * 100_000)
    if how == "no JSON":
        document.write_bytes(b"\0{")
    if how == "no object":
        document.write_text("[]")


SPOILT = [
    "data type",
    "codec",
    "chunk grid",
    "shape",
    "no JSON",
    "no object",
    "nesting",
]


@pytest.mark.parametrize("how", SPOILT)
def test_an_array_that_cannot_be_read_is_named_and_left_out(con, tmp_path, how):
    path = tmp_path / "in.zarr"
    spoil(path, how)
    with pytest.raises(errors.RefusedError, match="'x': it cannot be"):
        con.ingest(path)
    assert list(con) == []
    assert con.ingest(path, select=["ok"]).made == ["ok"]
    report = con.ingest(path, on_error="skip")
    assert report.made == ["g/fine"]
    assert report.skipped.keys() == {"x"}
    assert con["ok"][...].tolist() == [0, 1, 2]


@pytest.mark.parametrize("how", SPOILT)
def test_datasets_beside_one_that_cannot_be_opened(con, tmp_path, how, capsys):
    from dosna.cli import main

    path = tmp_path / "in.zarr"
    spoil(path, how)
    with dn.Connection(str(path), backend="file", engine="cpu") as broken:
        assert sorted(broken) == ["g/fine", "ok", "x"]
        with pytest.raises(errors.FormatError, match="x"):
            broken["x"]
        with pytest.raises(errors.RefusedError, match="'x'"):
            con.ingest(broken)
        report = con.ingest(broken, on_error="skip")
        assert report.made == ["g/fine", "ok"]
        assert report.skipped.keys() == {"x"}
        xr = require("xarray")
        from dosna.integrations.xarray import DosnaEntrypoint

        with pytest.warns(UserWarning, match="'x' is left out"):
            opened = xr.open_dataset(broken, engine=DosnaEntrypoint)
        assert opened["ok"].values.tolist() == [0, 1, 2]
    assert main(["info", f"file:{path}"]) == 0
    said = capsys.readouterr()
    assert "x cannot be opened" in said.err
    assert "datasets" in said.out


def test_damaged_text_is_found_when_it_is_read(con, tmp_path):
    group = zarr.open_group(tmp_path / "in.zarr", mode="w")
    group["ok"] = np.arange(3)
    group["x"] = np.array(["a", "b", "c"], "T")
    (tmp_path / "in.zarr" / "x" / "c" / "0").write_bytes(b"junk")
    with pytest.raises(errors.SourceError, match=r"'x' of .* cannot be read"):
        con.ingest(tmp_path / "in.zarr")
    report = con.ingest(tmp_path / "in.zarr", on_error="skip")
    assert report.skipped.keys() == {"x"}
    assert con["ok"][...].tolist() == [0, 1, 2]
    assert con["x"].incomplete


def test_all_that_cannot_be_opened_is_an_error_in_xarray(tmp_path):
    xr = require("xarray")
    from dosna.integrations.xarray import DosnaEntrypoint

    spoil(tmp_path / "in.zarr", "codec")
    with dn.Connection(str(tmp_path / "in.zarr"), backend="file", engine="cpu") as broken:
        del broken["ok"]
        with pytest.raises(errors.FormatError, match=r"example\.org/foo"):
            xr.open_dataset(broken, engine=DosnaEntrypoint)


# Version 2, as xarray means it


CASES = {
    "scaled": (np.array([280.5, np.nan, 281.0]), {"dtype": "i2", "scale_factor": 0.01,
               "add_offset": 273.15, "_FillValue": np.int16(-32768)}),
    "float": (np.array([1, np.nan, 3], "f4"), {"_FillValue": np.float32(-999)}),
    "nan": (np.array([1, np.nan, 3]), {"_FillValue": np.nan}),
    "unsigned": (np.array([1.0, np.nan, 200.0]), {"dtype": "i1", "_Unsigned": "true",
                 "_FillValue": np.int8(-1)}),
    "date": (np.array(["2000-01-01", "NaT", "2001-01-01"], "M8[ns]"), {}),
    "none": (np.array([0, 1, 2]), {}),
    "zero": (np.array([0.0, 1, 2]), {"_FillValue": None}),
    "complex": (np.array([1, -9, 3], "c16"), {"_FillValue": complex(-9)}),
    "char": (np.array([b"a", b"", b"c"], "S1"), {}),
    "text": (np.array(["a", "", "c"], "U1"), {}),
    "flags": (np.array([True, False, True]), {}),
}  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_for_xarray_is_missing_afterwards(con, tmp_path, case, version):
    xr = require("xarray")
    from dosna.integrations.xarray import DosnaEntrypoint

    values, encoding = CASES[case]
    path = tmp_path / "in.zarr"
    data = xr.Dataset({"v": ("x", values, {"long_name": "a"})})
    data["v"].encoding = encoding
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.to_zarr(path, zarr_format=version)
    wanted = xr.open_zarr(path)["v"]
    con.ingest(path)
    for found in (
        xr.open_dataset(con, engine=DosnaEntrypoint)["v"],
        xr.open_zarr(con.instance.path, consolidated=False)["v"],
    ):
        assert found.dims == wanted.dims
        assert found.attrs == wanted.attrs
        if case != "text":
            assert found.dtype == wanted.dtype
        assert np.array_equal(found.values, wanted.values, equal_nan=values.dtype.kind in "fcM")
    assert "_ARRAY_DIMENSIONS" not in con["v"].attrs
    assert con["v"].dims == ("x",)


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ns]"])
def test_times_without_a_fill_value_are_missing_where_they_grow(con, tmp_path, dtype):
    path = tmp_path / "in.zarr"
    made = zarr.create_array(path, shape=(4,), chunks=(2,), dtype=dtype, zarr_format=2)
    made[:2] = np.array([1, 2], dtype)
    stored = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**stored, "fill_value": None}))
    con.ingest(str(path), "when")
    con["when"].resize((6,))
    expected = zarr.open_array(path, mode="a")
    expected.resize((6,))
    np.testing.assert_array_equal(con["when"][...], expected[...])
    assert np.isnat(con["when"][...]).tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize("dims", [1, ["x"], "xy", ["x", 2], None, {}])
def test_names_of_axes_that_are_none_stay_an_attribute(con, tmp_path, dims):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 2), dtype="i4", zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = dims
    con.ingest(tmp_path / "a.zarr")
    assert con["a"].dims is None
    assert dict(con["a"].attrs) == {"_ARRAY_DIMENSIONS": dims}


# Attributes of dosna's own


def test_attributes_survive_the_way_through_a_file(con, tmp_path):
    attrs = {
        "px": np.float32(6.5e-6),
        "o": np.array([1.0, 2]),
        "nan": float("nan"),
        "when": np.datetime64("2020-01-01"),
        "nested": {"k": np.arange(2)},
        "_FillValue": np.int16(3),
    }
    con.create_dataset("g/x", data=np.arange(3, dtype="i2"), attrs=attrs)
    con.set_group_attrs("g", attrs)
    con.export(tmp_path / "exported.zarr")
    for path in (con.instance.path, tmp_path / "exported.zarr"):
        with dn.Connection("memory", backend="ram", engine="cpu") as ram:
            ram.ingest(path, kind="zarr", overwrite=True)
            for found in (dict(ram["g/x"].attrs), ram.get_group_attrs("g")):
                assert found.keys() == attrs.keys()
                for name, value in attrs.items():
                    assert type(found[name]) is type(value)
                assert found["px"] == attrs["px"]
                assert found["nested"]["k"].tolist() == [0, 1]
                assert np.isnan(found["nan"])


# A store of version 2 is no place for datasets


def test_a_connection_says_that_a_folder_is_of_version_2(tmp_path):
    zarr.create_group(tmp_path / "old.zarr", zarr_format=2)["a"] = np.arange(3)
    for path in ("old.zarr", "old.zarr/a"):
        for mode in "ra":
            con = dn.Connection(str(tmp_path / path), backend="file", mode=mode)
            with pytest.raises(errors.ConnectionError, match=r"version 2.*con\.ingest"):
                con.connect()
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        assert list(con) == []
        with pytest.raises(errors.DatasetNotFoundError, match="version 2"):
            con["old.zarr/a"]
        for name in ("old.zarr/b", "old.zarr/g/b"):
            with pytest.raises(errors.DatasetNameError, match="version 2"):
                con.create_dataset(name, (3,))
            with pytest.raises(errors.DatasetNameError, match="version 2"):
                con.set_group_attrs(name, {"a": 1})
    assert sorted(zarr.open_group(tmp_path / "old.zarr", mode="r")) == ["a"]
    assert sorted(os.listdir(tmp_path / "old.zarr")) == [".zattrs", ".zgroup", "a"]


def test_a_store_of_bytes_says_that_it_is_of_version_2():
    import secrets

    from dosna.testing import MemoryStore, use_store

    store, name = MemoryStore(), secrets.token_hex(8)
    use_store(name, store)
    store.put(".zgroup", b'{"zarr_format": 2}')
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        with pytest.raises(errors.FormatError, match="version 2"):
            list(con)
        with pytest.raises(errors.FormatError, match="version 2"):
            con.create_dataset("x", (3,))
    assert list(store.list("")) == [".zgroup"]


# What the netCDF library writes as NCZarr


@pytest.mark.parametrize("how", ["path", "open"])
@pytest.mark.parametrize("dtype", ["|u1", "|S1", "<i4", ">f8"])
def test_shuffled_arrays_without_a_size_of_elements(con, tmp_path, how, dtype):
    codecs = require("numcodecs")
    path = tmp_path / "in.zarr"
    values = np.arange(24).reshape(4, 6).astype(dtype)
    array = zarr.open_group(path, mode="w", zarr_format=2).create_array(
        "a",
        shape=values.shape,
        chunks=(2, 3),
        dtype=dtype,
        filters=[codecs.Shuffle(values.itemsize), codecs.Zlib()],
        compressors=codecs.Fletcher32(),
    )
    array[...] = values
    array.attrs["units"] = "m"
    # The same document as netCDF-C 4.10 writes it with zlib=True, fletcher32=True.
    document = json.loads((path / "a" / ".zarray").read_text())
    document["filters"][0]["elementsize"] = 0
    document["dtype"] = dtype.replace("|", "<")
    (path / "a" / ".zarray").write_text(json.dumps(document))
    con.ingest(open_or_path(path, how))
    np.testing.assert_array_equal(con["a"][...], values)
    assert con["a"].dtype == values.dtype
    assert con["a"].attrs["units"] == "m"
