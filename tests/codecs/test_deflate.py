"""Deflate by libdeflate and by zlib: each reads what the other wrote, and damage is an error."""

from __future__ import annotations

import gzip
import pathlib
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

from dosna.codecs import deflate

FORMS = {
    "zlib": (deflate.compress_zlib, deflate.decompress_zlib, zlib.compress, zlib.decompress),
    "gzip": (deflate.compress_gzip, deflate.decompress_gzip, gzip.compress, gzip.decompress),
}
DATA = np.random.default_rng(0).poisson(5, 40_000).astype("u2").tobytes()


@pytest.fixture(params=["libdeflate", "zlib"])
def _library(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(deflate, "libdeflate", None)
    else:
        require("deflate")


@pytest.fixture(params=FORMS)
def form(request, _library):
    return FORMS[request.param]


@pytest.mark.parametrize("level", range(-1, 10))
def test_the_standard_library_reads_it(form, level):
    compress, decompress, _, theirs = form
    for data in (DATA, b"", b"x"):
        stream = compress(data, level)
        assert theirs(stream) == data
        assert decompress(stream, len(data)) == data
        assert decompress(memoryview(stream), len(data) + 100) == data


@given(st.binary(max_size=300), st.integers(1, 9))
def test_what_the_standard_library_writes_is_read(data, level):
    for _, decompress, theirs, _ in FORMS.values():
        assert decompress(theirs(data, level), len(data)) == data


def test_damage_is_an_error(form):
    compress, decompress, _, _ = form
    stream = bytes(compress(DATA, 4))
    for bad in (stream[:-1], stream[: len(stream) // 2], b"", b"x" * 50, b"\0" * len(stream)):
        with pytest.raises(deflate.DeflateError):
            decompress(bad, len(DATA))
    for place in range(0, len(stream), len(stream) // 50):
        bad = bytearray(stream)
        bad[place] ^= 4
        try:
            found = decompress(bytes(bad), len(DATA))
        except deflate.DeflateError:
            continue
        assert found == DATA  # a byte of a header that says nothing, such as the system's


def test_what_is_too_long_is_an_error(form):
    compress, decompress, _, _ = form
    for most in (len(DATA) - 1, 1, 0):
        with pytest.raises(deflate.DeflateError):
            decompress(compress(DATA, 1), most)


@pytest.mark.usefixtures("_library")
def test_members_and_what_follows():
    parts = [DATA[:100], b"", DATA[100:]]
    stream = b"".join(map(gzip.compress, parts))
    assert deflate.decompress_gzip(stream, len(DATA)) == DATA
    with pytest.raises(deflate.DeflateError):
        deflate.decompress_gzip(stream, len(DATA) - 1)
    with pytest.raises(deflate.DeflateError):
        deflate.decompress_gzip(gzip.compress(DATA) + b"more", len(DATA))
    # As libhdf5 reads chunks of which the file says that they are longer.
    assert deflate.decompress_zlib(zlib.compress(DATA) + b"more", len(DATA)) == DATA


@pytest.mark.parametrize("level", range(1, 10))
def test_sizes_are_those_of_zlib(level):
    require("deflate")
    rng = np.random.default_rng(0)
    smooth = (np.cumsum(rng.integers(-3, 4, 200_000)) + 1000).astype("u2")
    noisy = np.round(rng.normal(size=50_000), 2).astype("f4")
    text = "\n".join(map(str, noisy)).encode()
    for data in (smooth.tobytes(), noisy.tobytes(), text, pathlib.Path(__file__).read_bytes()):
        ratio = len(deflate.compress_zlib(data, level)) / len(zlib.compress(data, level))
        assert ratio < 1.08
