"""Zarr v3 both ways: what dosna writes zarr-python and TensorStore read and update, and back."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import require

zarr = require("zarr")
tensorstore = require("tensorstore")
require("numcodecs")

from zarr.codecs import (  # noqa: E402
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.codecs import zarr as zarr3  # noqa: E402
from dosna.core.metadata import new_metadata  # noqa: E402
from dosna.testing.samples import DTYPES, check, sample  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")

SHAPE, CHUNKS = (7, 10), (3, 4)
CORE = ["?", "i1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", "<c8", ">c16"]
OPTIONS = {
    "plain": {"checksum": False},
    "checked": {},
    "gzip": {"compression": {"name": "gzip", "level": 1}},
    "zstd": {"compression": {"name": "zstd", "checksum": True}},
    "blosc": {"compression": "blosc", "checksum": False},
    "blosc-zstd": {"compression": {"name": "blosc", "cname": "zstd", "shuffle": "bitshuffle"}},
    "shards": {"shards": (6, 8)},
    "zstd shards": {"shards": (3, 12), "compression": "zstd", "checksum": False},
}


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as connection:
        yield connection


def in_tensorstore(path, **spec):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}, **spec}
    return tensorstore.open(spec).result()


def same(found, expected, what=""):
    """Compare elements, and not byte orders, which other libraries take for details."""
    check(np.asarray(found).astype(expected.dtype), expected, what)


def change(model, write):
    """Change an array and its model in the same places."""
    part = sample((3, 5), model.dtype, 9)
    model[2:5, 3:8] = part
    write((slice(2, 5), slice(3, 8)), part)
    model[6, 9] = model[0, 0]
    write((6, 9), model[0, 0])


# dosna makes the array


@pytest.mark.parametrize("options", OPTIONS)
def test_zarr_python_reads_and_updates_what_dosna_writes(con, tmp_path, options):
    for number, dtype in enumerate(DTYPES):
        if "shards" in options and np.dtype(dtype).kind == "V":
            continue  # https://github.com/zarr-developers/zarr-python/issues/3054
        model = sample(SHAPE, dtype, 1)
        name = f"{number}"
        ds = con.create_dataset(
            name, data=model, chunk_size=CHUNKS, fillvalue=model[3, 3], **OPTIONS[options]
        )
        theirs = zarr.open_array(tmp_path / name)
        assert theirs.chunks == CHUNKS
        assert theirs.shards == OPTIONS[options].get("shards")
        same(theirs[...], model, dtype)
        change(model, theirs.__setitem__)
        check(ds[...], model, dtype)
        assert ds[6, 9] == model[6, 9]
        change(model, ds.__setitem__)
        same(zarr.open_array(tmp_path / name)[...], model, dtype)
        theirs[:3, :4] = model[3, 3]  # which zarr-python does by deleting the chunk
        model[:3, :4] = model[3, 3]
        check(con[name][...], model, dtype)


@pytest.mark.parametrize("options", OPTIONS)
def test_tensorstore_reads_and_updates_what_dosna_writes(con, tmp_path, options):
    for number, dtype in enumerate(CORE):
        model = sample(SHAPE, dtype, 1)
        name = f"{number}"
        ds = con.create_dataset(name, data=model, chunk_size=CHUNKS, **OPTIONS[options])
        theirs = in_tensorstore(tmp_path / name)
        same(theirs.read().result(), model, dtype)
        native = model.dtype.newbyteorder("=")

        def write(key, value, theirs=theirs, native=native):
            theirs[key].write(np.asarray(value, native)).result()

        change(model, write)
        check(ds[...], model, dtype)
        change(model, ds.__setitem__)
        same(in_tensorstore(tmp_path / name).read().result(), model, dtype)


def test_a_connection_is_a_group_that_other_programs_list(con, tmp_path):
    for name in ("a", "g/b", "g/h/c"):
        con.create_dataset(name, data=np.arange(4.0), chunk_size=2).attrs["of"] = name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        group = zarr.open_group(tmp_path, mode="r")
        found = dict(group.members(max_depth=None))
    assert set(found) == {"a", "g", "g/b", "g/h", "g/h/c"}
    assert found["g/h/c"].attrs["of"] == "g/h/c"
    assert found["g/b"].nchunks_initialized == 2
    con.del_dataset("g/h/c")
    assert [name for name, _ in zarr.open_group(tmp_path)["g"].members()] == ["b"]


def test_names_of_axes(con, tmp_path):
    ds = con.create_dataset("x", shape=(2, 3, 4), dims=("z", None, "x"))
    assert ds.dims == con["x"].dims == ("z", None, "x")
    assert zarr.open_array(tmp_path / "x").metadata.dimension_names == ("z", None, "x")
    assert ds.clone("y").dims == ("z", None, "x")
    assert con.create_dataset("none", shape=3).dims is None
    for wrong in [("z",), "zyx", (1, 2, 3)]:
        with pytest.raises(errors.ConfigurationError, match="dims"):
            con.create_dataset("w", shape=(2, 3, 4), dims=wrong)


def test_xarray_opens_a_connection(con, tmp_path):
    xarray = require("xarray")
    image = np.arange(12.0).reshape(3, 4)
    ds = con.create_dataset("image", data=image, chunk_size=(2, 2), dims=("y", "x"))
    ds.attrs["unit"] = "counts"
    con.create_dataset("y", data=[10, 20, 30], dims=("y",))
    con.create_dataset("entry/other", data=np.arange(2), dims=("t",))
    with xarray.open_zarr(tmp_path, consolidated=False, chunks=None) as opened:
        assert opened["image"].dims == ("y", "x")
        assert opened["image"].attrs == {"unit": "counts"}
        np.testing.assert_array_equal(opened["image"], image)
        assert opened["image"].sel(y=20, x=3) == 7
    with xarray.open_zarr(tmp_path, group="entry", consolidated=False, chunks=None) as opened:
        assert opened["other"].dims == ("t",)


def test_a_copy_is_stored_alike(con, tmp_path):
    for number, options in enumerate(OPTIONS.values()):
        ds = con.create_dataset(f"{number}", shape=SHAPE, chunk_size=CHUNKS, **options)
        ds.clone(f"{number}-b")
        one, other = (
            json.loads((tmp_path / name / "zarr.json").read_text())
            for name in (f"{number}", f"{number}-b")
        )
        assert one["dosna"].pop("id") != other["dosna"].pop("id")
        assert one == other
    small = ds.map(lambda block: block.astype("i2"), "small")
    assert small.instance.create_options == ds.instance.create_options


# Another program makes the array

ZARRS = {
    "default": {},
    "none": {"compressors": None},
    "gzip": {"compressors": GzipCodec(level=9)},
    "blosc lz4": {"compressors": BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "blosc zlib": {"compressors": BloscCodec(cname="zlib", shuffle="noshuffle")},
    "blosc blosclz": {"compressors": BloscCodec(cname="blosclz")},
    "two": {"compressors": [ZstdCodec(level=1), GzipCodec(level=1), Crc32cCodec()]},
    "crc inside": {"compressors": [Crc32cCodec(), ZstdCodec()]},
    "transposed": {"filters": TransposeCodec(order=(1, 0)), "compressors": Crc32cCodec()},
    "big": {"serializer": BytesCodec(endian="big")},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v2 slashes": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "shards": {"shards": (6, 12)},
    "shards first": {
        "chunks": (6, 8),
        "serializer": ShardingCodec(
            chunk_shape=(3, 4),
            codecs=[TransposeCodec(order=(1, 0)), BytesCodec(endian="big"), GzipCodec()],
            index_location="start",
        ),
        "compressors": None,
    },
    "shards of unchecked index": {
        "chunks": (6, 4),
        "serializer": ShardingCodec(
            chunk_shape=(3, 4), codecs=[BytesCodec()], index_codecs=[BytesCodec(endian="big")]
        ),
        "compressors": None,
    },
}


@pytest.mark.parametrize("dtype", ["f4", "<M8[ns]", "i2"])
@pytest.mark.parametrize("kind", ZARRS)
def test_dosna_reads_and_updates_what_zarr_python_writes(con, tmp_path, kind, dtype):
    model = sample(SHAPE, dtype, 1)
    options = {"chunks": CHUNKS, "fill_value": model[1, 1], **ZARRS[kind]}
    theirs = zarr.create_array(tmp_path / "g" / "x", shape=SHAPE, dtype=dtype, **options)
    theirs[:, 2:] = model[:, 2:]
    model[:, :2] = model[1, 1]
    ds = con["g/x"]
    same(ds[...], model)
    same(ds[5, 3:9], model[5, 3:9])
    same(ds.get_chunk_data((1, 1)), model[3:6, 4:8])
    assert ds.fillvalue == model[1, 1]
    change(model, ds.__setitem__)
    same(ds[...], model)
    same(theirs[...], model)
    assert all(ds.has_chunk(idx) for idx in ds.written_chunks())
    assert ds.verify().good
    same(ds.clone("y", data=True)[...], model)
    ds.clear()
    assert ds.written_chunks() == []
    same(theirs[...], np.full_like(model, ds.fillvalue))


def spelt(**options):
    return {"name": options.pop("name"), "configuration": options}


TENSORSTORES = {
    "default": [],
    "gzip": [spelt(name="gzip", level=6)],
    "zstd": [spelt(name="zstd", level=1)],
    "crc32c": [{"name": "crc32c"}],
    "blosc": [spelt(name="blosc", cname="lz4", clevel=5, shuffle="shuffle")],
    "transposed": [spelt(name="transpose", order=[1, 0]), spelt(name="bytes", endian="big")],
    "shards": [
        spelt(
            name="sharding_indexed",
            chunk_shape=[3, 4],
            codecs=[spelt(name="bytes", endian="little"), spelt(name="gzip", level=1)],
            index_location="start",
        )
    ],
}


@pytest.mark.parametrize("kind", TENSORSTORES)
def test_dosna_reads_and_updates_what_tensorstore_writes(con, tmp_path, kind):
    for dtype in ("float32", "uint16", "bool", "complex64"):
        model = sample(SHAPE, np.dtype(dtype), 1)
        shape = [6, 8] if kind == "shards" else list(CHUNKS)
        metadata = {
            "shape": list(SHAPE),
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "codecs": TENSORSTORES[kind],
            "attributes": {"unit": "mm"},
        }
        theirs = in_tensorstore(tmp_path / dtype, metadata=metadata, create=True)
        theirs.write(model).result()
        ds = con[dtype]
        same(ds[...], model)
        same(ds[5, 3:9], model[5, 3:9])
        change(model, ds.__setitem__)
        same(in_tensorstore(tmp_path / dtype).read().result(), model)
        ds.attrs["more"] = [1, 2]
        ds.resize((9, 9))
        again = in_tensorstore(tmp_path / dtype)
        assert again.shape == (9, 9)
        assert json.loads((tmp_path / dtype / "zarr.json").read_text())["attributes"] == {
            "unit": "mm",
            "more": [1, 2],
        }


def test_growing_after_another_program_shrank_shows_fill(con, tmp_path):
    ds = con.create_dataset("x", data=np.ones((6, 6)), chunk_size=(4, 4), fillvalue=-1)
    zarr.open_array(tmp_path / "x").resize((3, 6))
    ds.refresh()
    ds.resize((6, 6))
    assert np.all(ds[:3] == 1)
    assert np.all(ds[3:] == -1)
    assert np.all(zarr.open_array(tmp_path / "x")[3:] == -1)


# Attributes and fields that are not ours


def test_what_dosna_does_not_know_survives_an_update(con, tmp_path):
    theirs = zarr.create_array(tmp_path / "x", shape=SHAPE, dtype="f4", chunks=CHUNKS)
    strange = {
        "plain": {"a": [1, None, {"b": "c"}]},
        "tagged": {"__float__": "none", "__numpy__": 5},
        "map": {"__map__": {"a": 1}},
        "nan": float("nan"),
    }
    theirs.attrs.update(strange)
    path = tmp_path / "x" / "zarr.json"
    document = json.loads(path.read_text())
    document["other"] = {"must_understand": False, "version": 3}
    document["dosna"] = {"must_understand": False, "of the future": 1}
    document["storage_transformers"] = []
    path.write_text(json.dumps(document))
    ds = con["x"]
    assert {k: v for k, v in ds.attrs.items() if k != "nan"} == {
        k: v for k, v in strange.items() if k != "nan"
    }
    assert np.isnan(ds.attrs["nan"])
    ds.attrs["mine"] = np.arange(3)
    ds.resize((9, 10))
    after = json.loads(path.read_text())
    assert after["other"] == document["other"]
    assert after["dosna"]["of the future"] == 1
    assert after["attributes"]["plain"] == strange["plain"]
    assert after["attributes"]["map"] == strange["map"]
    for field in ("data_type", "codecs", "fill_value", "chunk_grid", "chunk_key_encoding"):
        assert after[field] == document[field]
    opened = zarr.open_array(tmp_path / "x")
    opened.attrs["theirs"] = 1
    opened.resize((4, 4))
    assert np.array_equal(con["x"].attrs["mine"], np.arange(3))
    assert con["x"].attrs["theirs"] == 1
    assert json.loads(path.read_text())["other"] == document["other"]


def document(**changes):
    made = zarr3.new_array(new_metadata(SHAPE, "f4", 0, CHUNKS))
    return json.loads(zarr3.to_json(made)) | changes


def codecs(*more):
    return [spelt(name="bytes", endian="little"), *more]


def sharded(**changes):
    configuration = {
        "chunk_shape": [3, 4],
        "codecs": codecs(),
        "index_codecs": codecs({"name": "crc32c"}),
        **changes,
    }
    return {
        "codecs": [{"name": "sharding_indexed", "configuration": configuration}],
        "chunk_grid": spelt(name="regular", chunk_shape=[6, 8]),
    }


ODD = {
    "an unknown codec": (codecs({"name": "lz77"}), "'lz77'"),
    "a codec of numcodecs": (codecs({"name": "numcodecs.zstd"}), "'numcodecs.zstd'"),
    "an unknown first codec": ([{"name": "packbits"}], "'packbits'"),
    "an unknown option of a codec": (codecs(spelt(name="gzip", level=1, fast=True)), "fast"),
    "a wrong option of a codec": (codecs(spelt(name="gzip", level=10)), "not 10"),
    "a missing option of a codec": (codecs({"name": "gzip"}), "lacks level"),
    "no endian": ([{"name": "bytes"}], "endian"),
    "an unknown endian": ([spelt(name="bytes", endian="middle")], "middle"),
    "no codecs": ([], "no codecs"),
    "a compressor first": ([spelt(name="gzip", level=1)], "'bytes' is expected"),
    "a late transposition": (codecs(spelt(name="transpose", order=[1, 0])), "before"),
    "a wrong transposition": ([spelt(name="transpose", order=[1, 1]), *codecs()], "order"),
    "an unknown part of a codec": (codecs({"name": "crc32c", "extra": 1}), "extra"),
}
ODD = {what: ({"codecs": found}, text) for what, (found, text) in ODD.items()} | {
    "an unknown field": ({"extra": {"a": 1}}, "'extra'"),
    "a field to understand": ({"extra": {"must_understand": True}}, "'extra'"),
    "a newer format": ({"zarr_format": 4}, "zarr_format 4"),
    "an older format": ({"zarr_format": 2}, "zarr_format 2"),
    "an unknown data type": ({"data_type": "float8_e5m2"}, "'float8_e5m2'"),
    "text without its codec": ({"data_type": "string", "fill_value": ""}, "'vlen-utf8'"),
    "text with options": ({"data_type": {"name": "string", "configuration": {"a": 1}}}, "broken"),
    "text whose fill value is none": (
        {"data_type": "string", "fill_value": 0, "codecs": ["vlen-utf8"]},
        "fill_value 0",
    ),
    "text whose fill value is half a character": (
        {"data_type": "string", "fill_value": "\ud800", "codecs": ["vlen-utf8"]},
        "fill_value",
    ),
    "a codec of text for numbers": ({"codecs": ["vlen-utf8"]}, "'bytes' is expected"),
    "a codec of text with options": (
        {"data_type": "string", "fill_value": "", "codecs": [spelt(name="vlen-utf8", a=1)]},
        "unknown options",
    ),
    "an unknown kind of data type": ({"data_type": {"name": "q", "configuration": {}}}, "'q'"),
    "a broken data type": (
        {"data_type": spelt(name="numpy.datetime64", unit="year", scale_factor=1)},
        "'year'",
    ),
    "an unknown chunk grid": ({"chunk_grid": {"name": "rectilinear"}}, "'rectilinear'"),
    "chunks of too few axes": (
        {"chunk_grid": spelt(name="regular", chunk_shape=[3])},
        "chunk grid",
    ),
    "chunks of nothing": ({"chunk_grid": spelt(name="regular", chunk_shape=[3, 0])}, "from 1 on"),
    "an unknown key encoding": ({"chunk_key_encoding": {"name": "fanout"}}, "'fanout'"),
    "an unknown separator": (
        {"chunk_key_encoding": spelt(name="default", separator="-")},
        "key encoding",
    ),
    "a storage transformer": ({"storage_transformers": [{"name": "cache"}]}, "'cache'"),
    "a negative shape": ({"shape": [7, -1]}, "shape"),
    "too few names of axes": ({"dimension_names": ["a"]}, "dimension_names"),
    "a wrong fill value": ({"fill_value": "zero"}, "'zero'"),
    "no fill value": ({"fill_value": None}, "fill_value None"),
    "shards in shards": (sharded(codecs=sharded()["codecs"]), "within shards"),
    "shards of broken chunks": (sharded(chunk_shape=[4, 4]), "cannot be cut"),
    "an unknown place of the index": (sharded(index_location="middle"), "'middle'"),
    "a compressed index": (sharded(index_codecs=codecs(spelt(name="gzip", level=1))), "index"),
    "an unknown option of shards": (sharded(order="morton"), "order"),
    "a codec after shards": (
        {"codecs": [*sharded()["codecs"], {"name": "crc32c"}]},
        "around sharding",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_dosna_does_not_know_is_refused_by_its_name(con, tmp_path, what):
    changes, text = ODD[what]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_text(json.dumps(document(**changes)))
    assert "x" in con
    with pytest.raises(errors.FormatError) as caught:
        con["x"]
    assert text in str(caught.value)
    assert "zarr.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "null", '{"zarr_format": 3}'])
def test_documents_that_are_no_documents(con, tmp_path, text):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_text(text)
    with pytest.raises(errors.FormatError, match=r"zarr\.json"):
        con["x"]
    for field in document().keys() - {"attributes", "zarr_format", "dosna"}:
        lacking = {k: v for k, v in document().items() if k != field}
        with pytest.raises(errors.FormatError):
            zarr3.from_json(json.dumps(lacking).encode(), "it")


def test_short_names_are_understood(con, tmp_path):
    short = document(
        data_type={"name": "float32"},
        chunk_key_encoding="default",
        codecs=codecs("crc32c"),
        shape=[4, 4],
    )
    del short["attributes"], short["dosna"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_text(json.dumps(short))
    con["x"][...] = 3
    assert np.all(con["x"][...] == 3)
    assert (tmp_path / "x" / "c" / "1" / "0").stat().st_size == 3 * 4 * 4 + 4


def test_raw_bits_of_the_specification(con, tmp_path):
    raw = document(data_type="r24", codecs=[{"name": "bytes"}], fill_value=[1, 2, 3])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_text(json.dumps(raw))
    assert con["x"][0, 0].tobytes() == b"\1\2\3"


# Data types and fill values


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("g", "longdouble|float128"),
        ([("a", ">f4")], "'a'"),
        ([("a", "f4", (2,))], "'a'"),
        ([("a", "i4"), ("b", [("c", ">U3")])], "'c'"),
        (np.dtype([("a", "i1"), ("b", "i4")], align=True), "gaps"),
    ],
)
def test_dtypes_that_zarr_lacks_are_refused(con, tmp_path, dtype, text):
    with pytest.raises(TypeError, match=text):
        con.create_dataset("x", shape=3, dtype=dtype)
    assert "x" not in con
    assert not (tmp_path / "x").exists()


def bits(dtype, value):
    return np.array(value, f"u{np.dtype(dtype).itemsize}").view(dtype)[()]


@pytest.mark.parametrize(
    ("dtype", "fill", "stored"),
    [
        ("f8", np.nan, "NaN"),
        ("f4", -np.inf, "-Infinity"),
        ("f2", np.inf, "Infinity"),
        ("f8", -0.0, -0.0),
        ("f4", np.float32(0.1), 0.10000000149011612),
        ("f4", bits("f4", 0x7FC00001), "0x7fc00001"),
        ("f8", bits("f8", 0xFFF8000000000000), "0xfff8000000000000"),
        ("c8", complex(np.nan, 2), ["NaN", 2.0]),
        ("c16", complex(1, -np.inf), [1.0, "-Infinity"]),
        ("u8", 2**64 - 1, 2**64 - 1),
        ("i8", -(2**63), -(2**63)),
        ("?", True, True),
        ("M8[s]", np.datetime64("NaT", "s"), -(2**63)),
        ("M8[25s]", np.datetime64(250, "s"), 10),
        ("m8[us]", np.timedelta64(-5, "us"), -5),
        (">U4", "ä😀", "ä😀"),
        ("S3", b"ab", "YWIA"),
        ("V2", np.void(b"\0\1"), "AAE="),
        ([("a", "<i2"), ("b", "f4")], (258, 0), "AgEAAAAA"),
    ],
)
def test_fill_values(con, tmp_path, dtype, fill, stored):
    con.create_dataset("x", shape=3, dtype=dtype, fillvalue=fill, chunk_size=2)
    found = json.loads((tmp_path / "x" / "zarr.json").read_text())["fill_value"]
    assert repr(found) == repr(stored)
    expected = np.full(3, np.array(fill, dtype))
    ours, theirs = con["x"][...], zarr.open_array(tmp_path / "x")
    check(ours, expected)
    if not (isinstance(stored, str) and stored.startswith("0x")):  # of which it keeps only NaN
        same(theirs[...], expected)
    if np.dtype(dtype).kind in "biufc":
        same(in_tensorstore(tmp_path / "x").read().result(), expected)


@pytest.mark.parametrize(
    ("dtype", "stored", "fill"),
    [
        ("float32", "0x7fc00000", np.nan),
        ("float32", "0x3f800000", 1),
        ("float64", 3, 3),
        ("float16", 1e300, np.inf),
        ("complex64", ["0x3f800000", "Infinity"], complex(1, np.inf)),
        ("int8", -3.0, -3),
        (
            spelt(name="numpy.timedelta64", unit="s", scale_factor=1),
            "NaT",
            np.timedelta64("NaT", "s"),
        ),
        (spelt(name="raw_bytes", length_bytes=2), "AAE=", np.void(b"\0\1")),
        (spelt(name="null_terminated_bytes", length_bytes=4), "YWI=", b"ab"),
    ],
)
def test_fill_values_of_others(dtype, stored, fill):
    made = document(data_type=dtype, fill_value=stored)
    found = zarr3.from_json(json.dumps(made).encode(), "it")
    check(np.asarray(found.fillvalue, found.dtype), np.asarray(fill, found.dtype))


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("float32", "0x7fc0"),
        ("float32", "nan"),
        ("float32", True),
        ("int8", 128),
        ("uint8", -1),
        ("int8", 1.5),
        ("int8", True),
        ("bool", 1),
        ("complex64", 1.0),
        ("complex64", [1.0]),
        (spelt(name="raw_bytes", length_bytes=2), "AA=="),
        (spelt(name="raw_bytes", length_bytes=2), "no base64"),
        (spelt(name="fixed_length_utf32", length_bytes=4), "ab"),
        (spelt(name="numpy.timedelta64", unit="s", scale_factor=1), 2**63),
    ],
)
def test_fill_values_that_are_none(dtype, stored):
    made = document(data_type=dtype, fill_value=stored)
    with pytest.raises(errors.FormatError):
        zarr3.from_json(json.dumps(made).encode(), "it")


scalars = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
    | hnp.unicode_string_dtypes(endianness="?", min_len=1)
    | hnp.byte_string_dtypes(min_len=1)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_metadata_survive_their_json(data):
    dtype = data.draw(scalars)
    shape = data.draw(st.lists(st.integers(0, 50), max_size=3).map(tuple))
    chunks = tuple(data.draw(st.integers(1, 60)) for _ in shape)
    fill = data.draw(hnp.arrays(dtype, ()))[()]
    shards = None
    if shape and data.draw(st.booleans()):
        shards = tuple(c * data.draw(st.integers(1, 4)) for c in chunks)
    made = zarr3.new_array(
        new_metadata(shape, dtype, fill, chunks),
        compression=data.draw(st.sampled_from([None, "gzip", "zstd", "blosc"])),
        checksum=data.draw(st.booleans()),
        shards=shards,
        dims=data.draw(st.none() | st.just([None] * len(shape))),
    ).replace(
        attrs=data.draw(st.dictionaries(st.text(), json_values, max_size=3)),
        trimmed=data.draw(st.booleans()),
    )
    image = zarr3.to_json(made)
    found = zarr3.from_json(image, "it")
    assert (found.shape, found.dtype, found.chunk_size) == (shape, dtype, chunks)
    assert (found.attrs, found.trimmed) == (made.attrs, made.trimmed)
    assert np.asarray(found.fillvalue).tobytes() == np.asarray(made.fillvalue).tobytes()
    assert zarr3.options_of(found) == zarr3.options_of(made)
    assert zarr3.stored_alike(found, made)
    assert zarr3.to_json(found) == image


@given(st.dictionaries(st.sampled_from(sorted(document())), json_values, max_size=2))
def test_broken_documents_are_refused_or_read(changes):
    try:
        found = zarr3.from_json(json.dumps(document(**changes)).encode(), "it")
    except errors.FormatError:
        return
    image = zarr3.to_json(found)
    assert zarr3.to_json(zarr3.from_json(image, "it")) == image


# What create_dataset is asked for


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"compression": "lzma"}, "'lzma'"),
        ({"compression": 3}, "compression"),
        ({"compression": {"level": 3}}, "compression"),
        ({"compression": {"name": "zstd", "level": 23}}, "not 23"),
        ({"compression": {"name": "zstd", "speed": 1}}, "speed"),
        ({"compression": {"name": "blosc", "cname": "lzo"}}, "'lzo'"),
        ({"shards": (4, 4)}, "shards"),
        ({"shards": (3,)}, "shards"),
        ({"shards": (3, 4.0)}, "shards"),
        ({"shards": (0, 4)}, "shards"),
        ({"checksum": "crc32c"}, "checksum"),
    ],
)
def test_options_that_do_not_fit(con, tmp_path, options, text):
    with pytest.raises(errors.ConfigurationError, match=text):
        con.create_dataset("x", shape=SHAPE, chunk_size=CHUNKS, **options)
    assert not (tmp_path / "x").exists()


def test_an_array_is_not_a_place_for_datasets(con, tmp_path):
    zarr.create_array(tmp_path / "x", shape=3, dtype="f4")
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("x/y", shape=3)
    array = dn.Connection(str(tmp_path / "x"), backend="zarr")
    with pytest.raises(errors.ConnectionError, match="'x'"):
        array.connect()


@pytest.mark.parametrize("text", [b"", b'{"zarr_format": 3', b"[]", b"\xff"])
def test_a_damaged_description_of_the_folder_is_no_dataset(con, tmp_path, text):
    con.create_dataset("x", data=np.arange(3))
    (tmp_path / "zarr.json").write_bytes(text)
    other = dn.Connection(str(tmp_path), backend="file")
    with pytest.raises(errors.ConnectionError, match=r"zarr\.json is .*delete it"):
        other.connect()
    (tmp_path / "zarr.json").unlink()
    with other:
        assert other["x"][...].tolist() == [0, 1, 2]


def test_a_group_of_others_is_kept(con, tmp_path):
    zarr.create_group(tmp_path / "g", attributes={"of": "others"})
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("g", shape=3)
    con.create_dataset("g/x", shape=3)
    con.del_dataset("g/x")
    assert zarr.open_group(tmp_path / "g").attrs["of"] == "others"
