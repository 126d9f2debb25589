"""Text of variable length: its codec, and files of it that other programs write and read."""

from __future__ import annotations

import json
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require, require_program

import dosna as dn
from dosna import errors
from dosna.core import text as text
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.values import same_fill
from dosna.sources import open_source
from dosna.testing.samples import check

TEXT = np.dtypes.StringDType()
WORDS = np.array([["a", "", "long " * 20, "nul\0"], ["\u00e4", "\U0001f600", "g", "h\0\0"]], TEXT)


# -- the codec -----------------------------------------------------------------------------


@given(st.lists(st.text(), max_size=20))
def test_the_codec_is_that_of_numcodecs(texts):
    theirs = require("numcodecs").VLenUTF8()
    array = np.array(texts, TEXT)
    encoded = text.encode(array)
    if texts:  # of an empty array it refuses its own bytes
        assert encoded == bytes(theirs.encode(np.array(texts, object)))
        assert theirs.decode(encoded).tolist() == texts
    check(text.decode(encoded, len(texts)), array)
    check(text.decode(memoryview(encoded), len(texts)), array)


@given(st.binary(max_size=40), st.integers(0, 4))
def test_any_bytes_are_texts_or_refused(data, count):
    for given_ in (data, struct.pack("<I", count) + data):
        try:
            found = text.decode(given_, count)
        except ValueError:
            continue
        assert text.encode(found) == given_


@pytest.mark.parametrize(
    ("data", "count", "why"),
    [
        (b"", 0, "too few"),
        (struct.pack("<I", 3) + b"\0" * 4, 3, "too few"),
        (struct.pack("<I", 0xFFFFFFFF) + b"\0" * 8, 2, "counts 4294967295"),
        (struct.pack("<I", 1) + b"\0" * 8, 2, "counts 1"),
        (struct.pack("<II", 1, 0xFFFFFFFF) + b"abc", 1, "end at"),
        (struct.pack("<II", 1, 2) + b"abc", 1, "end at"),
        (struct.pack("<III", 2, 5, 1) + b"a", 2, "end at"),
        (struct.pack("<II", 1, 1) + b"\xff", 1, "utf-8"),
        (struct.pack("<II", 1, 3) + b"\xed\xa0\x80", 1, "utf-8"),
    ],
)
def test_damaged_bytes_are_refused(data, count, why):
    with pytest.raises(ValueError, match=why):
        text.decode(data, count)


def test_a_chunk_of_text_has_a_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "MOST_BYTES", 100)
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        with pytest.raises(ValueError, match="smaller chunk_size"):
            con.create_dataset("a", data=np.array(["x" * 90, "y" * 10], TEXT))
        assert "a" not in con


def test_metadata_of_text_survive_their_json():
    for fill in ("", "fill\0", "\u00e4"):
        made = new_metadata((3, 4), str, fill)
        found = DatasetMetadata.from_json(made.to_json())
        assert found == made
        assert (found.dtype, found.fillvalue) == (TEXT, fill)
    broken = json.loads(made.to_json()) | {"fillvalue": 3}
    with pytest.raises(errors.FormatError):
        DatasetMetadata.from_json(json.dumps(broken))


# -- Zarr ----------------------------------------------------------------------------------

OPTIONS = {
    "plain": {"checksum": False},
    "checked": {},
    "gzip": {"compression": "gzip"},
    "zstd": {"compression": "zstd", "checksum": False},
    "blosc": {"compression": "blosc"},
    "shards": {"shards": (2, 4), "checksum": False},
    "zstd shards": {"shards": (2, 4), "compression": "zstd"},
}


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as connection:
        yield connection


@pytest.mark.parametrize("what", OPTIONS)
def test_zarr_reads_and_changes_what_dosna_writes(con, tmp_path, what):
    zarr = require("zarr")
    options = {"chunk_size": (1, 2), "fillvalue": "fill", **OPTIONS[what]}
    ds = con.create_dataset("x", data=WORDS, **options)
    theirs = zarr.open_array(tmp_path / "x")
    assert (theirs.dtype, theirs.fill_value) == (TEXT, "fill")
    check(theirs[...], WORDS)
    theirs[0, 1:] = np.array(["new", "other " * 30, ""], TEXT)
    expected = WORDS.copy()
    expected[0, 1:] = ["new", "other " * 30, ""]
    check(ds[...], expected)
    ds.del_chunk((1, 1))
    expected[1, 2:] = "fill"
    check(ds[...], expected)
    check(theirs[...], expected)
    ds[1, 3] = "\0"
    expected[1, 3] = "\0"
    check(zarr.open_array(tmp_path / "x")[...], expected)
    assert ds.verify().good


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("codec", [None, "gzip", "zstd", "blosc"])
def test_dosna_reads_and_changes_what_zarr_writes(con, tmp_path, codec, sharded):
    zarr = require("zarr")
    codecs = {
        None: None,
        "gzip": zarr.codecs.GzipCodec(),
        "zstd": zarr.codecs.ZstdCodec(),
        "blosc": zarr.codecs.BloscCodec(),
    }
    theirs = zarr.create_array(
        tmp_path / "x",
        shape=WORDS.shape,
        dtype="string",
        chunks=(1, 2),
        shards=(2, 4) if sharded else None,
        compressors=codecs[codec],
        fill_value="fill",
    )
    theirs[:, :3] = WORDS[:, :3]
    expected = np.full(WORDS.shape, "fill", TEXT)
    expected[:, :3] = WORDS[:, :3]
    ds = con["x"]
    assert (ds.dtype, ds.fillvalue) == (TEXT, "fill")
    check(ds[...], expected)
    ds[0, 2:] = ["new", "z" * 50]
    expected[0, 2:] = ["new", "z" * 50]
    check(theirs[...], expected)
    assert ds.verify().good


def test_an_order_of_axes_that_somebody_else_chose(con, tmp_path):
    # Not compared with zarr-python, of which 3.1 does not find its own elements again.
    con.create_dataset("x", WORDS.shape, str, chunk_size=(2, 4))
    path = tmp_path / "x/zarr.json"
    document = json.loads(path.read_bytes())
    transpose = {"name": "transpose", "configuration": {"order": [1, 0]}}
    path.write_text(json.dumps(document | {"codecs": [transpose, "vlen-utf8"]}))
    ds = con["x"]
    ds[...] = WORDS
    assert (tmp_path / "x/c/0/0").read_bytes() == text.encode(WORDS.T)
    check(ds[...], WORDS)
    ds[0, 1:3] = ["new", "q" * 20]
    expected = WORDS.copy()
    expected[0, 1:3] = ["new", "q" * 20]
    check(ds[...], expected)
    assert (tmp_path / "x/c/0/0").read_bytes() == text.encode(expected.T)


def test_a_damaged_chunk_of_text(con, tmp_path):
    ds = con.create_dataset("x", data=WORDS, chunk_size=(2, 2), checksum=False)
    path = tmp_path / "x/c/0/1"
    whole = path.read_bytes()
    for broken in (b"", whole[:-1], whole + b"\0", b"\5" + whole[1:], whole[:4] + b"\xff" * 4):
        path.write_bytes(broken)
        with pytest.raises(errors.ChunkCorruptError, match=r"\(0, 1\)"):
            print(ds[...])
        with pytest.raises(errors.ChunkCorruptError):
            ds[0, 2] = "part of it"
        assert ds.verify().corrupt == ((0, 1),)
        assert path.read_bytes() == broken
    ds[:, 2:] = "whole"
    assert ds.verify().good


@pytest.mark.parametrize("name", ["gzip", "zstd", "blosc"])
def test_lengths_that_cannot_be_are_refused_before_memory_is_taken(
    con, tmp_path, monkeypatch, name
):
    require("numcodecs")
    ds = con.create_dataset("x", data=WORDS, chunk_size=(2, 4), compression=name, checksum=False)
    check(ds[...], WORDS)
    path = tmp_path / "x/c/0/0"
    if name == "gzip":
        import zlib

        monkeypatch.setattr(text, "MOST_BYTES", 1000)
        path.write_bytes(zlib.compress(b"\0" * 2000, 9, 31))
    elif name == "zstd":
        # A frame of one segment that announces 2**40 bytes: RFC 8878, 3.1.1.1.
        path.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\1\0\0")
    else:
        size = 40
        path.write_bytes(struct.pack("<BBBBIII", 2, 1, 1, 1, 1 << 31, 1 << 10, size) + b"\0" * 24)
    with pytest.raises(errors.ChunkCorruptError):
        print(ds[...])


def test_xarray_opens_text_alike(con, tmp_path):
    xr = require("xarray")
    require("zarr")
    for name, dims in (("words", ("y", "x")), ("row", ("x",))):
        data = WORDS if name == "words" else WORDS[0]
        con.create_dataset(name, data=data, dims=dims, attrs={"of": ["a", "b"]})
    con.set_group_attrs("", {"title": "t"})
    ours = xr.open_dataset(f"file:{tmp_path}", engine="dosna")
    theirs = xr.open_zarr(str(tmp_path), consolidated=False, chunks=None)
    assert ours.words.dtype == theirs.words.dtype == TEXT
    xr.testing.assert_identical(ours.load(), theirs.load())
    check(ours.words.values, WORDS)
    check(ours.words[:, ::-2].values, WORDS[:, ::-2])
    ours.to_zarr(str(tmp_path / "again.zarr"), consolidated=False)
    check(con["again.zarr/words"][...], WORDS)
    assert list(con["again.zarr/words"].attrs["of"]) == ["a", "b"]


def test_attributes_of_text_are_lists_to_others(con, tmp_path):
    ds = con.create_dataset("x", WORDS.shape, str, attrs={"words": WORDS})
    assert require("zarr").open_array(tmp_path / "x").attrs["words"] == WORDS.tolist()
    check(ds.attrs["words"], WORDS)
    con.set_group_attrs("", {"words": WORDS[0]})
    assert require("zarr").open_group(tmp_path).attrs["words"] == WORDS[0].tolist()
    check(con.get_group_attrs("")["words"], WORDS[0])


def test_text_of_pandas(con, tmp_path):
    pd = require("pandas")
    frame = pd.DataFrame({"name": ["a", "bc", "\u00e4" * 20]})
    ds = con.create_dataset("name", data=frame["name"].to_numpy(), dtype=str)
    check(ds[...], np.array(["a", "bc", "\u00e4" * 20], TEXT))
    assert pd.Series(ds[...]).tolist() == frame["name"].tolist()
    for number, data in enumerate([frame["name"], pd.Index(frame["name"])]):
        check(con.create_dataset(f"as it is {number}", data=data, dtype=str)[...], ds[...])
    ds[...] = frame["name"][::-1]
    assert ds[0] == "\u00e4" * 20
    ds.load(frame["name"])
    assert ds[2] == "\u00e4" * 20
    with pytest.raises(TypeError, match="dtype=str"):
        con.create_dataset("objects", data=frame["name"])
    frame.loc[1, "name"] = None
    with pytest.raises(TypeError, match="missing"):
        ds[...] = frame["name"].to_numpy()


# -- hdf5 ----------------------------------------------------------------------------------

PLAIN = np.array([["a", "", "long " * 20, "nul"], ["\u00e4", "\U0001f600", "g", "h"]], TEXT)


@pytest.fixture
def folder(tmp_path):
    require("h5py")
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as connection:
        yield connection


@pytest.mark.parametrize("checksum", [False, True])
def test_hdf5_tools_read_text(folder, tmp_path, checksum):
    h5py = require("h5py")
    made = folder.create_dataset(
        "x", PLAIN.shape, str, "fill", chunk_size=(2, 3), checksum=checksum, compression="gzip"
    )
    made[:, :3] = PLAIN[:, :3]
    expected = PLAIN.copy()
    expected[:, 3] = "fill"
    with h5py.File(tmp_path / "x/dataset.h5") as file:
        assert h5py.check_string_dtype(file["data"].dtype) == ("utf-8", None)
        assert file["data"].asstr()[...].tolist() == expected.tolist()
        assert file.attrs["dtype"] == "string"
        assert file.attrs["fillvalue"] == "fill"
    with h5py.File(tmp_path / "x/chunk_0_0.h5") as file:
        assert file["data"].asstr()[...].tolist() == PLAIN[:, :3].tolist()
    made.resize((3, 4))
    with h5py.File(tmp_path / "x/dataset.h5") as file:
        assert file["data"].asstr()[2].tolist() == ["fill"] * 4
    assert made.guarantees.checksum == checksum
    lengths = made.map(np.strings.str_len, "lengths")
    assert lengths.instance.create_options["compression"] == "gzip"


def test_h5dump_shows_text(folder, tmp_path):
    program = require_program("h5dump")
    folder.create_dataset("x", data=np.array(["a", "bc", "d" * 30], TEXT), chunk_size=2)
    shown = subprocess.run(
        [program, str(tmp_path / "x/dataset.h5")], capture_output=True, text=True, check=True
    ).stdout
    assert "STRSIZE H5T_VARIABLE" in shown
    assert "H5T_CSET_UTF8" in shown
    assert f'"a", "bc", "{"d" * 30}"' in shown


def test_dosna_reads_text_that_h5py_wrote(folder, tmp_path):
    h5py = require("h5py")
    ds = folder.create_dataset("x", data=PLAIN, chunk_size=(1, 4))
    for number, kind in enumerate([h5py.string_dtype(), h5py.string_dtype("ascii")]):
        path = tmp_path / "x/chunk_0_0.h5"
        path.unlink()
        with h5py.File(path, "w") as file:
            chunks = (1, 2) if number else None
            file.create_dataset("data", (1, 4), kind, chunks=chunks)
            file["data"][0, :2] = ["by", f"h5py {number}"]
        expected = np.array(["by", f"h5py {number}", "", ""], TEXT)
        check(ds[0], expected)
        ds[0, 3] = "by dosna"
        expected[3] = "by dosna"
        check(ds[0], expected)
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((1, 4), "S5")
    with pytest.raises(errors.ChunkCorruptError, match="variable length"):
        print(ds[0])


def test_a_damaged_chunk_file_of_text(folder, tmp_path):
    h5py = require("h5py")
    plain = folder.create_dataset("plain", data=PLAIN, chunk_size=(2, 4))
    checked = folder.create_dataset("checked", data=PLAIN, chunk_size=(2, 4), checksum=True)
    for ds in (plain, checked):
        path = tmp_path / ds.name / "chunk_0_0.h5"
        whole = path.read_bytes()
        with h5py.File(path) as file:
            offset = file["data"].id.get_offset()
        changed = [
            b"",
            whole[:-1],
            whole + b"\0",
            whole[:offset] + b"\xff\xff\xff\x7f" + whole[offset + 4 :],
            whole.replace(b"long", b"l\xffng", 1),
        ]
        if ds is checked:
            changed.append(whole.replace(b"long", b"loNg", 1))
        for broken in changed:
            assert broken != whole
            path.write_bytes(broken)
            with pytest.raises(errors.ChunkCorruptError):
                print(ds[...])
            with pytest.raises(errors.ChunkCorruptError):
                ds[0, 0] = "part of it"
            assert ds.verify().corrupt == ((0, 0),)
            assert path.read_bytes() == broken
        ds[...] = PLAIN
        assert ds.verify().good
        check(ds[...], PLAIN)


# -- sources and exports -------------------------------------------------------------------


@pytest.fixture(params=["ram", "file", "hdf5"])
def target(request, tmp_path):
    if request.param == "hdf5":
        require("h5py")
    (tmp_path / "target").mkdir()
    with dn.Connection(str(tmp_path / "target"), backend=request.param, engine="cpu") as made:
        yield made
        for name in list(made):
            del made[name]


@pytest.fixture
def scan(tmp_path):
    h5py = require("h5py")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.string_dtype()
        file.create_dataset("words", data=PLAIN.astype(object), dtype=kind, chunks=(1, 2))
        file.create_dataset("latin", data=np.array([b"caf\xe9", b"b"], object), dtype=kind)
        file.create_dataset("one", data="text without axes", dtype=kind)
        part = file.create_dataset("part", (6,), kind, chunks=(2,), fillvalue="fill")
        part[2:4] = ["a", "b"]
        file["words"].attrs["units"] = np.array(["a", "bc"], object)
    return path


def test_ingest_of_strings_of_hdf5(target, scan):
    report = target.ingest(scan)
    assert not report.skipped
    check(target["words"][...], PLAIN)
    assert target["words"].attrs["units"] == ["a", "bc"]
    assert target["one"][()] == "text without axes"
    assert target["one"].dtype == TEXT
    assert target["latin"][...].tolist() == [b"caf\xe9", b"b"]
    part = target["part"]
    check(part[...], np.array(["fill", "fill", "a", "b", "fill", "fill"], TEXT))
    assert part.fillvalue == "fill"
    assert part.chunk_size == (6,) or part.written_chunks() == [(1,)]
    assert list(target.ingest(scan).present) == report.made
    for name in report.made:
        with open_source(f"{scan}:{name}") as source:
            assert target[name].compare(source[name]).equal


def test_ingest_goes_on_where_text_was_kept_as_fixed(target, scan):
    # As earlier versions kept it.
    target.ingest(scan, select="words")
    origin = target["words"].origin
    del target["words"]
    longest = f"U{max(map(len, PLAIN.ravel().tolist()))}"
    made = target.create_dataset(
        "words", PLAIN.shape, longest, chunk_size=(1, 4), incomplete=True, origin=origin
    )
    made[0] = PLAIN[0].astype(longest)
    report = target.ingest(scan, select="words")
    assert report.resumed == ["words"]
    check(target["words"][...], PLAIN.astype(longest))
    assert target.ingest(scan, select="words").present == ["words"]
    target.ingest(scan, select="words", overwrite=True)
    check(target["words"][...], PLAIN)


@pytest.mark.parametrize("version", [2, 3])
def test_ingest_of_strings_of_zarr(target, tmp_path, version):
    zarr = require("zarr")
    data = PLAIN if type(target.instance).__name__ == "H5Connection" else WORDS
    theirs = zarr.create_array(
        tmp_path / "scan.zarr",
        name="words",
        shape=data.shape,
        chunks=(1, 4),
        dtype=str,
        zarr_format=version,
        fill_value="fill",
    )
    theirs[0] = data[0]
    report = target.ingest(tmp_path / "scan.zarr")
    assert (report.made, report.notes) == (["words"], {})
    expected = data.copy()
    expected[1] = "fill"
    check(target["words"][...], expected)
    assert target["words"].fillvalue == "fill"
    with open_source(tmp_path / "scan.zarr") as source:
        assert target["words"].compare(source["words"]).equal
        check(source["words"][::-1, [0, 3]], expected[::-1, [0, 3]])


def test_ingest_of_nul_into_hdf5_is_refused(folder, tmp_path):
    zarr = require("zarr")
    zarr.create_array(tmp_path / "scan.zarr", name="words", data=WORDS)
    report = folder.ingest(tmp_path / "scan.zarr", on_error="skip")
    assert "NUL" in report.skipped["words"]


def test_ingest_of_arrays_in_memory_and_of_datasets(target, con):
    target.ingest({"words": PLAIN, "coerced": PLAIN.astype(np.dtypes.StringDType(coerce=False))})
    check(target["words"][...], PLAIN)
    check(target["coerced"][...], PLAIN)
    con.create_dataset("from", data=PLAIN, chunk_size=(1, 4), fillvalue="fill")
    target.ingest(con["from"], "copied")
    check(target["copied"][...], PLAIN)
    assert target["copied"].fillvalue == "fill"


def test_exports_of_text(target, tmp_path):
    h5py, zarr = require("h5py"), require("zarr")
    ds = target.create_dataset("words", PLAIN.shape, str, "fill", chunk_size=(1, 3))
    ds[0] = PLAIN[0]
    ds.attrs["words"] = PLAIN
    expected = PLAIN.copy()
    expected[1] = "fill"
    one = target.create_dataset("one", (), str)
    one[...] = "without axes"
    target.export(tmp_path / "out.h5", compression="gzip")
    with h5py.File(tmp_path / "out.h5") as file:
        assert h5py.check_string_dtype(file["words"].dtype) == ("utf-8", None)
        assert file["words"].asstr()[...].tolist() == expected.tolist()
        assert file["words"].fillvalue in (b"fill", "fill")
        assert file["one"].asstr()[()] == "without axes"
        assert file["words"].attrs["words"].tolist() == PLAIN.tolist()
    target.export(tmp_path / "out.zarr", compression="gzip")
    theirs = zarr.open_group(tmp_path / "out.zarr")["words"]
    check(theirs[...], expected)
    assert theirs.fill_value == "fill"
    with pytest.raises(errors.RefusedError, match="pickled"):
        ds.export(tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_exports_to_hdf5_refuse_nul(con, tmp_path):
    require("h5py")
    con.create_dataset("words", data=WORDS)
    con.create_dataset("fill", (3,), str, "a\0")
    for name in ("words", "fill"):
        with pytest.raises(errors.RefusedError, match=name):
            con[name].export(tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()


def test_fill_values_of_text_are_compared_to_their_ends():
    for one, other, same in [("f\0", "f", False), ("f", "f\0", False), ("f\0", "f\0", True)]:
        assert same_fill(one, np.asarray(other, TEXT)) == same
        assert same_fill(np.asarray(one, TEXT), np.asarray(other, TEXT)) == same
