"""Reading and writing the files of folders: many parts, short reads, errors of the system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from support import require

h5py = require("h5py")
require("numcodecs")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.backends.zarr.dataset import FileDataset  # noqa: E402
from dosna.io.local import LocalFile  # noqa: E402


@pytest.fixture(params=["hdf5", "file"])
def con(request, tmp_path):
    with dn.Connection(str(tmp_path), backend=request.param, engine="cpu") as connection:
        yield connection


def chunk_file(con, name, idx):
    return os.path.join(con.name, name, con[name].instance._template % idx)


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_shards_of_more_parts_than_one_call_writes(tmp_path, compression, checksum):
    zarr = require("zarr")
    data = np.arange(40 * 40, dtype="i4").reshape(40, 40)
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        ds = con.create_dataset(
            "x",
            data=data,
            chunk_size=(1, 1),
            shards=(40, 40),
            compression=compression,
            checksum=checksum,
        )
        assert np.array_equal(ds[...], data)
        ds[3:20, 5] = -1
        data[3:20, 5] = -1
        assert np.array_equal(ds[...], data)
    assert np.array_equal(zarr.open(str(tmp_path / "x"), mode="r")[...], data)


@pytest.fixture
def short(monkeypatch):
    """Let each call read or write 1000 bytes at most, as Linux does with 2 GiB."""

    def preadv(file, buffers, offset):
        for buffer in buffers:
            if len(memoryview(buffer).cast("B")):
                return real_preadv(file, [memoryview(buffer).cast("B")[:1000]], offset)
        return 0

    def writev(file, buffers):
        for buffer in buffers:
            if len(memoryview(buffer).cast("B")):
                return real_writev(file, [memoryview(buffer).cast("B")[:1000]])
        return 0

    real_pread, real_preadv, real_writev = os.pread, os.preadv, os.writev
    monkeypatch.setattr(os, "pread", lambda file, size, at: real_pread(file, min(size, 1000), at))
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "writev", writev)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_calls_that_read_or_write_a_part(con, short, compression):
    data = np.random.default_rng(0).random((60, 50))
    data[30:] = 0
    ds = con.create_dataset("x", data=data, chunk_size=(30, 25), compression=compression)
    assert np.array_equal(ds[...], data)
    assert np.array_equal(ds[5:50, 7], data[5:50, 7])
    ds[10:40] = 2
    data[10:40] = 2
    assert np.array_equal(con["x"][...], data)
    assert ds.verify().good


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_shards_whose_chunks_one_call_does_not_read(tmp_path, short, compression):
    data = np.random.default_rng(0).random((60, 50))
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        options = {"chunk_size": (30, 25), "shards": (60, 50), "compression": compression}
        ds = con.create_dataset("x", data=data, **options)
        assert np.array_equal(ds[...], data)
        assert np.array_equal(ds[31:50, 27], data[31:50, 27])
        assert ds[59, 49] == data[59, 49]
        assert ds.verify().good


def test_an_index_that_points_beyond_its_shard(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        data = np.arange(16.0)
        ds = con.create_dataset("x", data=data, chunk_size=2, shards=16, checksum=False)
        path = chunk_file(con, "x", (0,))
        image = bytearray(Path(path).read_bytes())
        index = image[-(8 * 16 + 4) : -4]
        index[8:16] = (1 << 60).to_bytes(8, "little")  # the length of the first chunk
        image[-(8 * 16 + 4) :] = index + crc32c(index).to_bytes(4, "little")
        Path(path).write_bytes(image)
        with pytest.raises(errors.ChunkCorruptError, match="beyond"):
            ds[0]
        with pytest.raises(errors.ChunkCorruptError, match="beyond"):
            ds[...]
        assert ds.verify().corrupt == ((0,),)


OPTIONS = {
    "plain": {"checksum": False},
    "checked": {"checksum": True},
    "gzip": {"compression": "gzip"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("extent", [8, 50_000])
def test_a_folder_in_place_of_a_chunk(con, options, extent):
    data = np.arange(4.0 * extent)
    ds = con.create_dataset("x", data=data, chunk_size=extent, **options)
    path = chunk_file(con, "x", (2,))
    os.unlink(path)
    os.mkdir(path)
    reads = [
        lambda: ds[...],
        lambda: ds[2 * extent],
        lambda: ds[2 * extent + 1 : 2 * extent + 3],
        lambda: ds.get_chunk_data((2,)),
        lambda: ds[::3],
        ds.sum,
    ]
    for read in reads:
        with pytest.raises((errors.StorageError, errors.ChunkCorruptError)):
            read()
    with pytest.raises(errors.StorageError):
        ds[2 * extent : 3 * extent] = 0
    assert np.array_equal(ds[:extent], data[:extent])
    found = ds.verify()
    assert (found.unreadable or found.corrupt) == ((2,),)
    assert len(found.ok or found.unchecked) == 3
    assert not found.good


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_errors_of_the_file_system_are_storage_errors(con, monkeypatch, options, number):
    """A stand-in for a disk that fails: one file's reads end in an error."""
    data = np.arange(40.0)
    ds = con.create_dataset("x", data=data, chunk_size=8, **options)
    bad = os.stat(chunk_file(con, "x", (2,))).st_ino

    def failing(real):
        def call(file, *rest):
            if os.fstat(file).st_ino == bad:
                raise OSError(number, os.strerror(number))
            return real(file, *rest)

        return call

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    for read in (lambda: ds[...], lambda: ds[17], lambda: ds.get_chunk_data((2,)), ds.sum):
        with pytest.raises(errors.StorageError) as raised:
            read()
        assert raised.value.errno == number
    assert ds.verify().unreadable == ((2,),)
    assert len(ds.verify().ok or ds.verify().unchecked) == 4


def test_errors_of_local_files_are_errors_of_sources(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345678")
    file = LocalFile(str(tmp_path / "a"))
    assert bytes(file.read(2, 3)) == b"345"

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(errors.SourceError, match="read: Input/output error"):
        file.read(0, 2)
    with pytest.raises(errors.SourceError, match="read: Input/output error"):
        file.read_into(0, memoryview(bytearray(2)))
    monkeypatch.undo()
    with pytest.raises(errors.SourceError):
        LocalFile(str(tmp_path)).read(0, 2)
    with pytest.raises(errors.SourceNotFoundError):
        LocalFile(str(tmp_path / "a" / "b")).fingerprint()


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_whole_chunks_are_read_by_one_call_wherever_they_go(tmp_path, backend, monkeypatch):
    volume = np.arange(32 * 64 * 64, dtype="f4").reshape(32, 64, 64)
    options = {"checksum": False} if backend == "file" else {}
    with dn.Connection(str(tmp_path), backend=backend) as con:
        ds = con.create_dataset("x", data=volume, chunk_size=(16, 32, 48), **options)
        way = "_fetch" if backend == "hdf5" else "read_chunk"
        parts = []
        found = getattr(type(ds.instance), way)
        monkeypatch.setattr(
            type(ds.instance), way, lambda *args: parts.append(args) or found(*args)
        )
        assert np.array_equal(ds[...], volume)
        assert parts == []
        assert np.array_equal(ds[3:], volume[3:])  # four parts, and four whole chunks
        assert len(parts) == 4


@pytest.mark.parametrize("dtype", ["f4", ">i8", "M8[us]", "S3", "V5", "i2,f8"])
@pytest.mark.parametrize("checksum", [True, False])
def test_elements_far_apart_in_large_chunks(tmp_path, dtype, checksum):
    rows, chunk = 130_000, 40_000
    random = np.random.default_rng(0)
    raw = random.integers(0, 100, (rows, np.dtype(dtype).itemsize), np.uint8)
    data = raw.view(dtype).reshape(rows)
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        ds = con.create_dataset("x", (rows,), dtype, chunk_size=chunk, checksum=checksum)
        ds[:chunk] = data[:chunk]
        ds[2 * chunk :] = data[2 * chunk :]
        data[chunk : 2 * chunk] = ds.fillvalue
        for picked in (
            [0, chunk - 1],
            [chunk - 1, 5, 5, 0, rows - 1, 2 * chunk],
            random.permutation(rows)[:500],
            np.sort(random.permutation(rows)[:70_000]),
            np.arange(100, 200),
            [rows - 1],
        ):
            assert ds[picked].tobytes() == data[picked].tobytes()
            out = np.empty((len(picked), 2), dtype)
            ds.read(picked, out=out[:, 1])
            assert out[:, 1].tobytes() == data[picked].tobytes()
        os.truncate(chunk_file(con, "x", (3,)), 1000)
        with pytest.raises(errors.ChunkCorruptError):
            ds[[3 * chunk, rows - 1]]


def test_elements_far_apart_are_found_without_ranges_of_bytes(tmp_path, monkeypatch):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        ds = con.create_dataset("x", data=np.arange(90_000), chunk_size=30_000, checksum=False)
        slow = []
        real = FileDataset.read_chunk
        monkeypatch.setattr(
            FileDataset,
            "read_chunk",
            lambda self, idx, key: slow.append(idx) or real(self, idx, key),
        )
        wanted = [5, 29_000, 30_000, 59_999, 60_000, 60_100]
        assert ds[wanted].tolist() == wanted
        assert slow == [(2,)]
