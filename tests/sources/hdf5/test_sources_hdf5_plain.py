"""Numbers in one piece of a file: described as all others are, by opening each once."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.codecs.zarr.parsing import indented
from dosna.sources import open_source

h5py = require("h5py")
from h5py import h5d, h5o  # noqa: E402

KINDS = ["<i1", ">i2", "<u4", ">u8", "<f2", ">f4", "<f8", "<i8"]


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "many.h5")
    with h5py.File(path, "w") as file:
        for kind in KINDS:
            file[f"numbers/{kind[1:]}"] = np.arange(12, dtype=kind).reshape(3, 4)
        file["scalar"] = np.float32(2.5)
        file.create_dataset("filled", (5,), "i4", data=range(5), fillvalue=7)
        for name, kind in (("text", "char"), ("double", "double")):
            file[name] = np.arange(3, dtype="u2")
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
        file["double"].attrs["ref"] = file["scalar"].ref
        file["long"] = np.arange(100_000.0)
        file["_nc4_non_coord_x"] = np.arange(3)
        file["link"] = h5py.SoftLink("/scalar")
        # What has to be described in the longer way.
        file["flag"] = np.array([True, False])
        file["complex"] = np.arange(3) * 1j
        file["bytes"] = np.array([b"ab", b"c"])
        file["record"] = np.array([(1, 2.0)], [("n", "i4"), ("x", "f8")])
        file["quad"] = np.arange(3, dtype="longdouble")
        file.create_dataset("nothing", (4,), "f4")
        file.create_dataset("empty", (0, 3), "f4")
        file.create_dataset("chunked", data=np.arange(9), chunks=(4,))
        file.create_dataset("null", data=h5py.Empty("f4"))
        file["x"] = np.arange(4.0)
        file["x"].make_scale("x")
        file["y"] = np.arange(4.0)
        file["y"].dims[0].attach_scale(file["x"])
    return path


LONGER = {
    *("flag", "complex", "bytes", "record", "quad"),
    *("nothing", "empty", "chunked", "null", "x", "y"),
}


def test_they_are_described_and_read_as_all_others_are(path):
    with open_source(path) as source, h5py.File(path) as file:
        assert {name for name in source.names() if name not in source_plain(source)} == LONGER
        for name in source.names():
            found = source.describe(name)
            links = tuple(source._walked().arrays[name])
            longer = source._reader(name).describe(name, links, source._name_of)
            assert found.dtype.str == longer.dtype.str
            assert repr(asdict(found)) == repr(asdict(longer))
            assert (source.stored(name) is None) == (source._reader(name).stored() is None)
            if name not in LONGER:
                np.testing.assert_array_equal(source[name][...], file[name][()])
        assert source.describe("double").attrs["ref"] == "/scalar"
        assert "MATLAB" in source.describe("text").notes[0]
        assert "non_coord" not in source.describe("_nc4_non_coord_x").notes[0]


def source_plain(source):
    for name in source.names():
        source.describe(name)
    return source._plain


def test_each_is_opened_once(path, monkeypatch, tmp_path):
    opened = []

    def count(place, name, *args, **options):
        opened.append(name)
        return real(place, name, *args, **options)

    real = h5d.open
    monkeypatch.setattr(h5d, "open", count)
    groups = []
    get = h5o.open
    monkeypatch.setattr(h5o, "open", lambda *a: groups.append(a[1]) or get(*a))
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.ingest(path, select=["numbers/*", "filled"])
        assert groups == [b"/", b"numbers"]
        assert len(opened) == len(set(opened)) == len(KINDS) + 1
        assert con["numbers/i2"][2, 3] == 11


def test_a_file_that_is_open_for_writing_is_read_by_libhdf5(path):
    with h5py.File(path, "a") as file, open_source(file) as source:
        source.describe("long")
        file["long"][5] = -1
        assert source["long"][5] == -1
        assert source_plain(source) == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_documents_are_written_as_json_does(value):
    assert indented(value) == json.dumps(value, indent=2)
