"""The hdf5 backend: its files, as dosna, h5py and HDF5's own tools see them."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from faults import numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import bytes_read, open_files, require, require_program

h5py = require("h5py")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.backends.hdf5 import folder as h5folder  # noqa: E402
from dosna.backends.hdf5 import virtual as h5virtual  # noqa: E402


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as connection:
        yield connection


def tree(path):
    return sorted(
        os.path.relpath(os.path.join(folder, name), path)
        for folder, _, names in os.walk(path)
        for name in names
    )


def sample(shape, dtype):
    """An array of any dtype, no two neighbours alike."""
    dtype = np.dtype(dtype)
    if dtype.names is not None:
        out = np.zeros(shape, dtype)
        for name in dtype.names:
            out[name] = sample(shape, dtype[name]) if dtype[name].subdtype is None else 3
        return out
    if dtype.kind == "b":
        return numbers(shape) % 3 == 1
    if dtype.kind == "c":
        return (numbers(shape) * (1 - 2j)).astype(dtype)
    if dtype.kind == "V":
        return np.frombuffer(np.random.default_rng(1).bytes(int(np.prod(shape)) * dtype.itemsize),
                             dtype).reshape(shape)  # fmt: skip
    return numbers(shape, "i8").astype(dtype)


DTYPES = {
    "bool": ("?", True),
    "int8": ("i1", -1),
    "uint64": ("u8", 2**64 - 1),
    "big-endian int": (">i4", 7),
    "half": ("f2", 1.5),
    "float": ("f4", np.nan),
    "big-endian double": (">f8", -np.inf),
    "long double": ("g", 0.1),
    "complex": ("c8", 1 + 2j),
    "big-endian complex": (">c16", complex(np.nan, 1)),
    "datetime": ("M8[ns]", np.datetime64("NaT", "ns")),
    "big-endian timedelta": (">m8[s]", 5),
    "bytes": ("S5", b"abc"),
    "bytes, no ASCII": ("S3", b"\xff\xfe"),
    "text": ("U4", "añ€"),
    "big-endian text": (">U3", "xyz"),
    "void": ("V7", None),
    "fields": ([("a", "i4"), ("b", ">f8"), ("c", "f4", (2,))], None),
    "fields, opaque": ([("t", "M8[s]"), ("name", "U3")], None),
    "fields, with gaps": (
        np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [3, 16],
                  "itemsize": 40}), None),
}  # fmt: skip


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "checksum": True}],
                         ids=["plain", "filters"])  # fmt: skip
def test_every_dtype_comes_back_through_dosna_and_through_h5py(con, tmp_path, kind, options):
    dtype, fill = DTYPES[kind]
    data = sample((5, 7), dtype)
    ds = con.create_dataset("x", shape=(5, 7), dtype=dtype, fillvalue=fill, chunk_size=(2, 3),
                            **options)  # fmt: skip
    ds[:3] = data[:3]
    expected = np.full((5, 7), ds.fillvalue, ds.dtype)
    expected[:3] = data[:3]

    again = con.get_dataset("x")
    assert again.dtype == np.dtype(dtype)

    def same(found, wanted):
        assert found.dtype == wanted.dtype
        if wanted.dtype.kind in "fcmM":
            assert np.array_equal(found, wanted, equal_nan=True)
        elif wanted.dtype.names is None:
            assert found.tobytes() == wanted.tobytes()
        else:  # the bytes between fields are nobody's
            assert all(np.array_equal(found[n], wanted[n]) for n in wanted.dtype.names)

    same(again.fillvalue, ds.fillvalue)
    same(again[...], expected)
    same(again[:, 2], expected[:, 2])
    with h5py.File(tmp_path / "x" / "chunk_0_1.h5") as file:
        same(file["data"][...], expected[:2, 3:6])
    with h5py.File(tmp_path / "x" / "dataset.h5") as file:
        same(file["data"][...], expected)


def test_a_dataset_is_a_folder_with_the_attributes_that_dosna_has_always_written(con, tmp_path):
    con.create_dataset("x", data=numbers((5, 7), "f4"), chunk_size=(3, 4), fillvalue=2.5)
    chunks = [f"x/chunk_{i}_{j}.h5" for i in range(2) for j in range(2)]
    visible = [name for name in tree(tmp_path) if not os.path.basename(name).startswith(".")]
    assert visible == [*chunks, "x/dataset.h5"]
    with h5py.File(tmp_path / "x" / "dataset.h5") as file:
        attrs = dict(file.attrs)
        assert attrs["dtype"] == "<f4"
        assert attrs["fillvalue"] == np.float32(2.5)
        assert attrs["fillvalue"].dtype == np.float32
        assert attrs["format_version"] == 1
        for name, value in {"shape": (5, 7), "chunk_grid": (2, 2), "chunk_size": (3, 4)}.items():
            assert tuple(attrs[name]) == value
            assert attrs[name].dtype == np.int64


def test_a_chunk_outside_is_fill_and_every_chunk_has_the_full_shape(con, tmp_path):
    con.create_dataset("x", data=numbers((5, 7)), chunk_size=(3, 4), fillvalue=-1)
    with h5py.File(tmp_path / "x" / "chunk_1_1.h5") as file:
        expected = np.full((3, 4), -1.0)
        expected[:2, :3] = numbers((5, 7))[3:, 4:]
        assert np.array_equal(file["data"][...], expected)
        assert file["data"].fillvalue == -1


@pytest.mark.parametrize("program", ["h5dump", "h5ls"])
@pytest.mark.parametrize("file", ["chunk_0_0.h5", "dataset.h5"])
def test_the_tools_of_hdf5_open_the_files(con, tmp_path, program, file):
    require_program(program)
    con.create_dataset("x", data=numbers((4, 4), "i4") + 4711, chunk_size=(2, 2))
    command = [program, "-d", "/data"] if program == "h5dump" else [program, "-d"]
    target = str(tmp_path / "x" / file) + ("/data" if program == "h5ls" else "")
    shown = subprocess.run([*command, target], check=True, capture_output=True, text=True).stdout
    assert "4711" in shown


def test_chunk_files_without_filters_share_one_header(con, tmp_path):
    con.create_dataset("x", data=numbers((4, 6)), chunk_size=(2, 3))
    files = [(tmp_path / "x" / f"chunk_{i}_{j}.h5").read_bytes() for i in (0, 1) for j in (0, 1)]
    size = 2 * 3 * 8
    assert len({file[:-size] for file in files}) == 1
    assert files[3][-size:] == np.ascontiguousarray(numbers((4, 6))[2:, 3:]).tobytes()


@pytest.mark.parametrize("size", [(), (1,), (10,), (3, 4), (2, 3, 4)])
def test_number_of_axes(con, tmp_path, size):
    shape = tuple(2 * n for n in size)
    ds = con.create_dataset("x", shape=shape, dtype="i4", chunk_size=size, fillvalue=9)
    assert np.array_equal(ds[...], np.full(shape, 9))
    ds[...] = numbers(shape, "i4") + 1
    assert np.array_equal(con.get_dataset("x")[...], numbers(shape, "i4") + 1)
    with h5py.File(tmp_path / "x" / "dataset.h5") as file:
        assert np.array_equal(file["data"][...], numbers(shape, "i4") + 1)


def test_an_array_without_elements(con, tmp_path):
    ds = con.create_dataset("x", shape=(0, 3), chunk_size=(2, 2))
    assert ds[...].shape == (0, 3)
    ds.resize((2, 3))
    ds[...] = 1
    with h5py.File(tmp_path / "x" / "dataset.h5") as file:
        assert np.array_equal(file["data"][...], np.ones((2, 3)))


# The virtual dataset


def virtual(path):
    with h5py.File(path / "dataset.h5") as file:
        return file["data"][...]


def test_virtual_dataset_is_the_array_also_unwritten_and_after_resize(con, tmp_path):
    ds = con.create_dataset("x", shape=(5, 7), dtype="f8", fillvalue=np.nan, chunk_size=(2, 3))
    path = tmp_path / "x"
    assert np.isnan(virtual(path)).all()
    ds[1:4, 2:] = 5
    assert np.array_equal(virtual(path), ds[...], equal_nan=True)
    for shape in [(9, 8), (3, 4), (6, 7)]:
        ds.resize(shape)
        assert virtual(path).shape == shape
        assert np.array_equal(virtual(path), ds[...], equal_nan=True)
    ds.attrs["note"] = "kept apart"
    assert np.array_equal(virtual(path), ds[...], equal_nan=True)


def test_virtual_dataset_works_from_any_folder_and_after_moving(con, tmp_path, monkeypatch):
    data = numbers((4, 5))
    con.create_dataset("x", data=data, chunk_size=(2, 2))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(virtual(tmp_path / "x"), data)
    shutil.move(tmp_path / "x", tmp_path / "elsewhere" / "y")
    with h5py.File("y/dataset.h5") as file:
        assert np.array_equal(file["data"][...], data)
    assert np.array_equal(con["elsewhere/y"][...], data)


def test_virtual_dataset_is_left_out_for_very_many_chunks_or_on_request(con, tmp_path):
    many = h5virtual.VIRTUAL_CHUNKS + 1
    for name, shape, option, made in [
        ("many", (many,), None, False),
        ("many on request", (many,), True, True),
        ("never", (3,), False, False),
    ]:
        con.create_dataset(name, shape=shape, dtype="u1", chunk_size=(1,), virtual=option)
        with h5py.File(tmp_path / name / "dataset.h5") as file:
            assert ("data" in file) is made


def test_an_attribute_does_not_rebuild_the_mappings_and_old_ones_take_no_room(con, tmp_path):
    ds = con.create_dataset("x", data=numbers((100, 10)), chunk_size=(1, 1))
    big = {"text": "µ" * 100_000, "array": np.arange(5), "nan": float("nan")}
    for n in range(20):
        ds.attrs["big"] = {**big, "n": n}
    assert os.path.getsize(tmp_path / "x" / "dataset.h5") < 2_500_000
    found = con["x"].attrs["big"]
    assert found["text"] == big["text"]
    assert found["n"] == 19
    assert np.array_equal(found["array"], np.arange(5))
    assert np.array_equal(virtual(tmp_path / "x"), numbers((100, 10)))


@pytest.mark.parametrize(
    ("shape", "chunk_size", "longer", "wider"),
    [
        ((41,), (1,), (43,), (30,)),
        ((33, 3), (2, 1), (41, 3), (31, 7)),
        ((5, 30), (2, 1), (9, 30), (3, 28)),
        ((10, 11, 3), (2, 2, 3), (13, 11, 3), (10, 15, 2)),
    ],
    ids=str,
)
def test_virtual_dataset_of_many_chunks(
    con, tmp_path, monkeypatch, shape, chunk_size, longer, wider
):
    monkeypatch.setattr(h5virtual, "MAPPED_CHUNKS", 12)
    path = tmp_path / "x"
    data = numbers(shape, "i4")
    ds = con.create_dataset("x", shape=shape, dtype="i4", chunk_size=chunk_size, fillvalue=-1)
    assert any(name.startswith("rows_") for name in os.listdir(path))
    assert (virtual(path) == -1).all()
    ds[...] = data
    ds.del_chunk((0,) * len(shape))
    assert np.array_equal(virtual(path), ds[...])
    for wanted in (longer, wider, shape):
        ds.resize(wanted)
        assert virtual(path).shape == wanted
        assert np.array_equal(virtual(path), ds[...])
        ds[-1:] = 7
        assert np.array_equal(virtual(path), ds[...])
    ds.resize((1,) * len(shape))
    assert not any(name.startswith("rows_") for name in os.listdir(path))
    assert np.array_equal(virtual(path), ds[...])


@pytest.mark.slow
def test_hdf5_tools_read_a_virtual_dataset_of_many_chunks(con, tmp_path):
    require_program("h5dump")
    con.create_dataset("x", data=numbers((700,), "i4"), chunk_size=(1,))
    command = ["h5dump", "-d", "/data", "-y", "-w", "1", "dataset.h5"]
    out = subprocess.run(command, cwd=tmp_path / "x", capture_output=True, text=True, check=True)
    found = [line.strip().rstrip(",") for line in out.stdout.splitlines()]
    assert [int(line) for line in found if line.isdigit()] == list(range(700))


def test_an_append_writes_as_little_to_a_long_array_as_to_a_short_one(con, tmp_path):
    path = tmp_path / "x"
    ds = con.create_dataset("x", shape=(9000,), dtype="i4", chunk_size=(1,))
    assert os.path.getsize(path / "dataset.h5") < 25_000  # 9000 mappings take 600 KB
    before = {name: os.stat(path / name).st_ino for name in os.listdir(path)}
    for n in range(9000, 9220, 20):
        ds.append(range(n, n + 20))
    after = {name: os.stat(path / name).st_ino for name in os.listdir(path)}
    changed = {name for name, inode in before.items() if after[name] != inode}
    assert changed == {"dataset.h5"}
    assert len([name for name in set(after) - set(before) if "chunk" not in name]) == 1
    assert np.array_equal(virtual(path)[9000:], np.arange(9000, 9220))


def test_mappings_that_an_earlier_version_wrote_are_renewed(con, tmp_path, monkeypatch):
    monkeypatch.setattr(h5virtual, "MAPPED_CHUNKS", 1 << 40)
    ds = con.create_dataset("x", data=numbers((600,), "i4"), chunk_size=(1,))
    path = tmp_path / "x"
    assert not any(name.startswith("rows_") for name in os.listdir(path))
    monkeypatch.undo()
    ds = con["x"]
    assert np.array_equal(virtual(path), numbers((600,), "i4"))
    ds.append([600])
    assert np.array_equal(virtual(path), np.arange(601))
    assert any(name.startswith("rows_") for name in os.listdir(path))


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("shape", "chunk_size", "less"),
    [
        ((2**31, 2**31), (1024, 1024), (2**30, 2**31)),
        ((2**31, 2**31), (1024, 1024), (2**31, 2**30)),
        ((2**44,), (1,), (2**43,)),
        ((2**62,), (1,), (2**61,)),
        ((2**40, 2**40, 2**40), (2**10, 2**10, 1), (2**40, 2**40, 2**39)),
    ],
    ids=str,
)
def test_grids_without_end_cost_what_was_written(con, tmp_path, shape, chunk_size, less):
    ds = con.create_dataset("x", shape=shape, dtype="u1", chunk_size=chunk_size)
    first, last = (0,) * len(shape), tuple(n - 1 for n in shape)
    middle = tuple(n // 2 - 1 for n in shape)
    ends = [
        tuple(i // c for i, c in zip(at, chunk_size, strict=True)) for at in (first, middle, last)
    ]
    for value, at in enumerate((first, middle, last), 1):
        ds[at] = value
    assert ds.written_chunks() == ends
    # Of a lost chunk it is known that it was written.
    lost = next(name for name in os.listdir(tmp_path / "x") if str(ends[2][-1]) in name)
    os.rename(tmp_path / "x" / lost, tmp_path / "lost")
    with pytest.raises(errors.ChunkNotFoundError):
        con["x"][last]
    os.rename(tmp_path / "lost", tmp_path / "x" / lost)
    ds.resize(less)
    assert ds.written_chunks() == ends[:2]
    ds.resize(shape)
    assert [ds[at] for at in (first, middle, last)] == [1, 2, 0]
    ds[last] = 3
    assert con["x"].written_chunks() == ends
    ds.clear()
    assert ds.written_chunks() == []
    assert ds[first] == 0


@given(
    before=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    extents=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    part=st.sampled_from([1, 3, 7, 1 << 40]),
    data=st.data(),
)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_record_in_several_files(monkeypatch, before, extents, part, data):
    """Chunks that are written, lost or cut off, of records in parts of any size."""
    monkeypatch.setattr(h5folder, "PART_CHUNKS", part)
    with tempfile.TemporaryDirectory() as path, dn.Connection(path, backend="hdf5") as con:
        shape = tuple(before)
        ds = con.create_dataset("x", shape=shape, dtype="u1", chunk_size=(2,) * len(shape))
        model = np.zeros(shape, "u1")
        for extent in extents:
            some = data.draw(st.lists(st.tuples(*[st.integers(0, 8)] * len(shape)), max_size=5))
            for at in some:
                if all(i < n for i, n in zip(at, model.shape, strict=True)):
                    ds[at] = model[at] = 1 + data.draw(st.integers(0, 9))
            wanted = tuple(extent[: len(shape)])
            ds.resize(wanted)
            kept = tuple(map(slice, map(min, wanted, model.shape)))
            new = np.zeros(wanted, "u1")
            new[kept] = model[kept]
            model = new
            assert np.array_equal(con["x"][...], model)
            recorded = sorted(con["x"].instance._opened().record.written())
            assert recorded == ds.written_chunks()


# What others wrote


def ancestor(path, data, chunk_size, fillvalue=0, empty=(), absent=()):
    """Write a dataset as DosNa does: attributes, and chunks some of which hold no data."""
    path.mkdir()
    grid = [-(-n // c) for n, c in zip(data.shape, chunk_size, strict=True)]
    with h5py.File(path / "dataset.h5", "w") as file:
        file.attrs["shape"] = data.shape
        file.attrs["dtype"] = data.dtype.str
        file.attrs["fillvalue"] = data.dtype.type(fillvalue)
        file.attrs["chunk_grid"] = np.asarray(grid, dtype=int)
        file.attrs["chunk_size"] = np.asarray(chunk_size, dtype=int)
    for idx in itertools.product(*map(range, grid)):
        where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(idx, chunk_size, strict=True))
        if idx in absent:
            data[where] = fillvalue
            continue
        with h5py.File(path / f"chunk_{'_'.join(map(str, idx))}.h5", "w") as file:
            chunk = file.create_dataset("data", shape=chunk_size, dtype=data.dtype,
                                        fillvalue=fillvalue)  # fmt: skip
            if idx in empty:
                data[where] = fillvalue
            else:
                part = data[where]
                chunk[tuple(map(slice, part.shape))] = part


def test_a_folder_of_dosna_opens_reads_and_writes(con, tmp_path):
    data = numbers((5, 7), ">f4")
    ancestor(tmp_path / "old", data, (2, 3), 1.5, empty={(1, 0), (2, 2)}, absent={(0, 1)})
    before = tree(tmp_path)
    ds = con["old"]
    assert (ds.shape, ds.dtype, ds.chunk_size, ds.fillvalue) == ((5, 7), ">f4", (2, 3), 1.5)
    assert np.array_equal(ds[...], data)
    assert np.array_equal(ds[1:, 2], data[1:, 2])
    assert ds.verify().never_written == ((0, 1),)
    assert len(ds.verify().unchecked) == 8
    assert tree(tmp_path) == before

    ds[1:4, 1:5] = data[1:4, 1:5] = 42
    ds.attrs["by"] = "dosna"
    assert np.array_equal(con["old"][...], data)
    assert con["old"].attrs["by"] == "dosna"
    with h5py.File(tmp_path / "old" / "chunk_1_0.h5") as file:
        assert file["data"][0, 1] == 42
    ds.resize((6, 7))
    assert np.array_equal(con["old"][...], np.concatenate([data, np.full((1, 7), 1.5)]))
    assert np.array_equal(virtual(tmp_path / "old"), con["old"][...])


@pytest.mark.parametrize(
    "how",
    [{}, {"chunks": (2, 2)}, {"compression": "gzip", "chunks": (2, 3)}, {"track_times": True}],
    ids=["plain", "chunked", "compressed", "times"],
)
def test_a_chunk_that_another_program_replaced_reads(con, tmp_path, how):
    data = numbers((4, 6), "i4")
    ds = con.create_dataset("x", data=data, chunk_size=(2, 3))
    with h5py.File(tmp_path / "x" / "chunk_0_1.h5", "w") as file:
        file.create_dataset("data", data=-data[:2, 3:], **how)
    data[:2, 3:] *= -1
    assert np.array_equal(ds[...], data)
    ds[0, 4] = data[0, 4] = 9
    assert np.array_equal(con["x"][...], data)


def test_a_chunk_changed_in_place_by_h5py_reads(con, tmp_path):
    ds = con.create_dataset("x", data=numbers((4, 6)), chunk_size=(2, 3))
    with h5py.File(tmp_path / "x" / "chunk_0_1.h5", "r+") as file:
        file["data"][1, 1] = -5
    assert ds[1, 4] == -5


# Filters


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("checksum", [False, True])
def test_filters_are_those_of_hdf5(con, tmp_path, compression, checksum):
    data = np.zeros((64, 64))
    data[3] = 7
    ds = con.create_dataset("x", data=data, chunk_size=(32, 64), compression=compression,
                            checksum=checksum)  # fmt: skip
    ds[40:50, 5] = data[40:50, 5] = 3
    assert np.array_equal(con["x"][...], data)
    assert np.array_equal(virtual(tmp_path / "x"), data)
    with h5py.File(tmp_path / "x" / "chunk_0_0.h5") as file:
        assert file["data"].compression == compression
        assert file["data"].fletcher32 is checksum
        assert np.array_equal(file["data"][...], data[:32])
    small = os.path.getsize(tmp_path / "x" / "chunk_0_0.h5") < data[:32].nbytes
    assert small is (compression is not None)
    assert con["x"].guarantees.checksum is checksum


@pytest.mark.parametrize("size", [1, 2, 3, 8191, 8192, 8193, 300_001])
@pytest.mark.parametrize("fill", [0, 255, None])
def test_our_checksum_is_that_of_hdf5(con, tmp_path, size, fill):
    data = np.random.default_rng(size).integers(0, 256, size, "u1")
    if fill is not None:
        data[:] = fill
    ds = con.create_dataset("x", data=data, chunk_size=(size,), checksum=True)
    path = tmp_path / "x" / "chunk_0.h5"
    with h5py.File(path) as file:
        assert np.array_equal(file["data"][...], data)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, chunks=(size,), fletcher32=True)
    assert np.array_equal(ds[...], data)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"compression": "lzw"}, errors.ConfigurationError),
        ({"compression": "gzip", "compression_level": 10}, errors.ConfigurationError),
        ({"compression": "gzip", "compression_level": 4.5}, errors.ConfigurationError),
        ({"compression": "gzip", "compression_level": "4"}, errors.ConfigurationError),
        ({"shape": (), "chunk_size": (), "checksum": True}, errors.ConfigurationError),
        ({"checksum": "no"}, errors.ConfigurationError),
        ({"virtual": "no"}, errors.ConfigurationError),
        ({"shape": (1,) * 33, "chunk_size": (1,) * 33}, errors.ConfigurationError),
        ({"shape": (9, 1 << 30), "chunk_size": (9, 1 << 30), "compression": "gzip"},
         errors.ConfigurationError),
        ({"compresion": "gzip"}, TypeError),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(con, tmp_path, options, error):
    with pytest.raises(error):
        con.create_dataset("x", **{"shape": (4, 4), "chunk_size": (2, 2), **options})
    assert "x" not in con


# Reading parts of chunks


def test_parts_of_large_chunks(con):
    data = numbers((9, 100, 90), "f8")
    ds = con.create_dataset("x", data=data, chunk_size=(8, 64, 64))
    random = np.random.default_rng(0)
    for _ in range(60):
        key = tuple(
            slice(*sorted(random.integers(0, n + 1, 2)), random.integers(1, 4))
            if random.random() < 0.7
            else int(random.integers(n))
            for n in data.shape
        )
        assert np.array_equal(ds[key], data[key]), key
        points = tuple(random.integers(0, n, 5) for n in data.shape)
        assert np.array_equal(ds[points], data[points])


def test_a_thin_slice_of_a_large_chunk_reads_little(con, tmp_path):
    data = np.ones((16, 512, 512), "u1")
    ds = con.create_dataset("x", data=data, chunk_size=(16, 512, 512))
    read = []
    ds[:, 7, 7]  # opens what is opened once
    for key in [(3, 4, 5), (slice(None), 4, 5), (5,), ...]:
        before = bytes_read()
        ds[key]
        read.append(bytes_read() - before)
    point, line, plane, everything = read
    assert point < 10_000
    assert line < 50_000
    assert 512 * 512 <= plane < 512 * 512 + 10_000
    assert everything >= data.size


# Folders and names


def test_reading_creates_and_changes_nothing(con, tmp_path):
    con.create_dataset("x", shape=(5, 7), chunk_size=(2, 3))[:2, :3] = 1

    def state():
        return {
            name: (os.stat(tmp_path / name).st_ino, os.stat(tmp_path / name).st_mtime_ns)
            for name in [*tree(tmp_path), "x", "."]
        }

    before = state()
    for mode in "ar":
        with dn.Connection(str(tmp_path), backend="hdf5", mode=mode) as other:
            ds = other["x"]
            ds[...], ds[3, 4], ds[1, [0, 6]], ds.get_chunk((1, 1))[...], ds.has_chunk((1, 1))
            ds.verify(), ds.attrs.get("a"), list(other), "y" in other, ds.guarantees
            assert [c.idx for c in ds.iter_chunks() if ds.has_chunk(c.idx)] == [(0, 0)]
    assert state() == before


def test_delete_leaves_nothing(con, tmp_path):
    for name in ["a/b/c", "a/d", "e"]:
        con.create_dataset(name, data=numbers((4, 4)), chunk_size=(2, 2))
    (tmp_path / "e" / "chunk_9_9.h5.tmp").write_bytes(b"of a dead writer")
    (tmp_path / "e" / "folder").mkdir()
    (tmp_path / "e" / "folder" / "file").write_text("of somebody")
    con.del_dataset("a/b/c")
    assert sorted(os.listdir(tmp_path / "a")) == ["d"]
    con.del_dataset("a/d")
    con.del_dataset("e")
    assert [n for n in os.listdir(tmp_path) if n != ".lock"] == []
    with pytest.raises(errors.DatasetNotFoundError):
        con.del_dataset("e")


def test_a_dataset_that_cannot_be_read_can_be_deleted(con, tmp_path):
    con.create_dataset("x", shape=(3,))
    (tmp_path / "x" / "dataset.h5").write_bytes(b"rubbish")
    with pytest.raises(errors.FormatError, match=r"dataset\.h5"):
        con["x"]
    con.del_dataset("x")
    con.create_dataset("x", shape=(3,))


def test_names_nest_but_not_in_datasets(con, tmp_path):
    for name in ["entry/tomo", "entry/more/flat", "top"]:
        con.create_dataset(name, shape=(3,))
    assert list(con) == ["entry/more/flat", "entry/tomo", "top"]
    (tmp_path / "file").write_text("")
    metadata = con["top"].instance.metadata
    for name, error in {
        "top": errors.DatasetExistsError,
        "top/below": errors.DatasetNameError,
        "entry": errors.DatasetNameError,
        "entry/more": errors.DatasetNameError,
        "entry/tomo/a/b": errors.DatasetNameError,
        "file": errors.DatasetNameError,
    }.items():
        with pytest.raises(error):
            con.create_dataset(name, shape=(3,))
        with pytest.raises(error):  # two processes may both find the name free at first
            con.instance.create_dataset(name, metadata)
    assert list(con) == ["entry/more/flat", "entry/tomo", "top"]
    for name in ["entry", "file", "entry/none"]:
        with pytest.raises(errors.DatasetNotFoundError):
            con[name]


def test_the_folder_must_exist_and_stays_the_same_after_a_change_of_folder(tmp_path, monkeypatch):
    with pytest.raises(errors.ConnectionError, match="not a folder"):
        dn.Connection("scans", backend="hdf5", directory=str(tmp_path)).connect()
    assert os.listdir(tmp_path) == []
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    with dn.Connection("scans", backend="hdf5") as con:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir("other")
        con.create_dataset("x", data=numbers((3,)))
        assert np.array_equal(con["x"][...], numbers((3,)))
    assert os.listdir(tmp_path / "other") == []
    with dn.Connection(str(tmp_path / "scans"), backend="hdf5", directory="/none") as con:
        assert list(con) == ["x"]


def test_durable_datasets_and_flush(tmp_path):
    with dn.Connection(str(tmp_path), backend="hdf5", durable=True) as con:
        ds = con.create_dataset("a/x", data=numbers((4, 4)), chunk_size=(2, 2))
        assert ds.guarantees.durable
        assert ds.guarantees.partial_writes == "processes"
        ds[1] = 3
        ds.del_chunk((1, 1))
        ds.flush()
        assert ds[1, 0] == 3
        con.del_dataset("a/x")


def test_newer_format_is_refused_by_its_number(con, tmp_path):
    con.create_dataset("x", shape=(3,))
    with h5py.File(tmp_path / "x" / "dataset.h5", "r+") as file:
        file.attrs["format_version"] = 999
    with pytest.raises(errors.FormatError, match="999"):
        con["x"]


@pytest.mark.parametrize("damage", ["empty", "cut", "rubbish", "no metadata", "attribute"])
def test_a_broken_description_is_an_error(con, tmp_path, damage):
    con.create_dataset("x", shape=(3,))
    path = tmp_path / "x" / "dataset.h5"
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "rubbish":
        path.write_bytes(b"x" * len(whole))
    elif damage == "no metadata":
        with h5py.File(path, "r+") as file:
            del file["metadata"]
    else:
        path.unlink()
        ancestor(tmp_path / "y", numbers((3,)), (2,))
        with h5py.File(tmp_path / "y" / "dataset.h5", "r+") as file:
            del file.attrs["chunk_size"]
        shutil.copy(tmp_path / "y" / "dataset.h5", path)
    with pytest.raises(errors.FormatError, match=r"x/dataset\.h5"):
        con["x"]


def test_a_handle_that_is_dropped_closes_its_files(con):
    con.create_dataset("x", data=numbers((4, 6)), chunk_size=(2, 3))
    before = len(open_files(con.name))
    gc.disable()
    try:
        for _ in range(3):
            backend = con.instance.get_dataset("x")
            backend.set_chunk_data((0, 0), 1)
            backend.update(lambda metadata: metadata.replace(attrs={"a": 1}))
        del backend
        assert len(open_files(con.name)) == before
    finally:
        gc.enable()


@pytest.mark.slow
def test_handles_travel_to_other_processes(con, tmp_path):
    ds = con.create_dataset("x", data=numbers((4, 6)), chunk_size=(2, 3))
    code = (
        "import pickle, sys; ds = pickle.load(sys.stdin.buffer);"
        "ds.set_chunk_data((1, 1), ds.get_chunk_data((0, 0)) + 100)"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(ds.instance), check=True)
    assert np.array_equal(ds[2:, 3:], numbers((4, 6))[:2, :3] + 100)


def test_a_chunk_file_without_data_that_is_never_filled_reads_as_fill(con, tmp_path):
    ds = con.create_dataset("x", (6,), "f8", fillvalue=3, chunk_size=3)
    ds[...] = 1
    with h5py.File(tmp_path / "x" / "chunk_1.h5", "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F64LE, space, creation)
    # Memory that is likely to be handed out again.
    del [np.full(3, 7.0) for _ in range(100)][:]
    assert ds[...].tolist() == [1, 1, 1, 3, 3, 3]
    assert ds[4] == 3


def test_deleting_does_not_list_the_chunks_of_a_neighbour(tmp_path, monkeypatch):
    seen = 0

    class Counted:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            return self

        def __next__(self):
            nonlocal seen
            entry = next(self.entries)
            seen += "/g/big/" in entry.path
            return entry

    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as con:
        con.create_dataset("g/big", data=np.arange(60), chunk_size=1)
        con.create_dataset("g/small", data=[1])
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", Counted)
        con.del_dataset("g/small")
        monkeypatch.undo()
        assert list(con) == ["g/big"]
    assert seen <= 3
