"""How linked datasets are read: boxes at once, and bitshuffle by c-blosc."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.codecs import bitshuffle, hdf5
from dosna.codecs.hdf5 import BITSHUFFLE, UndecodableError, decoder_of
from dosna.io.local import LocalFile

h5py = require("h5py")


@pytest.fixture
def con():
    with dn.Connection("links", backend="ram", engine="cpu") as connection:
        yield connection


# Arrays that lie together


def test_a_box_of_an_array_that_lies_together_is_read_at_once(con, tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 255, (40, 50, 60), "i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = values
    monkeypatch.setattr("dosna.sources.hdf5.layout.TARGET_CHUNK_BYTES", 1000)
    con.link(tmp_path / "a.h5")
    ds = con["a"]
    assert ds.total_chunks > 100
    reads = []
    real = LocalFile.read_into
    monkeypatch.setattr(
        LocalFile, "read_into", lambda self, at, out: (reads.append(at), real(self, at, out))
    )
    for key, count in (
        (..., 1),
        (5, 1),
        ((5, 6, 7), 1),
        ((slice(3, 9), slice(10, 40)), 1),  # gaps are shorter than rows
        ((slice(None), 3), 40),
        ((slice(2, 4), slice(None), 7), 1),
    ):
        reads.clear()
        assert np.array_equal(ds[key], values[key])
        assert len(reads) == count, key
    for key in (slice(0, 40, 7), ([3, 1, 30], [4, 4, 4]), (slice(None), 49, -1), (39, 49, 59)):
        assert np.array_equal(ds[key], values[key])
    assert np.array_equal(ds.get_chunk((39, 9, 0))[...][..., :1].shape, (1, 4, 1))


# Bitshuffle


def stored_with(values: np.ndarray, size: int, compress) -> bytes:
    """Return the bytes that the filter stores for whole blocks of elements of 8 bytes."""
    stored = struct.pack(">QI", values.nbytes, size)
    raw = values.tobytes()
    for start in range(0, len(raw), size):
        block = compress(raw[start : start + size])
        stored += struct.pack(">I", len(block)) + block
    return stored


def unshuffled(raw: bytes, size: int) -> bytes:
    out = np.empty(len(raw), np.uint8)
    bitshuffle.bitunshuffle(raw, 8, size // 8, out)
    return out.tobytes()


def test_a_block_that_is_as_long_as_what_it_holds():
    lz4 = require("numcodecs.lz4")
    size = 512
    random = np.random.default_rng(0)
    for same in range(60):
        block = bytes(same) + random.bytes(size - same)
        if len(lz4.compress(block)) - 4 == size:
            break
    else:
        pytest.fail("no such block")
    raw = np.frombuffer(random.bytes(size) + block + bytes(size), "f8")
    stored = stored_with(raw, size, lambda part: lz4.compress(part)[4:])
    decode = decoder_of(BITSHUFFLE, (0, 4, 8, size // 8, bitshuffle.LZ4), 8)
    assert bytes(decode(stored, raw.nbytes)) == unshuffled(raw.tobytes(), size)


@pytest.mark.parametrize("how", ["lz4", "zstd"])
@pytest.mark.parametrize("count", [1, 7, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", "<c16", "V300"])
def test_bitshuffle_with_and_without_blosc(monkeypatch, how, count, dtype):
    codec = require(f"numcodecs.{how}")
    size = bitshuffle.block_elements(np.dtype(dtype).itemsize) * np.dtype(dtype).itemsize
    itemsize = np.dtype(dtype).itemsize
    raw = np.random.default_rng(0).integers(0, 9, count * itemsize, "u1").tobytes()
    stored, at = struct.pack(">QI", len(raw), size), 0
    while len(raw) - at >= 8 * itemsize:
        length = min(size, (len(raw) - at) // (8 * itemsize) * 8 * itemsize)
        block = codec.compress(raw[at : at + length])
        block = block[4:] if how == "lz4" else block
        stored += struct.pack(">I", len(block)) + block
        at += length
    stored += raw[at:]
    values = (0, 4, itemsize, 0, {"lz4": bitshuffle.LZ4, "zstd": bitshuffle.ZSTD}[how])
    found = bytes(decoder_of(BITSHUFFLE, values, itemsize)(stored, len(raw)))
    expected = np.empty(len(raw), np.uint8)
    bitshuffle.bitunshuffle(raw, itemsize, size // itemsize, expected)
    assert found == expected.tobytes()
    real = hdf5._decompressor
    monkeypatch.setattr(hdf5, "_decompressor", lambda n: None if n == "blosc" else real(n))
    assert bytes(decoder_of(BITSHUFFLE, values, itemsize)(stored, len(raw))) == found
    for bad in (stored[:11], stored[:-1], stored[: len(stored) // 2]):
        with pytest.raises(UndecodableError):
            decoder_of(BITSHUFFLE, values, itemsize)(bad, len(raw))


@pytest.mark.parametrize("count", [3, 1024, 5001])
@pytest.mark.parametrize("itemsize", [1, 2, 8, 300])
def test_bitshuffle_without_a_compressor(monkeypatch, count, itemsize):
    require("numcodecs")
    raw = np.random.default_rng(0).bytes(count * itemsize)
    elements = bitshuffle.block_elements(itemsize)
    expected = np.empty(len(raw), np.uint8)
    bitshuffle.bitunshuffle(raw, itemsize, elements, expected)
    for given in (0, elements):
        decode = decoder_of(BITSHUFFLE, (0, 4, itemsize, given, bitshuffle.PLAIN), itemsize)
        assert bytes(decode(raw, len(raw))) == expected.tobytes()
    monkeypatch.setattr(hdf5, "_decompressor", lambda _: None)
    decode = decoder_of(BITSHUFFLE, (0, 4, itemsize, 0, bitshuffle.PLAIN), itemsize)
    assert bytes(decode(raw, len(raw))) == expected.tobytes()
