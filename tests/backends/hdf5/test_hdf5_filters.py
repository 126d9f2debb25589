"""Chunk files of the hdf5 backend with filters: read and written without libhdf5."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

h5py = require("h5py")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.backends.hdf5 import chunkfile, frame  # noqa: E402
from dosna.codecs import deflate  # noqa: E402

FILTERS = {
    "gzip": {"compression": "gzip"},
    "checksum": {"checksum": True},
    "both": {"compression": "gzip", "checksum": True},
}
DATA = np.random.default_rng(0).poisson(90, (50, 60, 40)).astype("u2")


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as connection:
        yield connection


@pytest.fixture(params=FILTERS)
def options(request):
    return FILTERS[request.param]


@pytest.fixture
def _no_libhdf5(monkeypatch):
    """Make it an error to read or write a chunk file through libhdf5."""

    def refuse(*_):
        raise AssertionError("libhdf5")

    monkeypatch.setattr(chunkfile, "decode", refuse)
    monkeypatch.setattr(frame, "encode", refuse)


@pytest.mark.usefixtures("_no_libhdf5")
@pytest.mark.parametrize("chunk_size", [(50, 60, 40), (16, 32, 40), (7, 1, 3)])
def test_boxes_of_all_kinds(con, options, chunk_size):
    ds = con.create_dataset("x", shape=DATA.shape, dtype="u2", chunk_size=chunk_size, **options)
    expected = np.zeros_like(DATA)
    ds[3:41] = expected[3:41] = DATA[3:41]
    ds[5, ::7, 2:9] = expected[5, ::7, 2:9] = 7
    for key in (..., (slice(2, 30), 5), (slice(None), 59, 39), (6, 7, 8), (slice(0, 49, 5),)):
        assert np.array_equal(ds[key], expected[key])
    assert np.array_equal(ds[...].astype("f8"), expected.astype("f8"))
    assert ds.verify().corrupt == ()


@pytest.mark.parametrize("dtype", ["f4", ">i8", "?", "S5", "M8[s]", [("a", "<i2"), ("b", ">f8")]])
@pytest.mark.parametrize("shape", [(9,), (4, 3), (2, 1, 2, 2)])
def test_files_are_as_libhdf5_makes_them(con, tmp_path, options, dtype, shape):
    data = np.zeros(shape, dtype)
    if data.dtype.kind == "f":
        data[...] = np.random.default_rng(1).random(shape)
    ds = con.create_dataset("x", data=data, chunk_size=shape, **options)
    path = tmp_path / "x" / ("chunk_" + "_".join("0" * len(shape)) + ".h5")
    metadata = ds.instance.metadata
    stored = chunkfile.filtered(data, metadata)
    assert path.read_bytes() == chunkfile.image_of(stored, metadata)
    assert np.array_equal(ds[...], data)


def test_files_of_another_program_are_read(con, tmp_path, options):
    ds = con.create_dataset("x", data=DATA, chunk_size=DATA.shape, **options)
    hdf5 = {"compression": options.get("compression"), "fletcher32": "checksum" in options}
    for libver in ("earliest", "latest"):
        data = DATA + len(libver)
        with h5py.File(tmp_path / "x" / "chunk_0_0_0.h5", "w", libver=libver) as file:
            file.create_dataset("data", data=data, chunks=DATA.shape, **hdf5)
        assert np.array_equal(ds[...], data)
        assert np.array_equal(ds[3, 4], data[3, 4])
        ds[0, 0, 0] = 5
        assert (ds[0, 0, 0], ds[1, 1, 1]) == (5, data[1, 1, 1])


def test_damage_anywhere_is_noticed(con, tmp_path):
    data = DATA[:8, :10]
    ds = con.create_dataset("x", data=data, chunk_size=data.shape, **FILTERS["both"])
    path = tmp_path / "x" / "chunk_0_0_0.h5"
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            assert np.array_equal(ds[...], data)
        except errors.ChunkCorruptError:
            noticed += 1
    stored = len(whole) - ds.instance._opened().frame.length
    assert noticed >= stored // 23
    for end in (0, 30, 2000, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(errors.ChunkCorruptError):
            ds[...]
        assert ds.verify().corrupt == ((0, 0, 0),)
    path.write_bytes(whole + b"\0")
    with pytest.raises(errors.ChunkCorruptError):
        ds[...]


def test_a_checksum_is_compared_also_where_a_part_is_read(con, tmp_path):
    ds = con.create_dataset("x", data=DATA, chunk_size=DATA.shape, **FILTERS["checksum"])
    path = tmp_path / "x" / "chunk_0_0_0.h5"
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    for key in ((0, 0, 0), (slice(3),), ...):
        with pytest.raises(errors.ChunkCorruptError, match="checksum"):
            ds[key]
    with pytest.raises(errors.ChunkCorruptError):
        ds[0, 0, 0] = 1
    assert path.read_bytes() == damaged


def test_other_versions_of_libhdf5_may_lay_files_out_otherwise(con, monkeypatch, options):
    monkeypatch.setattr("dosna.backends.hdf5.folder.frame_of", lambda _: None)
    ds = con.create_dataset("x", data=DATA, chunk_size=(25, 60, 40), **options)
    ds[4, 4] = 1
    assert np.array_equal(ds[5:], DATA[5:])
    assert (ds[4, 4] == 1).all()


def test_parts_are_changed_without_libdeflate(con, monkeypatch):
    monkeypatch.setattr(deflate, "libdeflate", None)
    ds = con.create_dataset("x", data=DATA, chunk_size=DATA.shape, **FILTERS["gzip"])
    ds[4, 4, 4] = 1
    assert ds[4, 4, 4] == 1
    assert np.array_equal(ds[5:], DATA[5:])
