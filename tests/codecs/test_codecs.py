"""Codecs: what was encoded is decoded, and what was not is an error and never a crash."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import HANG, require

from dosna import errors
from dosna.codecs.base import CodecError
from dosna.codecs.kinds import compressor
from dosna.codecs.pipeline import Pipeline
from dosna.codecs.zarr.shards import Shards

COMPRESSORS = [
    {"name": "gzip", "configuration": {"level": 1}},
    {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
    {
        "name": "blosc",
        "configuration": {
            "cname": "lz4",
            "clevel": 1,
            "shuffle": "shuffle",
            "typesize": 4,
            "blocksize": 0,
        },
    },
]
CHECKED = [{"name": "crc32c"}]
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


@st.composite
def pipelines(draw, shape):
    require("numcodecs")
    specs = [
        {"name": "transpose", "configuration": {"order": draw(st.permutations(range(len(shape))))}}
        for _ in range(draw(st.integers(0, 2)))
    ]
    kind = draw(st.sampled_from(["<f8", ">i4", "?", "<M8[s]", "S3", ">U2", "V5"]))
    order = "big" if kind.startswith(">") else "little"
    specs.append({"name": "bytes", "configuration": {"endian": order}})
    specs += draw(st.lists(st.sampled_from([*COMPRESSORS, {"name": "crc32c"}]), max_size=3))
    return specs, np.dtype(kind)


@given(st.data())
def test_any_codecs_give_back_what_they_were_given(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=9))
    specs, dtype = data.draw(pipelines(shape))
    pipeline = Pipeline(specs, dtype, shape, "it")
    raw = data.draw(hnp.arrays(np.uint8, pipeline.nbytes))
    chunk = raw.view(dtype).reshape(shape)
    encoded = b"".join(pipeline.encode(chunk))
    assert pipeline.size in (None, len(encoded))
    memory = np.empty(pipeline.nbytes, np.uint8)
    found = pipeline.decode(encoded, memory)
    assert (found.shape, found.dtype) == (shape, dtype)
    assert found.tobytes() == chunk.tobytes()
    if pipeline.direct:
        assert np.shares_memory(found, memory)
    if pipeline.checks:
        place = data.draw(st.integers(0, len(encoded) - 1))
        flipped = bytearray(encoded)
        flipped[place] ^= 1 << data.draw(st.integers(0, 7))
        try:
            again = pipeline.decode(bytes(flipped), memory)
        except CodecError:
            return
        # A compressor may not care about each bit; but a checksum inside sees the rest.
        assert again.tobytes() == chunk.tobytes()


@given(st.data())
def test_any_shard_gives_back_its_chunks(data):
    counts = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    chunks = tuple(data.draw(st.integers(1, 4)) for _ in counts)
    grain = tuple(n * c for n, c in zip(counts, chunks, strict=True))
    configuration = {
        "chunk_shape": list(chunks),
        "codecs": [LITTLE, *data.draw(st.sampled_from([[], COMPRESSORS[:1], CHECKED]))],
        "index_codecs": [LITTLE, *data.draw(st.sampled_from([[], CHECKED]))],
        "index_location": data.draw(st.sampled_from(["start", "end"])),
    }
    shards = Shards(configuration, grain, np.dtype("<i2"), "it")
    written = data.draw(st.lists(st.booleans(), min_size=shards.total, max_size=shards.total))
    parts = [
        shards.pipeline.encode(np.full(chunks, n, "<i2")) if there else None
        for n, there in enumerate(written)
    ]
    shard = b"".join(shards.join(parts))
    start, stop, _ = slice(*shards.index_range).indices(len(shard))
    index = shards.index(shard[start:stop])
    for number, (there, found) in enumerate(zip(written, shards.split(shard), strict=True)):
        assert (found is not None) == there
        if found is not None:
            place, size = index[number]
            assert bytes(found) == shard[place : place + size]
            memory = np.empty(shards.pipeline.nbytes, np.uint8)
            assert np.all(shards.pipeline.decode(found, memory) == number)
    assert [shards.number(local) for local in shards.locals()] == list(range(shards.total))


@pytest.mark.parametrize("spec", COMPRESSORS, ids=lambda spec: spec["name"])
def test_bytes_of_other_lengths_are_refused(spec):
    require("numcodecs")
    pipeline = Pipeline([LITTLE, spec], np.dtype("<f4"), (8, 8), "it")
    memory = np.empty(256, np.uint8)
    for shape in [(8, 7), (8, 9), (1,)]:
        other = Pipeline([LITTLE, spec], np.dtype("<f4"), shape, "it")
        with pytest.raises(CodecError):
            pipeline.decode(b"".join(other.encode(np.ones(shape, "<f4"))), memory)
    for data in (b"", b"\0", bytes(300)):
        with pytest.raises(CodecError):
            pipeline.decode(data, memory)


def test_zstd_that_does_not_say_how_long_it_is():
    require("numcodecs")
    # The bytes 0 to 7, as a raw block of a frame without a content size.
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + bytes([8 << 3 | 1, 0, 0]) + bytes(range(8))
    pipeline = Pipeline([LITTLE, COMPRESSORS[1]], np.dtype("u1"), (8,), "it")
    assert pipeline.decode(frame, np.empty(8, np.uint8)).tolist() == list(range(8))
    longer = Pipeline([LITTLE, COMPRESSORS[1]], np.dtype("u1"), (9,), "it")
    with pytest.raises(CodecError, match="8 bytes instead of 9"):
        longer.decode(frame, np.empty(9, np.uint8))


def test_gzip_of_several_members_and_with_rubbish_behind():
    pipeline = Pipeline([LITTLE, COMPRESSORS[0]], np.dtype("<f4"), (64,), "it")
    chunk = np.arange(64, dtype="<f4")
    raw, memory = chunk.tobytes(), np.empty(256, np.uint8)
    parts = [zlib.compress(raw[:100], 1, 31), zlib.compress(raw[100:], 1, 31)]
    assert np.array_equal(pipeline.decode(b"".join(parts), memory), chunk)
    with pytest.raises(CodecError):
        pipeline.decode(b"".join([*parts, b"more"]), memory)
    with pytest.raises(CodecError):
        pipeline.decode(zlib.compress(bytes(10**7), 9, 31), memory)


def test_a_checked_chunk_of_many_blocks():
    chunk = np.random.default_rng(0).random((200, 1000))
    pipeline = Pipeline([LITTLE, *CHECKED], chunk.dtype, chunk.shape, "it")
    encoded = bytearray(b"".join(pipeline.encode(chunk)))
    memory = np.empty(chunk.nbytes, np.uint8)
    for raw in (memory, None):
        assert np.array_equal(pipeline.decode(encoded, raw), chunk)
    for place in (0, 300_000, chunk.nbytes - 1, chunk.nbytes):
        encoded[place] ^= 1
        for raw in (memory, None):
            with pytest.raises(CodecError, match="checksum"):
                pipeline.decode(encoded, raw)
        encoded[place] ^= 1


FLIP = """
import sys
import numpy as np
from dosna.codecs.base import CodecError
from dosna.codecs.pipeline import Pipeline

sys.path.insert(0, "codecs")
from test_codecs import COMPRESSORS, LITTLE

rng = np.random.default_rng(int(sys.argv[1]))
for spec in COMPRESSORS[1:]:
    pipeline = Pipeline([LITTLE, spec], np.dtype("<f4"), (64, 64), "it")
    chunk = np.round(rng.random((64, 64)) * 9).astype("<f4")
    good = b"".join(pipeline.encode(chunk))
    memory = np.empty(pipeline.nbytes, np.uint8)
    for round in range(1500):
        bad = bytearray(good)
        for place in rng.integers(0, min(len(bad), 10 ** rng.integers(1, 5)), rng.integers(1, 4)):
            bad[place] = rng.integers(256)
        if rng.random() < 0.2:
            del bad[rng.integers(len(bad)) :]
        try:
            pipeline.decode(bytes(bad), memory)
        except CodecError:
            pass
print("alive")
"""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.slow
def test_no_damage_crashes_the_process(seed, pytestconfig):
    require("numcodecs")
    found = subprocess.run(
        [sys.executable, "-c", FLIP, str(seed)],
        cwd=pytestconfig.rootpath / "tests",
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (found.returncode, found.stdout) == (0, "alive\n"), found.stderr


def test_decoders_run_in_parallel_threads():
    # Which they can only if they let go of the interpreter; what it gains is not judged here.
    require("numcodecs")
    from concurrent.futures import ThreadPoolExecutor

    kind = np.dtype("<i4")
    pipelines = [Pipeline([LITTLE, s, *CHECKED], kind, (50_000,), "") for s in COMPRESSORS]
    chunks = [np.arange(50_000, dtype="<i4") + n for n in range(12)]

    def there_and_back(number):
        pipeline, chunk = pipelines[number % 3], chunks[number]
        encoded = b"".join(pipeline.encode(chunk))
        found = pipeline.decode(encoded, np.empty(pipeline.nbytes, np.uint8))
        return np.array_equal(found, chunk)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(12)))


WITHOUT = """
import sys
sys.modules["numcodecs"] = None
import numpy as np
import dosna as dn
from dosna import errors
with dn.Connection(sys.argv[1], backend="file") as con:
    data = np.arange(3000.0).reshape(60, 50)
    for options in [{}, {"compression": "gzip"}, {"shards": (40, 40)}]:
        ds = con.create_dataset("x", data=data, chunk_size=(20, 20), **options)
        assert np.array_equal(ds[...], data)
        ds.delete()
    for name in ("zstd", "blosc"):
        try:
            con.create_dataset("x", data=data, compression=name)
            sys.exit("no error")
        except errors.MissingDependencyError as error:
            assert "dosna[zarr]" in str(error) and name in str(error), error
    for name in ("there", "checked"):
        try:
            print(np.array_equal(con[name][...], np.arange(4)))
        except errors.MissingDependencyError as error:
            print(error)
"""


@pytest.mark.slow
def test_without_the_extra(tmp_path):
    require("numcodecs")
    import dosna as dn

    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("there", data=np.arange(4), compression="zstd")
        con.create_dataset("checked", data=np.arange(4))
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0].startswith("codec 'zstd' needs numcodecs")
    assert found.stdout.splitlines()[1] == "True"


@pytest.mark.slow
def test_without_checksums_the_error_names_the_package():
    code = (
        "import sys; sys.modules['crc32c'] = None; import dosna as dn\n"
        "try: dn.Connection('x', backend='file')\n"
        "except dn.errors.MissingDependencyError as error: print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert "crc32c" in found.stdout, found
    assert "pip install" in found.stdout


def test_options_of_blosc_follow_the_elements():
    require("numcodecs")
    expected = [("f8", "shuffle", 8), ("u1", "bitshuffle", 1), ("U99", "shuffle", 1)]
    for dtype, shuffle, typesize in expected:
        made = compressor("blosc", np.dtype(dtype))["configuration"]
        assert (made["shuffle"], made["typesize"]) == (shuffle, typesize)
    with pytest.raises(errors.ConfigurationError, match="typesize"):
        compressor({"name": "blosc", "typesize": 0}, np.dtype("f8"))
