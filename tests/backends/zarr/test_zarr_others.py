"""Zarr as others mean it: what zarr-python, xarray and TensorStore do to dosna's arrays, and back.

What zarr-python writes since version 3.2 stands here as documents, for Python 3.11 has 3.1.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import struct
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HANG, require

zarr = require("zarr")
require("numcodecs")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.backends import resizing  # noqa: E402
from dosna.codecs import zarr as zarr3  # noqa: E402
from dosna.core.metadata import new_metadata  # noqa: E402
from dosna.core.values import decode_value, encode_attrs  # noqa: E402
from dosna.testing import MemoryStore, use_store  # noqa: E402
from dosna.testing.samples import check  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as connection:
        yield connection


def document_of(path):
    return json.loads((path / "zarr.json").read_text())


def rewrite(path, **changes):
    """Change a document as a program that keeps what it does not know."""
    (path / "zarr.json").write_text(json.dumps(document_of(path) | changes, indent=2))


# Records

RECORD = np.array(
    [(1, 2.5, (3, b"ab")), (-4, 4.5, (5, b"c"))],
    [("a", "<i4"), ("b", "<f8"), ("c", [("d", "<i2"), ("e", "S2")])],
)


def as_struct(dtype):
    """Spell a dtype as zarr-python 3.2 and later do."""
    names = {"<i4": "int32", "<f8": "float64", "<i2": "int16"}

    def spelt(kind):
        if kind.names is not None:
            return as_struct(kind)
        if kind.kind == "S":
            return {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2}}
        return names[kind.newbyteorder("<").str]

    fields = [{"name": name, "data_type": spelt(dtype[name])} for name in dtype.names]
    return {"name": "struct", "configuration": {"fields": fields}}


@pytest.mark.parametrize("endian", ["little", "big"])
def test_records_are_read_as_newer_zarr_python_writes_them(con, tmp_path, endian):
    con.create_dataset("x", data=RECORD, checksum=False)
    values = RECORD.astype(RECORD.dtype.newbyteorder("<" if endian == "little" else ">"))
    rewrite(
        tmp_path / "x",
        data_type=as_struct(RECORD.dtype),
        fill_value={"a": 7, "b": "NaN", "c": {"d": -1, "e": "eHk="}},
        codecs=[{"name": "bytes", "configuration": {"endian": endian}}],
        shape=[4],
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2]}},
    )
    (tmp_path / "x" / "c" / "0").write_bytes(values.tobytes())
    ds = con["x"]
    assert ds.dtype == values.dtype
    assert np.array_equal(ds[:2], RECORD)
    filled = ds[3]
    assert filled["a"] == 7
    assert np.isnan(filled["b"])
    assert filled["c"].tolist() == (-1, b"xy")
    ds[3] = RECORD[1]
    ds.attrs["a"] = 1
    assert con["x"][3] == RECORD[1]
    assert document_of(tmp_path / "x")["fill_value"]["c"] == {"d": -1, "e": "eHk="}


@pytest.mark.parametrize("endian", ["little", "big", None])
def test_the_byte_order_of_older_records_is_obeyed(con, tmp_path, endian):
    con.create_dataset("x", data=RECORD, checksum=False)
    values = RECORD.astype(RECORD.dtype.newbyteorder(">" if endian == "big" else "<"))
    configuration = {"configuration": {"endian": endian}} if endian else {}
    rewrite(tmp_path / "x", codecs=[{"name": "bytes", **configuration}])
    (tmp_path / "x" / "c" / "0").write_bytes(values.tobytes())
    assert np.array_equal(con["x"][...], RECORD)


def test_records_have_the_byte_order_that_zarr_python_warns_without(con, tmp_path):
    con.create_dataset("x", data=RECORD, checksum=False)
    document = document_of(tmp_path / "x")
    assert document["data_type"]["name"] == "structured"
    assert document["codecs"] == [{"name": "bytes", "configuration": {"endian": "little"}}]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        theirs = zarr.open_array(tmp_path / "x")
    assert np.array_equal(theirs[...], RECORD)


def test_a_handle_goes_on_when_zarr_python_has_spelt_its_records_anew(con, tmp_path):
    ds = con.create_dataset("x", data=RECORD, chunk_size=2)
    rewrite(
        tmp_path / "x",
        data_type=as_struct(RECORD.dtype),
        fill_value={"a": 0, "b": 0.0, "c": {"d": 0, "e": ""}},
        attributes={"theirs": 1},
    )
    ds.append(RECORD)
    assert ds.attrs["theirs"] == 1
    assert np.array_equal(con["x"][...], np.concatenate([RECORD, RECORD]))


@pytest.mark.parametrize(
    "fields",
    [[], [["a"]], [[1, "int8"]], [["a", "int8"], ["a", "int8"]], [{"name": "a"}], {"a": 1}],
)
def test_broken_fields_are_refused(fields):
    made = json.loads(zarr3.to_json(zarr3.new_array(new_metadata((2,), RECORD.dtype))))
    made["data_type"] = {"name": "struct", "configuration": {"fields": fields}}
    with pytest.raises(errors.FormatError):
        zarr3.from_json(json.dumps(made).encode(), "it")


def test_documents_nested_without_end_are_refused():
    made = json.loads(zarr3.to_json(zarr3.new_array(new_metadata((2,), "f4"))))
    text = json.dumps({**made, "attributes": {"a": 0}})
    for depth in (200, 100_000):
        nested = text.replace('{"a": 0}', '{"a": ' + "[" * depth + "]" * depth + "}")
        with pytest.raises(errors.FormatError, match="deep"):
            zarr3.from_json(nested.encode(), "it")


def test_arrays_of_equal_documents_are_independent(con, tmp_path):
    for name in "ab":
        zarr.create_array(
            tmp_path / name, shape=(4,), chunks=(3,), dtype="i4", attributes={"n": [1]}
        )
    assert (tmp_path / "a" / "zarr.json").read_bytes() == (
        tmp_path / "b" / "zarr.json"
    ).read_bytes()
    a, b = con["a"], con["b"]
    a.attrs["n"].append(2)  # of a copy
    a.attrs["m"] = 3
    a.resize(6)
    assert (dict(a.attrs), a.shape) == ({"n": [1], "m": 3}, (6,))
    for found in (b, con["b"]):
        assert (dict(found.attrs), found.shape) == ({"n": [1]}, (4,))


def test_a_document_that_was_read_before_is_not_taken_for_another(con, tmp_path):
    con.create_dataset("a", data=np.arange(4))
    assert con["a"].shape == (4,)
    place = tmp_path / "a" / "zarr.json"
    before = place.read_bytes()
    place.write_bytes(before[:-1])
    with pytest.raises(errors.FormatError, match=str(place)):
        con["a"]
    place.write_bytes(before)
    assert con["a"].shape == (4,)


def test_attributes_of_what_is_no_group_are_none(con, tmp_path):
    con.set_group_attrs("g", {"a": 1})
    con.create_dataset("d", shape=3, attrs={"a": 2})
    assert (con.get_group_attrs("g"), con.get_group_attrs("d")) == ({"a": 1}, {})
    (tmp_path / "g" / "zarr.json").write_text("{")
    assert con.get_group_attrs("g") == {}


# Shapes that others change


def test_what_another_program_cut_off_between_two_looks_is_fill(con, tmp_path):
    con.create_dataset("x", data=np.arange(10), chunk_size=4, fillvalue=-1)
    theirs = zarr.open_array(tmp_path / "x", mode="a")
    theirs.resize((12,))
    theirs[10:] = [77, 88]
    theirs.resize((10,))
    ds = con["x"]
    ds.resize(12)
    assert ds[...].tolist() == [*range(10), -1, -1]
    assert zarr.open_array(tmp_path / "x")[...].tolist() == [*range(10), -1, -1]


def test_what_tensorstore_cut_off_between_two_looks_is_fill(con, tmp_path):
    tensorstore = require("tensorstore")
    con.create_dataset("x", data=np.arange(10), chunk_size=4, fillvalue=-1, shards=8)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/x"}}
    theirs = tensorstore.open(spec).result().resize(exclusive_max=[12]).result()
    theirs[10:].write(np.array([77, 88])).result()
    theirs.resize(exclusive_max=[10]).result()
    ds = con["x"]
    ds.append([10])
    ds.resize(13)
    assert ds[...].tolist() == [*range(11), -1, -1]


@pytest.mark.parametrize("what", ["attribute", "append"])
def test_an_older_document_written_back_is_told_of(con, tmp_path, what):
    ds = con.create_dataset("x", data=np.arange(4), chunk_size=3, fillvalue=-1)
    theirs = zarr.open_array(tmp_path / "x", mode="r+")
    ds.append([9, 9, 9, 9])
    if what == "attribute":
        theirs.attrs["theirs"] = 1
    else:
        theirs.append(np.array([5]))
    with pytest.warns(UserWarning, match="older one again"):
        ds.refresh()
    shape = (4,) if what == "attribute" else (5,)
    assert ds.shape == shape
    ds.resize(9)
    assert ds[...].tolist() == [0, 1, 2, 3, *[5] * (what == "append")] + [-1] * (9 - shape[0])


def test_changes_by_both_are_told_of_by_nobody(con, tmp_path):
    ds = con.create_dataset("x", data=np.arange(4), chunk_size=3, fillvalue=-1)
    for n in range(3):
        ds.append([n])
        zarr.open_array(tmp_path / "x", mode="r+").append(np.array([n]))
        zarr.open_array(tmp_path / "x", mode="r+").attrs["n"] = n
        ds.refresh()
    assert ds[...].tolist() == [0, 1, 2, 3, 0, 0, 1, 1, 2, 2]


def test_a_document_that_dosna_wrote_needs_no_look_at_the_chunks(con, tmp_path):
    con.create_dataset("x", data=np.arange(4), chunk_size=3).append([1])
    assert con["x"].instance.metadata.trimmed
    zarr.open_array(tmp_path / "x", mode="r+").attrs["a"] = 1
    assert not con["x"].instance.metadata.trimmed
    con["x"].append([1])
    assert con["x"].instance.metadata.trimmed


# Copies of metadata


def consolidated(path):
    return {
        str(found.parent.relative_to(path))
        for found in path.rglob("zarr.json")
        if json.loads(found.read_text()).get("consolidated_metadata") is not None
    }


CHANGES = {
    "append": lambda con: con["g/a"].append([4, 5]),
    "attribute": lambda con: con["g/a"].attrs.update(unit="mm"),
    "delete": lambda con: con.del_dataset("g/a"),
    "create": lambda con: con.create_dataset("g/h/b", data=[1, 2]),
    "create beside": lambda con: con.create_dataset("b", data=[1, 2]),
    "attributes of a group": lambda con: con.set_group_attrs("g", {"of": 1}),
    "resize": lambda con: con["g/a"].resize(2),
    "replace": lambda con: con.ingest({"g/a": np.arange(3.0)}, overwrite=True),
}


@pytest.fixture
def consolidated_group(tmp_path):
    root = zarr.open_group(tmp_path / "out", mode="w")
    group = root.create_group("in").create_group("g")
    group.create_array("a", shape=(4,), chunks=(2,), dtype="i4")[...] = np.arange(4)
    root["in"].create_group("other").create_array("c", shape=(4,), dtype="i4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in ("out", "out/in", "out/in/g", "out/in/other"):
            zarr.consolidate_metadata(tmp_path / path)
    return tmp_path / "out"


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_metadata_are_dropped_where_they_would_be_wrong(consolidated_group, change):
    path = consolidated_group
    assert consolidated(path) == {".", "in", "in/g", "in/other"}
    with dn.Connection(str(path / "in"), backend="file", engine="cpu") as con:
        CHANGES[change](con)
        expected = {name: con[name][...].tolist() for name in con}
        attrs = {name: dict(con[name].attrs) for name in con}
    kept = {"in/g", "in/other"} if change == "create beside" else {"in/other"}
    assert consolidated(path) == kept
    group = zarr.open_group(path, mode="r")["in"]
    found = {name: a for name, a in group.members(max_depth=None) if isinstance(a, zarr.Array)}
    assert {name: a[...].tolist() for name, a in found.items()} == expected
    assert {name: dict(a.attrs) for name, a in found.items()} == attrs


@pytest.mark.parametrize("change", CHANGES)
def test_stores_of_bytes_drop_them_too(change):
    store = MemoryStore()
    name = secrets.token_hex(8)
    use_store(name, store)
    with dn.Connection(name, backend="memory", engine="cpu") as con:
        con.create_dataset("g/a", data=np.arange(4), chunk_size=2)
        for key in ("zarr.json", "g/zarr.json"):
            document = json.loads(store.get(key).data)
            document["consolidated_metadata"] = {"kind": "inline", "metadata": {"a": {}}}
            store.put(key, json.dumps(document).encode())
        CHANGES[change](con)
        assert "consolidated_metadata" not in json.loads(store.get("zarr.json").data)
        rest = store.get("g/zarr.json")
        assert (rest is not None and b"consolidated" in rest.data) == (change == "create beside")


def test_writing_elements_leaves_copies_of_metadata(consolidated_group):
    with dn.Connection(str(consolidated_group), backend="file", engine="cpu") as con:
        con["in/g/a"][0] = 9
    assert consolidated(consolidated_group) == {".", "in", "in/g", "in/other"}


# Attributes

ATTRS = {
    "float32": np.float32(6.5e-06),
    "int64": np.int64(3),
    "big": np.uint64(2**63 + 1),
    "array": np.array([1.0, 2.0]),
    "one": np.array([0.1], "f4"),
    "text": np.array(["a", "bc"]),
    "bytes": np.bytes_(b"ab"),
    "odd bytes": np.bytes_(b"\xff"),
    "nan": float("nan"),
    "infinite": np.array([-np.inf, 1, np.nan], "f4"),
    "complex": np.complex64(1 - 2j),
    "date": np.datetime64("2020-01-01"),
    "span": np.timedelta64(5, "s"),
    "bool": np.bool_(True),
    "record": RECORD[0],
    "records": RECORD,
    "nested": {"k": np.arange(2), "more": [1, {"x": np.int8(3)}]},
    "plain": [1, 1.5, None, True, "x", {"a": []}],
    "empty": np.empty((0, 2), "f8"),
    "tag": {"__float__": "nan"},
    "no unit": np.array([7, -(2**63)], "i8").view("M8"),
}
PLAIN = {
    "float32": float(np.float32(6.5e-06)),
    "int64": 3,
    "big": 2**63 + 1,
    "array": [1.0, 2.0],
    "one": float(np.float32(0.1)),
    "text": ["a", "bc"],
    "bytes": "ab",
    "odd bytes": "/w==",
    "nan": "NaN",
    "infinite": ["-Infinity", 1.0, "NaN"],
    "complex": [1.0, -2.0],
    "date": "2020-01-01",
    "span": "5 seconds",
    "bool": True,
    "record": [1, 2.5, [3, "ab"]],
    "records": [[1, 2.5, [3, "ab"]], [-4, 4.5, [5, "c"]]],
    "nested": {"k": [0, 1], "more": [1, {"x": 3}]},
    "plain": [1, 1.5, None, True, "x", {"a": []}],
    "empty": [],
    "tag": {"__float__": "nan"},
    "no unit": [7, -(2**63)],
}


def same(found, wanted):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            same(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, (np.ndarray, np.generic)):
        assert type(found) is type(wanted)
        assert found.dtype == wanted.dtype
        check(found, wanted)
    else:
        assert type(found) is type(wanted)
        assert found == wanted or (found != found and wanted != wanted)


def test_others_read_plain_attributes_and_ours_come_back_exactly(con, tmp_path):
    ds = con.create_dataset("g/x", data=[1])
    ds.attrs.update(ATTRS)
    con.set_group_attrs("g", ATTRS)
    assert dict(zarr.open_array(tmp_path / "g" / "x").attrs) == PLAIN
    seen = dict(zarr.open_group(tmp_path / "g").attrs)
    assert isinstance(seen.pop("_dosna_exact"), str)
    assert seen == PLAIN
    same(dict(con["g/x"].attrs), ATTRS)
    same(con.get_group_attrs("g"), ATTRS)
    # Also of what others have written anew.
    zarr.open_array(tmp_path / "g" / "x", mode="a").attrs["theirs"] = 1
    zarr.open_group(tmp_path / "g", mode="a").attrs["theirs"] = 1
    same(dict(con["g/x"].attrs), {**ATTRS, "theirs": 1})
    same(con.get_group_attrs("g"), {**ATTRS, "theirs": 1})


def test_what_others_change_in_an_attribute_holds(con, tmp_path):
    ds = con.create_dataset("g/x", data=[1.0], attrs=ATTRS)
    con.set_group_attrs("g", ATTRS)
    for theirs in (
        zarr.open_array(tmp_path / "g" / "x", mode="a"),
        zarr.open_group(tmp_path / "g", mode="a"),
    ):
        theirs.attrs["float32"] = 2.5
        del theirs.attrs["nan"]
        theirs.attrs["array"] = [1.0, 3.0]
    ds.refresh()
    for found in (dict(ds.attrs), con.get_group_attrs("g")):
        same(found["float32"], 2.5)
        assert "nan" not in found
        same(found["array"], [1.0, 3.0])
        same(found["date"], ATTRS["date"])
    ds.attrs["mine"] = np.int8(1)
    same(con["g/x"].attrs["float32"], 2.5)


def test_attributes_of_older_documents_are_read(con, tmp_path):
    con.create_dataset("g/x", data=[1.0])
    stored = encode_attrs(ATTRS)
    rewrite(tmp_path / "g" / "x", attributes=stored)
    rewrite(tmp_path / "g", attributes=stored)
    same(dict(con["g/x"].attrs), ATTRS)
    same(con.get_group_attrs("g"), ATTRS)
    con["g/x"].attrs["more"] = 1
    assert dict(zarr.open_array(tmp_path / "g" / "x").attrs) == {**PLAIN, "more": 1}


STRANGE = {
    "a": {"__float__": "x"},
    "b": {"__float__": "1.5"},
    "c": {"__float__": None},
    "d": {"__numpy__": "=", "dtype": "f4", "shape": [], "scalar": True},
    "e": {"__numpy__": "AAAA", "dtype": "f4", "shape": [1], "scalar": False},
    "f": {"__numpy__": "AAAA", "dtype": {}, "shape": [1], "scalar": False},
    "g": {"__numpy__": "AAAAAAAAAAA=", "dtype": "O", "shape": [1], "scalar": False},
    "_dosna_exact": "[",
}


def test_attributes_that_only_look_like_ours_are_given_as_they_are(con, tmp_path):
    zarr.create_array(tmp_path / "x", shape=(3,), dtype="i4", attributes=STRANGE)
    zarr.create_group(tmp_path / "g", attributes=STRANGE)
    assert dict(con["x"].attrs) == STRANGE
    assert con.get_group_attrs("g") == STRANGE
    con["x"].attrs["more"] = 1
    assert dict(zarr.open_array(tmp_path / "x").attrs) == {**STRANGE, "more": 1}
    con.set_group_attrs("g", {**STRANGE, "more": np.int8(1)})
    assert con.get_group_attrs("g") == {**STRANGE, "more": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text() | st.just("_dosna_exact"), json_values, max_size=3))
def test_any_attributes_come_back(attrs):
    stored = encode_attrs(attrs)
    group = zarr3.with_attributes(zarr3.GROUP, stored, "it")
    json.loads(group, parse_constant=pytest.fail)  # NaN is no JSON
    same(decode_value(zarr3.group_attributes(group, "it")), decode_value(stored))


# _FillValue, as xarray spells it: floating-point numbers are doubles in base64


def in_base64(number):
    return base64.b64encode(struct.pack("<d", number)).decode()


@pytest.mark.parametrize(
    ("dtype", "value", "spelt"),
    [
        ("f4", np.float32(-999), in_base64(-999)),
        ("f8", np.array([np.nan]), in_base64(np.nan)),
        ("f8", -9.0, in_base64(-9)),
        ("f2", 7, in_base64(7)),
        ("i2", np.int16(-99), -99),
        ("u1", np.array([255], "u1"), 255),
        ("i4", -1.0, -1),
        ("c16", np.complex128(-9 + 1j), [in_base64(-9), in_base64(1)]),
        ("c8", -9.0, [in_base64(-9), in_base64(0)]),
        ("S3", np.bytes_(b"ab"), "YWI="),
        ("U3", "ab", "ab"),
        ("?", np.bool_(False), False),
        ("f4", [1, 2], [1, 2]),
        ("f4", None, None),
        ("i4", 1.5, 1.5),
    ],
)
def test_the_missing_value_is_spelt_as_xarray_spells_it(con, tmp_path, dtype, value, spelt):
    ds = con.create_dataset("x", (3,), dtype, dims=("x",))
    ds.attrs["_FillValue"] = value
    assert document_of(tmp_path / "x")["attributes"]["_FillValue"] == spelt
    same(con["x"].attrs["_FillValue"], value)


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", -999.0), ("f8", np.nan), ("i2", -99), ("c16", -9 + 0j)]
)
def test_xarray_masks_what_dosna_says_is_missing(con, tmp_path, dtype, value):
    xr = require("xarray")
    ds = con.create_dataset("v", data=np.array([1, value, 3], dtype), dims=("x",))
    ds.attrs["_FillValue"] = np.dtype(dtype).type(value)
    if dtype != "c16":
        ds.attrs["missing_value"] = np.dtype(dtype).type(value)
        ds.attrs["scale_factor"] = np.array([2.0])
    seen = xr.open_zarr(tmp_path, consolidated=False)["v"].values
    assert np.array_equal(
        seen, [1, np.nan, 3] if dtype == "c16" else [2, np.nan, 6], equal_nan=True
    )


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", -999.0), ("f8", np.nan), ("i2", np.int16(-99)), ("c16", -9 + 0j)]
)
def test_what_xarray_says_is_missing_is_a_number_of_the_dtype(con, tmp_path, dtype, value):
    xr = require("xarray")
    data = xr.DataArray(np.array([1, 2, 3], dtype), dims="x")
    data.encoding["_FillValue"] = value
    data.to_dataset(name="v").to_zarr(tmp_path, mode="a", consolidated=False, zarr_format=3)
    found = con["v"].attrs["_FillValue"]
    assert found == value or np.isnan(found)
    assert np.asarray(found).dtype.kind == np.dtype(dtype).kind


def test_a_resize_and_a_deletion_do_not_wait_for_each_other(tmp_path, monkeypatch):
    # Copies of metadata appear while the one is in the dataset's lock and the other in that of
    # the names, as they do when another program makes them.
    path = str(tmp_path)
    with (
        dn.Connection(path, backend="file", engine="cpu") as con,
        dn.Connection(path, backend="file", engine="cpu") as other,
    ):
        dataset = con.create_dataset("a", data=np.arange(10), chunk_size=4)
        document = json.loads((tmp_path / "zarr.json").read_text())
        document["consolidated_metadata"] = {"kind": "inline", "metadata": {}}
        waits, holds = threading.Event(), threading.Event()
        trim, retire = resizing._trim, type(other.instance)._retire

        def trim_late(self, before, alone):
            waits.set()
            assert holds.wait(HANG)
            trim(self, before, alone)

        def retire_late(self, *args):
            (tmp_path / "zarr.json").write_text(json.dumps(document))
            holds.set()
            retire(self, *args)

        monkeypatch.setattr(resizing, "_trim", trim_late)
        monkeypatch.setattr(type(other.instance), "_retire", retire_late)
        shrink = threading.Thread(target=dataset.resize, args=(5,), daemon=True)
        shrink.start()
        assert waits.wait(HANG)
        remove = threading.Thread(target=other.del_dataset, args=("a",), daemon=True)
        remove.start()
        shrink.join(HANG)
        remove.join(HANG)
        assert not shrink.is_alive()
        assert not remove.is_alive()
        assert list(other) == []


@pytest.mark.parametrize("kind", ["folder", "broken link", "pipe"])
def test_a_document_of_the_group_that_is_no_file_is_an_error(tmp_path, kind):
    place = tmp_path / "zarr.json"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    with (
        dn.Connection(str(tmp_path), backend="file", engine="cpu") as con,
        pytest.raises(errors.StorageError, match="is not a file"),
    ):
        con.create_dataset("a", shape=3)
    assert [p.name for p in tmp_path.iterdir()] == ["zarr.json"]


def test_a_broken_document_above_the_connection_is_in_nobodys_way(tmp_path):
    (tmp_path / "zarr.json").write_text('{"consolidated_metadata": ')
    (tmp_path / "in").mkdir()
    with dn.Connection(str(tmp_path / "in"), backend="file", engine="cpu") as con:
        with pytest.warns(UserWarning, match="zarr.consolidate_metadata"):
            dataset = con.create_dataset("a", data=[1, 2])
        with pytest.warns(UserWarning, match="zarr.consolidate_metadata"):
            dataset.append([3])
        assert con["a"][...].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("S4", "NULL"), ("S1", ""), ("f4", "ABCDEFGHIJK="), ("f4", -999), ("i4", -1.0)],
)
def test_a_fill_value_of_another_type_than_the_elements_comes_back(con, dtype, value):
    con.create_dataset("a", shape=2, dtype=dtype, attrs={"_FillValue": value})
    found = con["a"].attrs["_FillValue"]
    assert (type(found), found) == (type(value), value)
