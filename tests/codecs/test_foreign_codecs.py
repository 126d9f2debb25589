"""Codecs of other packages: all three kinds, by registration, in documents of Zarr."""

from __future__ import annotations

import bz2
import json

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna import errors
from dosna.codecs import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec, CodecKind, registry
from dosna.codecs.pipeline import Pipeline
from dosna.testing import CodecTests


class Bz2(BytesBytesCodec):
    def __init__(self, level=9):
        if level not in range(1, 10):
            raise ValueError(f"level must be 1 to 9, not {level!r}")
        self.level = level

    def encode(self, data):
        return [bz2.compress(data, self.level)]

    def decode(self, data, into):
        return bz2.decompress(data)


class Scaled(ArrayArrayCodec):
    """Numbers as multiples of a step, in 16 bits."""

    def __init__(self, step):
        self.step = step

    def encoded_type(self, shape, dtype):
        if dtype.kind != "f":
            raise ValueError(f"the codec scaled takes floating-point numbers, and not {dtype}")
        return shape, np.dtype("<i2")

    def encode(self, array):
        return np.rint(array / self.step)

    def decode(self, array, shape, dtype):
        return (array * self.step).astype(dtype)


class Lines(ArrayBytesCodec):
    """Numbers as lines of text."""

    def encode(self, array):
        return [b"[", ",".join(map(repr, array.ravel().tolist())).encode(), b"]"]

    def decode(self, data, shape, dtype):
        return np.array(json.loads(bytes(data)), dtype).reshape(shape)


@pytest.fixture(autouse=True)
def codecs(monkeypatch):
    monkeypatch.setattr(registry, "loaded", dict(registry.loaded))
    for name, codec in {"bz2": Bz2, "mine.scaled": Scaled, "lines": Lines}.items():
        registry.register(CodecKind(name, codec))


@pytest.fixture
def con(tmp_path):
    require("crc32c")
    with dn.Connection(str(tmp_path), backend="file") as con:
        yield con


DATA = np.arange(300, dtype="<f4").reshape(20, 15) / 4
SCALED = {"name": "mine.scaled", "step": 0.25}


@pytest.mark.parametrize(
    ("compression", "names"),
    [
        ("bz2", ["bytes", "bz2"]),
        ({"name": "bz2", "level": 1}, ["bytes", "bz2"]),
        ("lines", ["lines"]),
        (SCALED, ["mine.scaled", "bytes"]),
        ([SCALED, "bz2"], ["mine.scaled", "bytes", "bz2"]),
        ([SCALED, "lines", "gzip", "bz2"], ["mine.scaled", "lines", "gzip", "bz2"]),
        ([], ["bytes"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("shards", [None, (16, 16)])
def test_datasets_by_codecs_of_others(con, tmp_path, compression, names, shards):
    options = {"compression": compression, "checksum": False, "shards": shards}
    made = con.create_dataset("x", data=DATA, chunk_size=(8, 8), **options)
    made[3:5, 7] = 9
    expected = DATA.copy()
    expected[3:5, 7] = 9
    document = json.loads((tmp_path / "x/zarr.json").read_text())
    found = document["codecs"]
    if shards:
        found = found[0]["configuration"]["codecs"]
    assert [codec["name"] for codec in found] == names
    with dn.Connection(str(tmp_path), backend="file") as again:
        assert np.array_equal(again["x"][...], expected)
        alike = again.create_like(again["x"], "y", DATA.dtype)
        alike[...] = DATA
        assert np.array_equal(alike[2:19, ::3], DATA[2:19, ::3])
    alike = json.loads((tmp_path / "y/zarr.json").read_text())
    assert alike["codecs"] == document["codecs"]


def test_defaults_and_options_are_written(con, tmp_path):
    for name, compression in {"a": "bz2", "b": {"name": "bz2", "level": 1}}.items():
        con.create_dataset(name, data=DATA, compression=compression)
    levels = [
        json.loads((tmp_path / name / "zarr.json").read_text())["codecs"][1]["configuration"]
        for name in "ab"
    ]
    assert levels == [{"level": 9}, {"level": 1}]


@pytest.mark.parametrize(
    ("compression", "noun"),
    [
        ({"name": "bz2", "level": 10}, "not 10"),
        ({"name": "bz2", "speed": 1}, "speed"),
        ({"name": "mine.scaled"}, "step"),
        ("BZ2", "compression"),
        ("crc32c", "compression"),
        (["bz2", SCALED], "before"),
        (["lines", "lines"], "before"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(con, compression, noun):
    with pytest.raises(ValueError, match=noun) as caught:
        con.create_dataset("x", data=DATA, compression=compression)
    assert isinstance(caught.value, errors.DosnaError)
    assert "x" not in con


def test_elements_that_a_codec_does_not_take_are_refused(con):
    with pytest.raises(errors.ConfigurationError, match="scaled"):
        con.create_dataset("x", shape=4, dtype="i4", compression=SCALED)
    assert "x" not in con


def test_a_codec_that_is_not_there_is_named(con, tmp_path):
    con.create_dataset("x", data=DATA, compression="bz2")
    del registry.loaded["bz2"]
    with (
        dn.Connection(str(tmp_path), backend="file") as again,
        pytest.raises(errors.FormatError, match="'bz2'"),
    ):
        again["x"]


def test_bytes_that_a_codec_does_not_decode_are_a_damaged_chunk(con, tmp_path):
    ds = con.create_dataset("x", data=DATA, chunk_size=(20, 15), compression="bz2", checksum=False)
    for bad in (b"no bz2", bz2.compress(b"too few")):
        (tmp_path / "x/c/0/0").write_bytes(bad)
        with pytest.raises(errors.ChunkCorruptError, match="bz2"):
            ds[...]


def test_encoded_elements_have_the_byte_order_of_the_codec_bytes():
    specs = [{"name": "mine.scaled", "configuration": {"step": 0.25}}]
    for endian, first in [("little", b"\1\0"), ("big", b"\0\1")]:
        order = {"name": "bytes", "configuration": {"endian": endian}}
        pipeline = Pipeline([*specs, order], np.dtype("<f8"), (2,), "it")
        (data,) = pipeline.encode(np.array([0.25, 1]))
        assert bytes(data)[:2] == first
        assert pipeline.decode(data, np.empty(16, np.uint8)).tolist() == [0.25, 1]


class TestBz2(CodecTests):
    @pytest.fixture
    def compression(self):
        return "bz2"


class TestScaled(CodecTests):
    dtypes = ("<f4", ">f8")
    tolerance = 0.125

    @pytest.fixture
    def compression(self):
        return SCALED


class TestGzip(CodecTests):
    @pytest.fixture
    def compression(self):
        return {"name": "gzip", "level": 9}


@pytest.mark.parametrize("compression", ["zstd", "blosc"])
class TestNumcodecs(CodecTests):
    @pytest.fixture(autouse=True)
    def package(self):
        require("numcodecs")
