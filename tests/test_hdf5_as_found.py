"""HDF5 files as other programs and other versions of libhdf5 make them: what is read is right."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.cli import main
from dosna.sources import h5direct, h5types

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
    monkeypatch.setattr("dosna.sources.h5chunks._CODECS", {})
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda found: found != code)
    report = con.ingest(path, on_error="skip")
    assert report.made == ["b"]
    assert f"HDF5's filter {code}" in report.skipped["a"]
    assert says in report.skipped["a"]
    assert ("hdf5plugin" in report.skipped["a"]) == (code == 32015)


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
    says = "its file does not define what was never written: that is zero here"
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
    monkeypatch.setattr("dosna.sources.hdf5.is_partly_undefined", lambda dataset: True)
    report = con.ingest(path, on_error="skip")
    assert report.made == ["n"]
    assert "does not define what those of its strings are that are missing" in report.skipped["v"]


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
