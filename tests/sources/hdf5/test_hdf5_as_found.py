"""HDF5 files as other programs and other versions of libhdf5 make them: what is read is right."""

from __future__ import annotations

import ctypes
import io
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.cli import main
from dosna.errors import RefusedError, SourceError, StorageError
from dosna.io.bytefile import ByteFile, MemoryFile
from dosna.sources import open_source
from dosna.sources.hdf5 import direct as h5direct
from dosna.sources.hdf5 import scales as h5scales
from dosna.sources.hdf5 import types as h5types
from dosna.sources.hdf5.source import H5Source

h5py = require("h5py")
from h5py import h5d, h5p, h5s, h5t  # noqa: E402

VOLUME = np.random.default_rng(0).integers(0, 1000, (13, 30, 20), "i4")


@pytest.fixture
def con():
    with dn.Connection("as-found", backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "found.h5")


def libhdf5():
    """Return the library that h5py has loaded, for what h5py has no name for."""
    found = re.search(r"\S*/libhdf5[-.]\S*", Path("/proc/self/maps").read_text())
    assert found, "h5py has loaded libhdf5"
    return ctypes.CDLL(found[0])


def undefined_fill(creation, kind):
    set_fill = libhdf5().H5Pset_fill_value
    set_fill.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    assert set_fill(creation.id, kind.id, None) >= 0


def unfiltered_edges(creation):
    set_options = libhdf5().H5Pset_chunk_opts
    set_options.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert set_options(creation.id, 2) >= 0


def make(file, name, kind, shape, creation=None):
    made = h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), creation)
    return h5py.Dataset(made)


def new_creation(chunks=None):
    creation = h5p.create(h5p.DATASET_CREATE)
    if chunks:
        creation.set_chunk(chunks)
    return creation


def check_verified(path, tmp_path):
    """Ingest and verify by the command line, as a user would."""
    store = tmp_path / "verified"
    store.mkdir()
    assert main(["ingest", path, f"hdf5:{store}", "--quiet"]) == 0
    with dn.Connection(str(store), backend="hdf5") as made:
        names = list(made)
    for name in names:
        assert main(["verify", f"hdf5:{store}/{name}", "--against", f"{path}:/{name}"]) == 0


# -- places of chunks ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"compression": "gzip"}])
@pytest.mark.parametrize("iterates", [True, False])
@pytest.mark.parametrize("counts", [True, False])
def test_chunks_behind_a_user_block(con, path, monkeypatch, options, iterates, counts):
    # libhdf5 before 1.14.4 counts places from behind a user block, and before 1.12.3 it has no
    # chunk_iter: both are acted, whichever libhdf5 is here.
    block = 1024
    with h5py.File(path, "w", userblock_size=block) as file:
        file.create_dataset("a", data=VOLUME, chunks=(4, 30, 20), **options)
    real = h5direct._for_each_chunk
    h5direct._counts_user_blocks.cache_clear()
    moved = -1 if h5direct._counts_user_blocks() and not counts else 0

    class Older:
        def __init__(self, made):
            self.made = made

        def __getattr__(self, name):
            if name == "chunk_iter" and not iterates:
                raise AttributeError(name)
            return getattr(self.made, name)

    def for_each(made, note):
        by = moved * h5py.h5i.get_file_id(made).get_create_plist().get_userblock()
        real(Older(made), lambda info: note((info[0], info[1], info[2] + by, info[3])))

    monkeypatch.setattr(h5direct, "_for_each_chunk", for_each)
    h5direct._counts_user_blocks.cache_clear()
    try:
        con.ingest(path)
        con.link(path, "linked")
        np.testing.assert_array_equal(con["a"][...], VOLUME)
        np.testing.assert_array_equal(con["linked/a"][...], VOLUME)
    finally:
        h5direct._counts_user_blocks.cache_clear()


@pytest.mark.parametrize("plain", [True, False], ids=["without compression", "compressed"])
@pytest.mark.parametrize("leaves", [True, False], ids=["unfiltered edges", "filtered edges"])
@pytest.mark.parametrize("noisy", [True, False])
def test_edges_where_the_plugin_is_missing(path, plain, leaves, noisy):
    require("hdf5plugin")
    require("numcodecs")
    values = VOLUME[0] if noisy else np.full((30, 20), 5, "i4")
    values = np.ascontiguousarray(values)
    with h5py.File(path, "w", libver="latest") as file:
        creation = new_creation((8, 8))
        creation.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 0 if plain else 2))
        if leaves:
            unfiltered_edges(creation)
        make(file, "a", h5t.NATIVE_INT32, values.shape, creation)[...] = values
    np.save(path + ".npy", values)
    program = """
import sys
sys.modules["hdf5plugin"] = None  # as if it were not installed
import numpy as np
import dosna as dn
expected = np.load(sys.argv[1] + ".npy")
with dn.Connection("edges", backend="ram") as con:
    con.ingest(sys.argv[1])
    con.link(sys.argv[1], "linked")
    np.testing.assert_array_equal(con["a"][...], expected)
    np.testing.assert_array_equal(con["linked/a"][...], expected)
"""
    environment = {**os.environ, "HDF5_PLUGIN_PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (32015, "pip install hdf5plugin"),
        (32020, "its maker's plugin"),
        (305, "its maker's plugin"),
    ],
)
def test_filters_that_are_missing(con, path, code, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with h5py.File(path, "w") as file:
        creation = new_creation((4,))
        # One that is not there can be asked for if it is optional.
        creation.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        make(file, "a", h5t.NATIVE_INT32, (8,), creation)
        file["b"] = 1
    monkeypatch.setattr("dosna.codecs.hdf5._CODECS", {})
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda found: found != code)
    report = con.ingest(path, on_error="skip")
    assert report.made == ["b"]
    assert f"HDF5's filter {code}" in report.skipped["a"]
    assert says in report.skipped["a"]
    assert ("hdf5plugin" in report.skipped["a"]) == (code == 32015)


def test_places_that_hsds_is_told(path):
    require("h5pyd")
    from dosna.transfer import copying as h5copy
    from dosna.transfer.layout import linked_layout

    noise = np.random.default_rng(1).integers(0, 1 << 30, (10, 10), "i4")
    with h5py.File(path, "w", libver="latest", userblock_size=512) as file:
        file.create_dataset("never", (3,), "i4")
        file.create_dataset("chunked", data=np.arange(32, dtype="i4"), chunks=(8,))
        creation = new_creation((4, 4))
        creation.set_deflate(4)
        unfiltered_edges(creation)
        make(file, "edges", h5t.NATIVE_INT32, (10, 10), creation)[...] = noise
        creation = new_creation()
        undefined_fill(creation, h5t.NATIVE_INT32)
        make(file, "undefined", h5t.NATIVE_INT32, (3,), creation)
    with h5py.File(path) as file, open(path, "rb") as raw:

        def layout(name):
            copied = h5copy.Copied(name, file[name], {}, "")
            return linked_layout(copied, "uri")

        assert layout("never")[0] is None
        assert layout("edges")[0] is None
        found, _, _ = layout("chunked")
        for number in range(4):
            offset, size = found["chunks"][str(number)]
            raw.seek(offset)
            expected = np.arange(8 * number, 8 * number + 8, dtype="i4")
            assert raw.read(size) == expected.tobytes()
        assert h5copy.Copied("undefined", file["undefined"], {}, "").fill == {}


# -- what was never written ----------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_fill_values_that_are_undefined(con, path, tmp_path, chunks):
    point = np.dtype([("x", "f8"), ("n", "i4")])
    with h5py.File(path, "w") as file:
        file["ok"] = 1
        for name, dtype in (("a", "i4"), ("s", "S3"), ("p", point), ("v", h5py.string_dtype())):
            kind = h5t.py_create(np.dtype(dtype), logical=True)
            for written in (True, False):
                if name == "v" and chunks and not written:
                    continue  # see test_strings_of_which_some_are_undefined_are_refused
                creation = new_creation(chunks)
                undefined_fill(creation, kind)
                made = make(file, f"{name}-{written}", kind, (6,), creation)
                if written:
                    made[...] = "abc" if name == "v" else np.ones(6, dtype)
        if chunks:
            creation = new_creation(chunks)
            undefined_fill(creation, h5t.NATIVE_INT32)
            make(file, "part", h5t.NATIVE_INT32, (6,), creation)[2:4] = 7
    report = con.ingest(path)
    assert "part" in report.made or not chunks
    linked = con.link(path, "linked", unlinkable="ingest")
    for where in ("", "linked/"):
        assert con[f"{where}a-True"][...].tolist() == [1] * 6
        assert con[f"{where}a-False"][...].tolist() == [0] * 6
        assert con[f"{where}s-True"][...].tolist() == [b"1"] * 6
        assert con[f"{where}s-False"][...].tolist() == [b""] * 6
        assert con[f"{where}p-True"][...].tolist() == [(1, 1)] * 6
        assert con[f"{where}p-False"][...].tolist() == [(0, 0)] * 6
        assert con[f"{where}v-True"][...].tolist() == ["abc"] * 6
        if not chunks:
            assert con[f"{where}v-False"][...].tolist() == [""] * 6
        else:
            assert con[f"{where}part"][...].tolist() == [0, 0, 7, 7, 0, 0]
    assert "linked/a-True" in linked.linked
    says = "its file does not define elements that were never written: they are zero"
    assert {name for name, notes in report.notes.items() if says in notes} == {
        name for name in report.made if name.endswith("False") or name == "part"
    }
    check_verified(path, tmp_path)


def test_strings_of_which_some_are_undefined_are_refused(con, path, monkeypatch):
    # h5py would take what is in memory for the places of strings, and must not be asked. So this
    # file is sound, and only dosna is told that it is not.
    with h5py.File(path, "w") as file:
        file["n"] = np.arange(3)
        file["v"] = ["abc", "d"]
    monkeypatch.setattr("dosna.sources.hdf5.reader.is_partly_undefined", lambda dataset: True)
    report = con.ingest(path, on_error="skip")
    assert report.made == ["n"]
    assert "does not define the value of its strings" in report.skipped["v"]


def test_what_is_partly_undefined(path):
    with h5py.File(path, "w") as file:
        for chunks in (None, (2,)):
            creation = new_creation(chunks)
            undefined_fill(creation, h5t.NATIVE_INT32)
            made = make(file, f"undefined {chunks}", h5t.NATIVE_INT32, (4,), creation)
            defined = make(file, f"defined {chunks}", h5t.NATIVE_INT32, (4,), new_creation(chunks))
            assert h5types.is_partly_undefined(made)
            assert not h5types.is_partly_undefined(defined)
            made[:2] = 1
            assert h5types.is_partly_undefined(made) == (chunks is not None)
            made[2:] = 1
            assert not h5types.is_partly_undefined(made)


# -- types ---------------------------------------------------------------------------------


def link_and_ingest(con, path):
    """Link and ingest all; return what was linked, by name, once both are the same."""
    linked = con.link(path, "linked").linked
    con.ingest(path, "ingested")
    for name in linked:
        there = con[name][...]
        copy = con["ingested" + name.removeprefix("linked")][...]
        assert there.dtype == copy.dtype
        assert there.tobytes() == copy.tobytes()
    return {name.removeprefix("linked/"): con[name][...] for name in linked}


def test_bytes_that_are_those_of_numpy_are_linked(con, path, tmp_path):
    compound = np.dtype([("i", "<i4"), ("s", "S4"), ("v", "V3"), ("t", ">f8", (2,)), ("c", "c8")])
    expected = {
        "text": np.array([b"ab", b"cdef", b"", b"x\0y"], "S4"),
        "opaque": np.array([b"ab", b"cd", b"\0\0", b"x"], "V2"),
        "dates": np.array(["2026-01-01", "NaT", "1969-12-31", "2000-02-29"], "M8[s]"),
        "lengths": np.array([1, -1, 2, 3], ">m8[ms]"),
        "complex": np.array([1 + 2j, 0, -1j, 5]),
        "bits": np.array([1, 2, 0x1234, 0xFFFF], ">u2"),
        "compound": np.array([(i, b"ab", b"xyz", (i, 2.5), 1j) for i in range(4)], compound),
    }
    with h5py.File(path, "w") as file:
        for chunks in (None, (2,)):
            for name, array in expected.items():
                kind, values = array.dtype, array
                if kind.kind in "mM":
                    kind = h5py.opaque_dtype(kind)
                    values = array.astype(kind)
                if name == "bits":
                    creation = new_creation(chunks)
                    made = make(file, f"bits {chunks}", h5t.STD_B16BE, (4,), creation)
                    made.id.write(h5s.ALL, h5s.ALL, values, h5t.STD_B16BE)
                else:
                    file.create_dataset(f"{name} {chunks}", data=values, dtype=kind, chunks=chunks)
    found = link_and_ingest(con, path)
    assert len(found) == 2 * len(expected)
    for name, values in found.items():
        array = expected[name.partition(" ")[0]]
        assert values.dtype == array.dtype
        assert values.tobytes() == array.tobytes()
    check_verified(path, tmp_path)


@pytest.mark.parametrize("order", ["LE", "BE"])
def test_native_complex_numbers_are_linked(con, path, order):
    kind = getattr(h5t, f"COMPLEX_IEEE_F64{order}", None)
    if kind is None:
        pytest.skip("this h5py has no complex numbers of HDF5's own")
    values = np.array([1 + 2j, 0, -1j]).astype("<c16" if order == "LE" else ">c16")
    with h5py.File(path, "w", libver="latest") as file:
        made = make(file, "c", kind, (3,))
        made.id.write(h5s.ALL, h5s.ALL, values, kind)
        whole = file.create_dataset("compound", data=values)
        assert whole.id.get_type().get_class() == h5t.COMPOUND
    found = link_and_ingest(con, path)
    for name in ("c", "compound"):
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("padding", "stored", "linked"),
    [
        ("NULLTERM", b"ab\0\0cdef", True),
        ("NULLTERM", b"ab\0xcdef", False),  # behind the end of the first, there is something
        ("SPACEPAD", b"ab  cdef", False),
        ("SPACEPAD", b"abcdefgh", True),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_strings_that_are_padded_in_another_way(con, path, padding, stored, linked, within):
    kind = h5t.C_S1.copy()
    kind.set_size(4)
    kind.set_strpad(getattr(h5t, f"STR_{padding}"))
    if within:
        text, kind = kind, h5t.create(h5t.COMPOUND, 4)
        kind.insert(b"s", 0, text)
    with h5py.File(path, "w") as file:
        make(file, "s", kind, (2,)).id.write(h5s.ALL, h5s.ALL, np.frombuffer(stored, "V4"), kind)
        file["n"] = np.arange(3)
    with h5py.File(path) as file:
        expected = file["s"][...]
    report = con.link(path, on_error="skip")
    assert ("s" in report.linked) == linked
    assert ("not stored as those of" in report.skipped.get("s", "")) != linked
    con.ingest(path, "ingested")
    for name in ["ingested/s"] + ["s"] * linked:
        assert con[name][...].tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", ["compact", "contiguous", "chunked", "lzf"])
def test_opaque_elements_with_a_tag(con, path, tmp_path, layout):
    # h5py itself cannot read these.
    kind = h5t.create(h5t.OPAQUE, 7)
    kind.set_tag(b"Character array")
    values = np.array([b"OPAQUE%d" % i for i in range(4)], "V7")
    creation = new_creation((2,) if layout in ("chunked", "lzf") else None)
    if layout == "compact":
        creation.set_layout(h5d.COMPACT)
    if layout == "lzf":
        creation.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        made = make(file, "a", kind, (4,), creation)
        made.id.write(h5s.ALL, h5s.ALL, values, kind)
    report = con.ingest(path)
    assert con["a"].dtype == "V7"
    assert con["a"][...].tobytes() == values.tobytes()
    assert con["a"].attrs["hdf5_tag"] == "Character array"
    assert report.notes["a"] == ["it is opaque, tagged 'Character array'"]
    check_verified(path, tmp_path)


def test_floats_that_numpy_has_not(con, path):
    kind = h5t.IEEE_F64LE.copy()  # becomes IEEE binary128, as of long double on aarch64
    kind.set_size(16)
    kind.set_precision(128)
    kind.set_fields(127, 112, 15, 0, 112)
    kind.set_ebias(16383)
    within = h5t.create(h5t.COMPOUND, 16)
    within.insert(b"x", 0, kind)
    with h5py.File(path, "w") as file:
        file["ok"] = np.arange(3)
        make(file, "quad", kind, (4,))
        make(file, "field", within, (4,))
    for how in (con.ingest, con.link):
        report = how(path, how.__name__, on_error="skip")
        assert report.made == [f"{how.__name__}/ok"]
        assert set(report.skipped) == {"quad", "field"}
        assert all("has no NumPy dtype" in why for why in report.skipped.values())
    with pytest.raises(RefusedError, match="'quad': its HDF5 type has no NumPy dtype"):
        con.ingest(path, "strict")


def test_enumerations_within_others(con, path):
    colour = h5py.enum_dtype({"red": 0, "green": 7}, "u1")
    pair = np.dtype([("n", "i4"), ("colour", colour), ("inner", [("again", colour, (2,))])])
    with h5py.File(path, "w") as file:
        file["whole"] = np.array([0, 7], "u1").astype(colour)
        file.create_dataset("rows", (3,), np.dtype((colour, (2,))))
        file.create_dataset("fields", (3,), pair)
        file.create_dataset("plain", (3,), [("n", "i4")])
    report = con.ingest(path)
    names = {"red": 0, "green": 7}
    assert con["whole"].attrs["hdf5_enum"] == con["rows"].attrs["hdf5_enum"] == names
    assert con["fields"].attrs["hdf5_enum"] == {"colour": names, "inner": {"again": names}}
    assert dict(con["plain"].attrs) == {}
    assert "it is an enumeration" in report.notes["rows"][0]
    assert "it has fields of enumerations" in report.notes["fields"][0]


def test_arrays_of_strings_of_variable_length(con, path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (3,), np.dtype((h5py.string_dtype(), (2,))))
    with pytest.raises(RefusedError, match="'a': its elements are arrays of strings of variable"):
        con.ingest(path)


# -- attributes ----------------------------------------------------------------------------


def test_texts_that_are_not_of_utf8(con, path, tmp_path, capsys):
    micro = b"\xb5m"
    with h5py.File(path, "w") as file:
        for owner in (file, file.create_dataset("a", data=np.arange(3))):
            owner.attrs["fixed"] = np.bytes_(micro)
            for name, charset in (
                ("variable", "utf-8"),
                ("ascii", "ascii"),
                (b"caf\xe9", "ascii"),
            ):
                owner.attrs.create(name, micro, dtype=h5py.string_dtype(charset))
            owner.attrs.create("two", [micro, "µm".encode()], dtype=h5py.string_dtype())
            owner.attrs["utf8"] = "µm"
    for how in (con.ingest, con.link):
        how(path, how.__name__)
        found = dict(con[f"{how.__name__}/a"].attrs)
        texts = dict.fromkeys(["fixed", "variable", "ascii", "café", "utf8"], "µm")
        assert found == {**texts, "two": ["µm", "µm"]}
        assert con.get_group_attrs(how.__name__) == found
    store = tmp_path / "store"
    store.mkdir()
    assert main(["ingest", path, f"file:{store}", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["info", f"file:{store}/a", "--json"]) == 0
    capsys.readouterr().out.encode()


def test_references_in_attributes_cost_no_search(con, path, monkeypatch):
    with h5py.File(path, "w") as file:
        file["z/target"] = np.arange(3)
        for name in "abc":
            file[name] = np.arange(3)
            file[name].attrs["of"] = file["z/target"].ref
            file[name].attrs["in"] = file["z"].ref
            file[name].attrs["all"] = file.ref
    searched = []
    monkeypatch.setattr("dosna.sources.hdf5.types.name_of", searched.append)
    con.ingest(path)
    for name in "abc":
        assert con[name].attrs["of"] == "/z/target"
        assert con[name].attrs["in"] == "/z"
        assert con[name].attrs["all"] == "/"
    assert searched == []


# -- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MemoryError, OverflowError, UnicodeDecodeError, OSError])
def test_what_describing_one_array_raises(con, path, monkeypatch, kind):
    with h5py.File(path, "w") as file:
        file.create_dataset("bad", data=np.arange(3), chunks=(3,))
        file["good"] = np.arange(4)
    real = h5types.represent

    def represent(dataset):
        if dataset.name == "/bad":
            raise kind(*(("utf-8", b"x", 0, 1, "why") if kind is UnicodeDecodeError else ("why",)))
        return real(dataset)

    monkeypatch.setattr("dosna.sources.hdf5.reader.represent", represent)
    for how in (con.ingest, con.link):
        report = how(path, how.__name__, on_error="skip")
        assert report.made == [f"{how.__name__}/good"]
        assert "it cannot be read: " in report.skipped["bad"]
        assert "damaged" not in report.skipped["bad"]
    assert con.ingest(path, "one", select="good").made == ["one/good"]
    with pytest.raises(RefusedError, match="'bad': it cannot be read: "):
        con.ingest(path, "strict")


def test_damage_is_said_only_of_what_is_damaged(con, path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.create_dataset("lzf", data=VOLUME, chunks=(4, 30, 20), compression="lzf")
        made = file.create_dataset("sum", data=VOLUME, chunks=(4, 30, 20), fletcher32=True)
        at = made.id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as file:
        file.seek(at + 100)
        file.write(b"damage")
    whole = (slice(0, 13), slice(0, 30), slice(0, 20))
    with open_source(path) as source:
        with pytest.raises(SourceError, match="is damaged: its Fletcher-32 checksum"):
            source.read("sum", whole)

        def fails(*given):
            raise OSError("filter returned failure")

        monkeypatch.setattr("dosna.sources.hdf5.reader.read_by_libhdf5", fails)
        with pytest.raises(SourceError, match=r"HDF5 cannot read it \(filter returned") as raised:
            source.read("lzf", whole)
    assert "damaged" not in str(raised.value)


# -- other files ---------------------------------------------------------------------------


def test_raw_files_lie_beside_their_file(con, path, tmp_path, monkeypatch):
    values = np.arange(24, dtype="<i4")
    values[:10].tofile(tmp_path / "one.raw")
    with open(tmp_path / "two.raw", "wb") as file:
        file.write(b"head" + values[10:].tobytes())
    raw = [("one.raw", 0, 40), ("two.raw", 4, h5py.h5f.UNLIMITED)]
    text = h5t.C_S1.copy()
    text.set_size(4)  # of which libhdf5 makes NumPy's
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4, 6), "<i4", external=raw)
        short = [("one.raw", 8, h5py.h5f.UNLIMITED)]
        file.create_dataset("short", (10,), "<i4", external=short)
        file.create_dataset("mixed", (2,), "<i4", external=[(str(tmp_path / "one.raw"), 8, 8)])
        creation = new_creation()
        creation.set_external(b"one.raw", 0, 40)
        make(file, "text", text, (10,), creation)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("HDF5_EXTFILE_PREFIX", raising=False)
    report = con.ingest(path, on_error="skip")
    assert report.made == ["a", "mixed", "short"]
    assert "set HDF5_EXTFILE_PREFIX=" in report.skipped["text"]
    assert con["a"][...].tolist() == values.reshape(4, 6).tolist()
    assert con["a"][1:3, 2:5].tolist() == values.reshape(4, 6)[1:3, 2:5].tolist()
    assert con["mixed"][...].tolist() == [2, 3]
    # As by libhdf5, what a raw file is too short for is zero.
    assert con["short"][...].tolist() == [*range(2, 10), 0, 0]
    # Those of the current folder are others.
    (values + 100).tofile("one.raw")
    (values + 100).tofile("two.raw")
    with h5py.File(path) as file:
        assert file["a"][0, 0] == 100
    con.ingest(path, "again", on_error="skip")
    np.testing.assert_array_equal(con["again/a"][...], con["a"][...])
    # But if there are no others, libhdf5 has them.
    os.rename(tmp_path / "two.raw", tmp_path / "gone.raw")
    con.ingest(path, "there", select="a")
    assert con["there/a"][0, 0] == 100
    os.remove("two.raw")
    with pytest.raises(RefusedError, match=r"its elements are in .*two\.raw"):
        con.ingest(path, "nowhere", select="a")


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "parts").mkdir()
    for number in (0, 2, 3):
        with h5py.File(tmp_path / f"parts/p{number}.h5", "w") as file:
            file.create_dataset("d", data=np.full(6, number, "i4"), maxshape=(None,), chunks=(3,))
    return tmp_path / "parts"


def numbered_view(file, name, pattern, inside=b"d"):
    extent = (h5s.UNLIMITED, 6)
    space = h5s.create_simple((1, 6), extent)
    space.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 1), (1, 6))
    creation = new_creation()
    creation.set_fill_value(np.array(-5, "i4"))
    creation.set_virtual(space, pattern, inside, h5s.create_simple((6,)))
    h5d.create(file.id, name.encode(), h5t.NATIVE_INT32, space, creation)


def test_numbered_sources_of_which_one_is_missing(con, path, parts):
    with h5py.File(path, "w", libver="latest") as file:
        numbered_view(file, "files", b"parts/p%b.h5")
        for number in (0, 2):
            file[f"in/d{number}"] = np.full(6, number, "i4")
        numbered_view(file, "inside", b".", b"/in/d%b")
        numbered_view(file, "none", b"parts/q%b.h5")
    with h5py.File(path) as file:
        assert (file["files"].shape, file["inside"].shape) == ((1, 6), (1, 6))
    notes = con.ingest(path, on_error="skip").notes
    grows = "it is a view that grows with its sources, and has their present length"
    assert notes["files"] == [
        grows,
        "it ends where parts/p1.h5 is missing, and does not show parts/p2.h5 and what follows",
    ]
    assert notes["inside"][1:] == [
        "it ends where /in/d1 is missing, and does not show /in/d2 and what follows"
    ]
    assert notes.get("none", [grows]) == [grows]


def test_sources_are_looked_for_as_by_libhdf5(con, path, parts, tmp_path, monkeypatch):
    monkeypatch.delenv("HDF5_VDS_PREFIX", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.rename(parts / "p3.h5", elsewhere / "p3.h5")
    sources = {
        "beside": "parts/p0.h5",
        "absolute": str(parts / "p2.h5"),
        "absolute, by its last name": "/no/such/folder/p4.h5",
        "current folder": "p3.h5",
        "prefix": "p5.h5",
        "missing": "p6.h5",
    }
    with h5py.File(tmp_path / "p4.h5", "w") as file:
        file["d"] = np.full(6, 4, "i4")
    (tmp_path / "prefixed").mkdir()
    with h5py.File(tmp_path / "prefixed" / "p5.h5", "w") as file:
        file["d"] = np.full(6, 5, "i4")
    with h5py.File(path, "w", libver="latest") as file:
        for name, source in sources.items():
            layout = h5py.VirtualLayout((6,), "i4")
            layout[...] = h5py.VirtualSource(source, "d", (6,))
            file.create_virtual_dataset(name, layout, fillvalue=-1)
    monkeypatch.chdir(elsewhere)
    program = """
import sys
import h5py
import dosna as dn
with dn.Connection("views", backend="ram") as con:
    notes = con.ingest(sys.argv[1]).notes
    with h5py.File(sys.argv[1]) as file:
        for name in file:
            assert (con[name][...] == file[name][...]).all()
            print(name, int(file[name][0]), name in notes, sep="|")
"""
    environment = {**os.environ, "HDF5_VDS_PREFIX": str(tmp_path / "prefixed")}
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split("|", 1) for line in done.stdout.splitlines())
    assert found == {
        "beside": "0|False",
        "absolute": "2|False",
        "absolute, by its last name": "4|False",
        "current folder": "3|False",
        "prefix": "5|False",
        "missing": "-1|True",
    }


class Lost(MemoryFile):
    """A file of which one read fails."""

    stream = ByteFile.stream
    left = -1

    def read(self, offset, size):
        self.left -= 1
        if self.left == 0:
            raise StorageError("the server is away")
        return super().read(offset, size)


def test_a_server_that_fails_is_no_damage_of_a_file():
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        for number in range(2):  # so that what is said of each lies far from the others
            file[f"g{number}/x"] = np.arange(50_000)
            file[f"g{number}/y"] = np.arange(50_000.0)
    raised = 0
    for number in range(12):
        lost = Lost("a.h5", written.getvalue(), "a state")
        lost.left = number
        with H5Source(lost) as source, suppress(StorageError):
            raised += 1
            assert list(source.groups()) == ["", "g0", "g1"]
            assert source.names() == ["g0/x", "g0/y", "g1/x", "g1/y"]
            assert not any(source.describe(name).refused for name in source.names())
            raised -= 1
    assert raised > 3


def test_a_server_that_fails_leaves_no_names_of_axes_out(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
        file["x"].dims[0].label = "time"

    def away(*_):
        raise StorageError("the server is away")

    with open_source(str(tmp_path / "a.h5")) as source:
        with monkeypatch.context() as patched:
            patched.setattr(h5scales, "read_attribute", away)
            with pytest.raises(StorageError, match="away"):
                source.describe("x")
        assert source.describe("x").dims == ("time",)
