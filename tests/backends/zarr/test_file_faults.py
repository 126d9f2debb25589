"""The file backend when things go wrong: damage, full disks, kills, and many writers."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from typing import ClassVar

import numpy as np
import pytest
from faults import FolderFaults, numbers
from sharded import SHARDED
from support import require

import dosna as dn
from dosna import errors
from dosna.io.locks import open_descriptor


class TestFile(FolderFaults):
    backend = "file"
    left: ClassVar = {"zarr.json"}

    @staticmethod
    def chunk_file(*idx):
        return "/".join(["c", *map(str, idx)])


class TestShards(FolderFaults):
    backend = "file"
    maker = SHARDED
    left: ClassVar = {"zarr.json"}

    @staticmethod
    def chunk_file(i, j):
        return f"c/{i // 2}/{j // 3}"


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as connection:
        yield connection


# Damage


def cut(raw):
    return raw[:-1]


def halve(raw):
    return raw[: len(raw) // 2]


def extend(raw):
    return raw + b"\0"


def empty(raw):
    return b""


def rubbish(raw):
    return bytes(range(256)) * (len(raw) // 256 + 1)


KINDS = {
    "plain": {"checksum": False},
    "checked": {},
    "gzip": {"compression": "gzip", "checksum": False},
    "zstd": {"compression": "zstd", "checksum": False},
    "blosc": {"compression": "blosc", "checksum": False},
    "shards": {"shards": (8, 500)},
    "plain shards": {"shards": (8, 500), "checksum": False},
    "zstd shards": {"shards": (8, 500), "checksum": False, "compression": "zstd"},
}


@pytest.mark.parametrize("damage", [cut, halve, extend, empty, rubbish])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_an_error_that_names_dataset_and_chunk(con, tmp_path, damage, kind):
    require("numcodecs")
    data = np.random.default_rng(0).random((8, 1000))
    ds = con.create_dataset("x", data=data, chunk_size=(4, 500), **KINDS[kind])
    path = tmp_path / "x" / ("c/0/1" if "shards" in kind else "c/1/1")
    path.write_bytes(damage(path.read_bytes()))
    reads = [
        lambda: ds[...],
        lambda: ds[5, 600],
        lambda: ds[:, 600],
        lambda: ds[[5, 6], [600, 601]],
        lambda: ds.get_chunk((1, 1))[...],
        lambda: ds.apply(np.negative),
        lambda: ds.__setitem__((5, 600), 1),
    ]
    for read in reads:
        with pytest.raises(errors.ChunkCorruptError, match=r"chunk \(\d, 1\) of dataset 'x'.*c/"):
            read()
    assert (1, 1) in ds.verify().corrupt
    if "shards" in kind:
        ds[:, 500:] = 3  # a whole write needs nothing of what was there
    else:
        ds.get_chunk((1, 1))[...] = 3
    assert np.all(ds[4:, 500:] == 3)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"compression": "blosc"}],
    ids=str,
)
@pytest.mark.parametrize("shards", [None, (4, 20)])
def test_no_flipped_byte_gives_wrong_values_where_there_is_a_checksum(
    con, tmp_path, options, shards
):
    require("numcodecs")
    data = numbers((4, 20))
    ds = con.create_dataset("x", data=data, chunk_size=(4, 10), shards=shards, **options)
    path = tmp_path / "x" / "c/0/0"
    raw = path.read_bytes()
    for place in range(0, len(raw), 3):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(errors.ChunkCorruptError):
            ds[...]
        assert not ds.verify().good
    path.write_bytes(raw)
    assert np.array_equal(ds[...], data)


# Somebody else changes the dataset


def test_handles_notice_what_others_did(con):
    mine, theirs = con.create_dataset("x", data=numbers((4, 4)), chunk_size=(2, 2)), con["x"]
    theirs.attrs["a"] = 1
    mine[0, 0] = 5
    assert theirs[0, 0] == 5
    theirs.resize((2, 8))
    with pytest.raises(errors.StaleDatasetError):
        mine[3] = 1
    mine.refresh()
    assert mine.shape == (2, 8)
    theirs.resize((3, 3))
    with pytest.raises(errors.StaleDatasetError):  # the rim would come back later
        mine[:2, :4] = 7
    theirs.resize((4, 4))
    assert np.array_equal(theirs[:, 3], np.zeros(4))
    con.del_dataset("x")
    for use in [lambda: mine[...], lambda: mine.__setitem__(0, 1), mine.refresh, mine.flush]:
        with pytest.raises(errors.DatasetNotFoundError):
            use()
    con.create_dataset("x", data=numbers((4, 4)), chunk_size=(2, 2))
    for use in [lambda: mine[...], lambda: mine.__setitem__(0, 1), mine.refresh]:
        with pytest.raises(errors.StaleDatasetError):
            use()
    assert np.array_equal(con["x"][...], numbers((4, 4)))


def test_the_index_of_a_shard_is_not_trusted_when_the_shard_was_replaced(con):
    ds = con.create_dataset(
        "x", shape=(64,), dtype="i8", chunk_size=8, shards=64, compression="gzip"
    )
    other = con["x"]
    rng = np.random.default_rng(0)
    for _ in range(50):
        data = rng.integers(0, 1 << rng.integers(1, 60), 64)
        ds[...] = data
        assert other[20] == data[20]
        assert np.array_equal(other[8:16], data[8:16])


def test_resizing_shrinks_shards_too(con):
    data = numbers((10, 10))
    ds = con.create_dataset("x", data=data, chunk_size=(2, 3), shards=(4, 6), fillvalue=-1)
    ds.resize((5, 4))
    assert sorted(ds.written_chunks()) == [(i, j) for i in range(3) for j in range(2)]
    ds.resize((10, 10))
    expected = np.full((10, 10), -1.0)
    expected[:5, :4] = data[:5, :4]
    assert np.array_equal(ds[...], expected)


# Locks


def test_reading_creates_nothing_and_takes_no_lock(con, tmp_path):
    con.create_dataset("x", data=numbers((4, 4)), chunk_size=(2, 2))
    (tmp_path / "x" / ".lock").unlink()
    before = sorted(map(str, tmp_path.rglob("*")))
    with dn.Connection(str(tmp_path), backend="file", mode="r") as reader:
        ds = reader["x"]
        with con["x"].instance.exclusive():
            assert ds.sum() == numbers((4, 4)).sum()
            assert ds.verify().good
        (tmp_path / "x" / ".lock").unlink()
        assert ds.written_chunks() == [(0, 0), (0, 1), (1, 0), (1, 1)]
        ds.flush()
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_who_replaces_the_group_while_datasets_are_made_does_no_harm(con, tmp_path):
    for number in range(20):
        (tmp_path / "other").write_bytes((tmp_path / "zarr.json").read_bytes() if number else b"")
        if number:
            os.replace(tmp_path / "other", tmp_path / "zarr.json")
        con.create_dataset(f"x{number}", data=numbers((2,)))
        with pytest.raises(errors.DatasetExistsError):
            con.create_dataset(f"x{number}", data=numbers((2,)))
    assert len(con) == 20


def test_a_descriptor_is_not_copied(tmp_path):
    (tmp_path / "a").write_text("a")
    file = open_descriptor(str(tmp_path / "a"), os.O_RDONLY)
    for use in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="file descriptor"):
            use(file)
    gc.collect()
    assert os.read(file, 1) == b"a", "no copy has closed it"
