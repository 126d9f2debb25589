"""A cache of decoded chunks of files: what is kept, and that it is never stale."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time

import numpy as np
import pytest
from support import HANG, bytes_read, require

import dosna as dn
from dosna.backends.folders import chunkcache
from dosna.errors import ChunkCorruptError

require("h5py")
require("zarr")

SIZE = 1 << 20
DATA = np.random.default_rng(0).integers(0, 99, (80, 96), "i4")
CHUNK = (40, 96)
MS = 1_000_000

KINDS = [
    ("file", {"checksum": True}),
    ("file", {"checksum": True, "compression": "gzip"}),
    ("file", {"checksum": False, "compression": "zstd"}),
    ("hdf5", {"checksum": True}),
    ("hdf5", {"checksum": True, "compression": "gzip"}),
]


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def settled(monkeypatch):
    """Give the time in seconds after which a file is kept, which is short here."""
    monkeypatch.setattr(chunkcache, "_SETTLED", 20 * MS)
    return 0.03


def connect(tmp_path, backend, **options):
    return dn.Connection(str(tmp_path), backend=backend, engine="cpu", **options)


@pytest.fixture
def con(tmp_path, kind):
    with connect(tmp_path, kind[0], cache=SIZE) as connection:
        yield connection


@pytest.fixture
def ds(con, kind, settled):
    made = con.create_dataset("x", data=DATA, chunk_size=CHUNK, **kind[1])
    time.sleep(settled)
    assert made[3, 4] == DATA[3, 4]
    assert held(con) == 1
    return made


def held(con):
    return len(con.instance.chunk_cache._chunks._entries)


def chunk_file(tmp_path, kind):
    return tmp_path / "x" / ("c/0/0" if kind[0] == "file" else "chunk_0_0.h5")


def other_chunk(tmp_path, kind):
    """Return the path of a file that holds other values in the form of the first chunk."""
    with connect(tmp_path, kind[0]) as con:
        name = "other" if kind[0] == "file" else "another"
        con.create_dataset(name, data=DATA + 100, chunk_size=CHUNK, **kind[1])
        found = tmp_path / name / chunk_file(tmp_path, kind).relative_to(tmp_path / "x")
        copy = tmp_path / "spare"
        shutil.copy(found, copy)
        con.del_dataset(name)
    return copy


def test_a_chunk_is_read_and_checked_once(ds, con):
    before = bytes_read()
    for place in range(0, 40, 3):
        assert ds[place, 4:9].tolist() == DATA[place, 4:9].tolist()
        assert ds[place, 50] == DATA[place, 50]
        assert np.array_equal(ds[place : place + 1], DATA[place : place + 1])
    assert bytes_read() - before < 4000
    assert held(con) == 1
    assert np.array_equal(ds[...], DATA)
    assert ds.verify().corrupt == ()


def test_a_copy_is_handed_out(ds):
    part = ds[0:3]
    part[...] = -1
    assert np.array_equal(ds[0:3], DATA[0:3])


def test_own_writes_are_seen(ds, settled):
    for value in range(5):
        ds[3, 4] = value
        assert ds[3, 4] == value
        time.sleep(settled)
        assert ds[3, 4] == value
    ds[...] = 7
    assert ds[3, 4] == 7
    ds.get_chunk((0, 0))[...] = 8
    assert ds[3, 4] == 8


@pytest.mark.parametrize(
    "how", ["renamed", "renamed, same time", "in place", "in place, same time"]
)
def test_changes_by_other_programs_are_seen(ds, tmp_path, kind, how):
    path, other = chunk_file(tmp_path, kind), other_chunk(tmp_path, kind)
    status = os.stat(path)
    if how.startswith("renamed"):
        os.rename(other, path)
    else:
        image = other.read_bytes()
        with open(path, "r+b") as file:
            file.write(image)
            file.truncate(len(image))
    if how.endswith("same time"):
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ds[3, 4] == DATA[3, 4] + 100


def test_damage_is_seen(ds, tmp_path, kind, con):
    path = chunk_file(tmp_path, kind)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 3)
    with pytest.raises(ChunkCorruptError):
        ds[3, 4]
    with pytest.raises(ChunkCorruptError):
        ds[3, 4]
    assert ds.verify().corrupt == ((0, 0),)


def test_a_chunk_that_goes_or_is_trimmed(ds, settled):
    ds.attrs["unit"] = "m"
    assert ds[3, 4] == DATA[3, 4]
    ds.resize((20, 96))
    ds.resize((80, 96))
    assert (ds[3, 4], ds[30, 4]) == (DATA[3, 4], 0)
    time.sleep(settled)
    assert (ds[3, 4], ds[30, 4]) == (DATA[3, 4], 0)
    ds.del_chunk((0, 0))
    assert ds[3, 4] == 0


def test_a_dataset_made_again_is_another_one(ds, con, kind, settled):
    del con["x"]
    made = con.create_dataset("x", data=DATA.astype("f4") + 1, chunk_size=CHUNK, **kind[1])
    for _ in range(2):
        assert made[3, 4] == DATA[3, 4] + 1
        time.sleep(settled)


def test_a_file_that_has_just_been_written_is_not_kept(con, kind, monkeypatch):
    monkeypatch.setattr(chunkcache, "_SETTLED", 3_600_000 * MS)
    made = con.create_dataset("x", data=DATA, chunk_size=CHUNK, **kind[1])
    assert made[3, 4] == DATA[3, 4]
    assert held(con) == 0


def test_the_limit_holds(tmp_path, kind, settled):
    limit = 3 * (DATA.nbytes // 8)
    with connect(tmp_path, kind[0], cache=limit) as con:
        made = con.create_dataset("x", data=DATA, chunk_size=(10, 96), **kind[1])
        time.sleep(settled)
        for row in [*range(80), *range(0, 80, 7)]:
            assert made[row, 5] == DATA[row, 5]
        assert 0 < held(con) <= 3
        large = con.create_dataset("large", data=DATA, chunk_size=DATA.shape, **kind[1])
        time.sleep(settled)
        assert large[3, 4] == DATA[3, 4]
        assert held(con) <= 3
        cache = con.instance.chunk_cache
    assert len(cache._chunks._entries) == 0


def test_a_pickled_handle_has_a_cache_of_its_own(ds, con):
    other = pickle.loads(pickle.dumps(ds))
    assert other[3, 4] == DATA[3, 4]
    cache = other.connection.instance.chunk_cache
    assert cache is not con.instance.chunk_cache
    assert cache.limit == SIZE


def write_when_told(folder, backend, pipe):
    with dn.Connection(folder, backend=backend, engine="cpu") as con:
        ds = con["x"]
        while (value := pipe.recv()) is not None:
            ds[3, 4] = value
            pipe.send(value)


@pytest.mark.slow
def test_what_another_process_wrote_is_read(ds, tmp_path, kind, settled):
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=write_when_told, args=(str(tmp_path), kind[0], its))
    process.start()
    try:
        for value in range(1, 30):
            mine.send(value)
            assert mine.recv() == value
            assert ds[3, 4] == value
            if value % 2:
                time.sleep(settled)
                assert (ds[3, 4], ds[5, 6]) == (value, DATA[5, 6])
        mine.send(None)
        process.join(HANG)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
