"""HDF5 and NeXus files as they are found: links, types, filters, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.codecs import hdf5
from dosna.codecs.hdf5 import _inflate
from dosna.errors import IncompleteDatasetWarning, RefusedError, SourceError, SourceNotFoundError
from dosna.sources import open_source

h5py = require("h5py")

VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 30, 20), "i4")


@pytest.fixture
def con():
    with dn.Connection("hdf5-source", backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "scan.nxs")


def ingested(con, path, **options):
    with h5py.File(path, "a"):
        pass
    return con.ingest(path, **options)


def test_a_nexus_tree(con, path):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = "a scan"
        data = entry.create_dataset("instrument/detector/data", data=VOLUME, chunks=(1, 30, 20))
        data.attrs["units"] = "counts"
        data.attrs["target"] = np.bytes_("/entry1/instrument/detector/data")
        data.attrs["scale"] = np.array([1.5, 2.5])
        data.attrs["axes"] = ["x", "y"]
        data.attrs["none"] = h5py.Empty("f4")
        data.attrs["where"] = entry.ref
        entry["data/data"] = data
        entry["data/soft"] = h5py.SoftLink("/entry1/instrument/detector/data")
        entry["data/self"] = h5py.SoftLink("/entry1")
    report = con.ingest(path)
    name = "entry1/data/data"
    assert report.made == [name, "entry1/title"]
    assert report.links == {
        "entry1/data/soft": name,
        "entry1/instrument/detector/data": name,
    }
    ds = con[name]
    np.testing.assert_array_equal(ds[...], VOLUME)
    assert ds.origin["links"] == ["entry1/instrument/detector/data", "entry1/data/soft"]
    assert ds.attrs["units"] == "counts"
    assert ds.attrs["target"] == "/entry1/instrument/detector/data"
    assert ds.attrs["scale"].tolist() == [1.5, 2.5]
    assert ds.attrs["axes"] == ["x", "y"]
    assert ds.attrs["none"] is None
    assert ds.attrs["where"] == "/entry1"
    assert con["entry1/title"][()] == "a scan"
    assert con.get_group_attrs("entry1") == {"NX_class": "NXentry"}
    assert ds.chunk_size == (12, 30, 20)  # small chunks of the file are put together


def test_names_of_axes(path, tmp_path):
    with h5py.File(path, "w") as file:
        file["time"], file["x"] = np.arange(12), np.arange(30)
        made = file.create_dataset("a", data=VOLUME)
        made.attrs["units"] = "K"
        for axis, name in enumerate(["time", "x"]):
            file[name].make_scale(name)
            made.dims[axis].attach_scale(file[name])
        made.dims[1].label = "across"
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        con.ingest(path)
        assert con["a"].dims == ("time", "across", None)
        assert dict(con["a"].attrs) == {"units": "K"}
        assert con["x"].dims == ("x",)


def test_a_view_of_files_that_are_missing(con, path):
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((2, 5), "i4")
        for row in range(2):
            layout[row] = h5py.VirtualSource(f"part{row}.h5", "a", (5,))
        file.create_virtual_dataset("view", layout, fillvalue=-1)
    says = "sources of this view are missing, and read as the fill value: "
    assert con.ingest(path).notes["view"] == [says + "part0.h5, part1.h5"]
    assert (con["view"][...] == -1).all()
    with h5py.File(os.path.join(os.path.dirname(path), "part0.h5"), "w") as part:
        part["b"] = np.arange(5)
    assert con.ingest(path, "again").notes["again/view"] == [says + "part0.h5:a, part1.h5"]


def test_raw_files_that_are_missing(con, path, tmp_path):
    with h5py.File(path, "w") as file:
        raw = [(str(tmp_path / "raw.bin"), 0, VOLUME.nbytes)]
        file.create_dataset("raw", VOLUME.shape, "i4", external=raw)
    with pytest.raises(RefusedError, match=r"its elements are in .*raw\.bin"):
        con.ingest(path)


def test_names_of_links_select(con, path):
    with h5py.File(path, "w") as file:
        file["entry/detector/data"] = np.arange(5)
        file["entry/other"] = np.arange(3)
        file["entry/data/data"] = h5py.SoftLink("/entry/detector/data")
    report = con.ingest(path, select="entry/data")
    assert report.made == ["entry/detector/data"]
    assert report.links == {"entry/data/data": "entry/detector/data"}


def test_fill_values_of_strings(con, path):
    with h5py.File(path, "w") as file:
        file.create_dataset("s", (4,), "S3", chunks=(2,), fillvalue=b"abc")
    con.ingest(path)
    assert con["s"].fillvalue == b"abc"
    assert con["s"][3] == b"abc"


def test_part_of_a_file(con, path):
    with h5py.File(path, "w") as file:
        file["entry/a/x"] = np.arange(3)
        file["entry/b/x"] = np.arange(4)
    assert con.ingest(path + ":/entry/a").made == ["entry/a/x"]
    assert con.ingest(path + ":entry/b/x", "alone").made == ["alone"]
    with h5py.File(path) as file:
        assert con.ingest(file["entry/b"], "again").made == ["again/entry/b/x"]
        assert con.ingest(file["entry/b/x"]).made == ["entry/b/x"]
    assert con["alone"].shape == (4,)
    assert con.ingest(path + ":entry//a/", "slashes").made == ["slashes/entry/a/x"]
    with pytest.raises(SourceNotFoundError, match="has no 'entry/c'"):
        con.ingest(path + ":/entry/c")


def test_external_links_and_virtual_datasets_and_raw_files(con, path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["there/volume"] = VOLUME
    VOLUME.tofile(tmp_path / "raw.bin")
    with h5py.File(path, "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "/there")
        file["one"] = h5py.ExternalLink("other.h5", "/there/volume")
        layout = h5py.VirtualLayout((2, *VOLUME.shape), "i4")
        layout[1] = h5py.VirtualSource("other.h5", "there/volume", VOLUME.shape)
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)
        raw = [(str(tmp_path / "raw.bin"), 0, VOLUME.nbytes)]
        file.create_dataset("raw", VOLUME.shape, "i4", external=raw)
    report = con.ingest(path)
    assert report.made == ["linked/volume", "raw", "virtual"]
    assert report.links == {"one": "linked/volume"}
    np.testing.assert_array_equal(con["linked/volume"][...], VOLUME)
    np.testing.assert_array_equal(con["raw"][...], VOLUME)
    np.testing.assert_array_equal(con["virtual"][1], VOLUME)
    assert (con["virtual"][0] == -1).all()


def test_links_that_lead_nowhere(con, path):
    with h5py.File(path, "w") as file:
        file["soft"] = h5py.SoftLink("/no/such")
        file["external"] = h5py.ExternalLink("missing.h5", "/x")
        file["x"] = 1.5
    report = con.ingest(path, on_error="skip")
    assert report.made == ["x"]
    assert "'/no/such', to which it is a link, cannot be opened" in report.skipped["soft"]
    assert "'/x' of 'missing.h5', to which it is a link" in report.skipped["external"]
    with pytest.raises(RefusedError, match=r"'external': .*missing\.h5"):
        con.ingest(path)


def test_types(con, path):
    colour = h5py.enum_dtype({"red": 0, "green": 7}, "u1")
    utf8 = h5py.string_dtype()
    record = np.array([(1, 2.5, b"ab")], [("n", "<i2"), ("x", ">f8"), ("s", "S4")])
    with h5py.File(path, "w") as file:
        file.create_dataset("enum", data=np.array([0, 7], "u1"), dtype=colour)
        file["bool"] = np.array([True, False])
        file["record"] = record
        file["texts"] = np.array(["µm", "", "long text"], object)
        file.create_dataset("bytes", data=np.array([b"\xff\xfe", b"a"], object), dtype=utf8)
        file["fixed"] = np.array([b"ab", b"c"])
        file["empty"] = h5py.Empty("f4")
        file["scalar"] = np.float32(1.5)
        file["half"] = np.array([1, 2], "f2")
        file["complex"] = np.array([1 + 2j])
        file["nothing"] = np.zeros((0, 4))
        file["time"] = np.array(["2026-01-01"], "M8[s]").astype(
            h5py.opaque_dtype(np.dtype("M8[s]"))
        )
        file.create_dataset("vectors", data=np.ones((2, 3), "f4"), dtype="f4")
        matrix = h5py.h5t.array_create(h5py.h5t.NATIVE_INT16, (2, 2))
        space = h5py.h5s.create_simple((3,))
        made = h5py.h5d.create(file.id, b"matrices", matrix, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(12, dtype="i2").reshape(3, 2, 2), matrix)
        file.create_dataset("reference", data=file["bool"].ref, dtype=h5py.ref_dtype)
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))
        file.create_dataset("mixed", (2,), np.dtype([("s", utf8), ("n", "i4")]))
    report = con.ingest(path, on_error="skip")
    assert report.skipped == {
        "reference": "its elements are references to other objects",
        "ragged": "its elements are sequences of variable length",
        "mixed": "in its field 's' its elements are strings of variable length",
    }
    assert con["enum"][...].tolist() == [0, 7]
    assert con["enum"].attrs["hdf5_enum"] == {"red": 0, "green": 7}
    assert con["bool"].dtype == bool
    assert con["record"].dtype == record.dtype
    assert con["record"][...].tolist() == record.tolist()
    assert con["texts"][...].tolist() == ["µm", "", "long text"]
    assert con["texts"].dtype == np.dtypes.StringDType()
    assert con["bytes"][...].tolist() == [b"\xff\xfe", b"a"]
    assert con["fixed"][...].tolist() == [b"ab", b"c"]
    assert (con["empty"].shape, con["empty"].dtype) == ((0,), "f4")
    assert con["empty"].attrs["hdf5_empty"] is True
    assert con["scalar"][()] == np.float32(1.5)
    assert con["half"].dtype == "f2"
    assert con["complex"][0] == 1 + 2j
    assert con["nothing"].shape == (0, 4)
    assert con["time"][0] == np.datetime64("2026-01-01")
    assert con["matrices"][...].tolist() == np.arange(12).reshape(3, 2, 2).tolist()
    assert set(report.notes) == {"bytes", "empty", "enum", "matrices"}
    assert report.notes["bytes"] == ["its strings of variable length are kept as |S2"]
    with pytest.raises(RefusedError, match="'ragged': its elements are sequences"):
        con.ingest(path, "again")


def test_one_very_long_string_is_refused(con, path, monkeypatch):
    monkeypatch.setattr("dosna.sources.hdf5.strings._MOST_PADDED", 1 << 20)
    with h5py.File(path, "w") as file:
        file["log"] = np.array(["x" * 10_000, *["short"] * 100], object)
        file["bytes"] = np.array([b"\xff" * 40_000, *[b"short"] * 100], object)
    con.ingest(path, "as text", select="log")
    assert con["as text/log"][:2].tolist() == ["x" * 10_000, "short"]
    with pytest.raises(RefusedError, match="would take 4040000 if each"):
        con.ingest(path)


def test_fill_values_and_chunks_that_were_never_written(con, path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (40, 40), "i2", chunks=(10, 10), fillvalue=-7)
        made[:10, :10] = 3
        file.create_dataset("never", (5,), "f4", fillvalue=2.5)
    con.ingest(path, chunk_size=(10, 10), select="a")
    con.ingest(path, select="never")
    assert con["a"].fillvalue == -7
    assert con["a"][:10, :10].tolist() == [[3] * 10] * 10
    assert (con["a"][10:] == -7).all()
    assert con["never"][...].tolist() == [2.5] * 5


def test_chunks_that_bypass_a_filter(con, path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "a", (4, 8), "i4", chunks=(2, 8), compression="gzip", shuffle=True
        )
        made[...] = np.arange(32).reshape(4, 8)
        made.id.write_direct_chunk((2, 0), np.full((2, 8), 5, "i4").tobytes(), filter_mask=0b11)
    con.ingest(path)
    assert con["a"][:2].tolist() == np.arange(16).reshape(2, 8).tolist()
    assert (con["a"][2:] == 5).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (3, 30, 20)},
        {"chunks": (3, 30, 20), "compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
)
def test_elements_are_read_while_another_thread_is_in_libhdf5(path, options):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=VOLUME, **options)
    with open_source(path) as source, ThreadPoolExecutor(1) as pool:
        array = source["a"]
        assert array[0, 0, 0] == VOLUME[0, 0, 0]
        with h5py._objects.phil:  # which every call of libhdf5 takes
            whole = pool.submit(lambda: array[...]).result(timeout=200)
    np.testing.assert_array_equal(whole, VOLUME)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("name", ["LZ4", "Zstd", "Blosc", "Bitshuffle"])
def test_filters_of_plugins(con, path, monkeypatch, name, shuffle):
    hdf5plugin = require("hdf5plugin")
    direct = name != "Bitshuffle"
    if direct:
        require("numcodecs")
    random = np.random.default_rng(0)
    arrays = {"volume": VOLUME, "noise": random.integers(0, 256, (50, 4000), "u1")}
    codec = getattr(hdf5plugin, name)()
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            chunks = (5, *array.shape[1:])
            file.create_dataset(key, data=array, chunks=chunks, shuffle=shuffle, **codec)
    with open_source(path) as source:
        for key, array in arrays.items():
            reader = source._reader(key)
            assert bool(reader._direct) is direct
            if direct:
                monkeypatch.setattr(reader, "dataset", None)  # so that libhdf5 cannot help
            box = tuple(slice(0, n) for n in array.shape)
            np.testing.assert_array_equal(source.read(key, box), array)


@pytest.mark.parametrize("options", [{"fletcher32": True}, {"compression": "gzip"}])
def test_a_damaged_chunk(con, path, options):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a/b", data=VOLUME, chunks=(4, 30, 20), **options)
        at = made.id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as file:
        file.seek(at + 100)
        file.write(b"damage")
    with pytest.raises(SourceError, match=r"'a/b' of .*scan.nxs cannot be read: .*damaged"):
        con.ingest(path, chunk_size=(4, 30, 20))
    assert con["a/b"].incomplete
    with pytest.warns(IncompleteDatasetWarning):
        np.testing.assert_array_equal(con["a/b"][:4], VOLUME[:4])


def test_files_that_cannot_be_opened(con, path, tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"there is no file .*scan\.nxs"):
        con.ingest(path)
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(100_000)
    whole = os.path.getsize(path)
    cut = str(tmp_path / "cut.h5")
    shutil.copy(path, cut)
    os.truncate(cut, whole // 2)
    with pytest.raises(SourceError, match="it is truncated: wait until it is written"):
        con.ingest(cut)
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with pytest.raises(SourceError, match="not an HDF5 file"):
        con.ingest(str(tmp_path / "text.h5"))
    assert list(con) == []


@pytest.mark.parametrize("mode", ["", "file.swmr_mode = True"])
def test_a_file_that_another_program_writes(con, path, mode):
    writer = f"""
import sys, h5py
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    file.create_dataset("a", (10,), "f4", maxshape=(None,), chunks=(5,))
    {mode}
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", writer, path], **pipes) as process:
        assert process.stdout.readline() == b"open\n"
        try:
            with pytest.raises(SourceError, match="another program is writing it"):
                con.ingest(path)
        finally:
            process.stdin.close()
    assert list(con) == []


def test_a_file_cut_off_after_it_was_opened(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(100_000)
    with open_source(path) as source:
        assert source["a"][5] == 5
        os.truncate(path, 100_000)
        with pytest.raises(SourceError):
            source["a"][...]


def test_what_is_open_for_writing_is_read_through_it(con, path):
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(10)
        file["a"][3] = 33
        con.ingest(file)
    assert con["a"][3] == 33


def test_little_is_read_of_a_file_whose_chunks_lie_across(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=VOLUME, chunks=(1, 30, 20), compression="gzip")
    decoded = []
    inflate = _inflate
    monkeypatch.setattr(hdf5, "_inflate", lambda *given: decoded.append(1) or inflate(*given))
    with dn.Connection("across", backend="ram") as con:
        con.ingest(path, chunk_size=(4, 10, 10))
        np.testing.assert_array_equal(con["a"][...], VOLUME)
        assert con["a"].chunk_size == (4, 10, 10)
        del con["a"]
    assert len(decoded) == 12


def test_fixed_strings_of_utf8(tmp_path):
    kind = h5py.string_dtype("utf-8", 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", data=np.array(["ü".encode(), b"abc"], kind))
    with dn.Connection("utf8", backend="ram") as con:
        con.ingest(tmp_path / "a.h5")
        assert con["u"][...].tolist() == ["ü".encode(), b"abc"]
        con.del_dataset("u")


def test_scales_name_their_own_axis(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["time"] = np.arange(3)
        file["time"].make_scale("time")
        file["v"] = np.zeros(3)
        file["v"].dims[0].attach_scale(file["time"])
    with open_source(tmp_path / "a.nc") as source:
        assert source.describe("time").dims == source.describe("v").dims == ("time",)


def test_labels_are_read_as_attributes(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("libhdf5 believes labels whatever they are")

    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("one", "both"):
            file[name] = np.zeros((2, 3))
            file[name].dims[1].label = "ä"
        file["both"].dims[0].label = "along"
    monkeypatch.setattr(h5py.h5ds, "get_label", refuse)
    with open_source(tmp_path / "a.h5") as source:
        assert source.describe("one").dims == (None, "ä")
        assert source.describe("both").dims == ("along", "ä")
