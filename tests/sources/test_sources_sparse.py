"""Arrays to which little was ever written stay as small as they are."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.core.plan import touched
from dosna.sources import open_source


@pytest.fixture(params=["ram", "hdf5", "file"])
def con(request, tmp_path):
    if request.param == "hdf5":
        require("h5py")
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend=request.param) as made:
        yield made
        for name in list(made):
            del made[name]


def test_hdf5_arrays_that_were_never_written(con, tmp_path):
    h5py = require("h5py")
    huge = 4_500_000_000  # elements, of a dimension of netCDF: 18 GB that no memory holds
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("contiguous", (huge,), ">f4")
        file.create_dataset("chunked", (huge,), "f4", chunks=(1 << 20,), fillvalue=2.5)
        file.create_dataset("texts", (huge,), h5py.string_dtype(), chunks=(1 << 20,))
        file.create_dataset("record", (huge,), [("x", "i4"), ("y", "f8")], chunks=(1 << 20,))
        some = file.create_dataset("some", (huge,), "i2", chunks=(1 << 20,), fillvalue=-1)
        some[-3:] = [1, 2, 3]
        some[7 << 20] = 5
    report = con.ingest(tmp_path / "a.h5")
    assert len(report.made) == 5
    counts = {name: len(list(con[name].instance.chunk_indices())) for name in report.made}
    assert counts == {"contiguous": 0, "chunked": 0, "texts": 0, "record": 0, "some": 2}
    assert con["contiguous"][huge - 2 :].tolist() == [0, 0]
    assert con["chunked"][12345:12347].tolist() == [2.5, 2.5]
    assert con["texts"][5] == ""
    assert con["some"][huge - 5 :].tolist() == [-1, -1, 1, 2, 3]
    assert con["some"][(7 << 20) - 1 : (7 << 20) + 2].tolist() == [-1, 5, -1]
    assert not con["some"].incomplete
    told = []
    con.ingest(
        tmp_path / "a.h5",
        "again",
        select="some",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (2 * huge, 2 * huge)


def test_a_zarr_array_of_many_elements_and_few_chunks(con, tmp_path):
    zarr = require("zarr")
    made = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(10**6, 10**5), chunks=(500, 500), dtype="u1", fill_value=9
    )
    for row, column in itertools.product((0, 777_000, 999_999), (0, 50_000, 99_999)):
        made[row, column] = 1
    con.ingest(tmp_path / "a.zarr")
    assert len(list(con["a"].instance.chunk_indices())) == 9
    assert con["a"][777_000, 50_000:50_002].tolist() == [1, 9]
    assert con["a"][-1, -2:].tolist() == [9, 1]


def test_what_is_there_is_not_kept_by_a_load(con, tmp_path):
    h5py = require("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", (40,), "i4", chunks=(10,))
        made[10:20] = 3
    expected = [0] * 10 + [3] * 10 + [0] * 20
    with open_source(tmp_path / "a.h5") as source:
        written = con.create_dataset("written", data=np.full(40, 8, "i4"), chunk_size=10)
        written.load(source["a"])
        assert written[...].tolist() == expected
        other = con.create_dataset("other", 40, "i4", fillvalue=8, chunk_size=10)
        other.load(source["a"])
        assert other[...].tolist() == expected


def test_an_interrupted_ingest_of_few_chunks_goes_on(con, tmp_path):
    h5py = require("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", (40_000, 1000), "i4", chunks=(100, 1000))
        made[:200] = 1
        made[30_000:30_300] = 2

    def stop(done, total):
        if done > total * 0.99:
            raise KeyboardInterrupt

    options = {"chunk_size": (100, 1000), "memory_limit": "4M"}
    with pytest.raises(KeyboardInterrupt):
        con.ingest(tmp_path / "a.h5", progress=stop, **options)
    assert con["a"].incomplete
    assert con.ingest(tmp_path / "a.h5", **options).resumed == ["a"]
    assert len(list(con["a"].instance.chunk_indices())) == 5
    assert con["a"][199:201, 0].tolist() == [1, 0]
    assert con["a"][30_299:30_301, -1].tolist() == [2, 0]


grids = st.integers(1, 3).flatmap(
    lambda axes: st.tuples(
        *(st.tuples(*[st.integers(1, most)] * axes) for most in (12, 5, 7)), st.randoms()
    )
)


@given(grids)
def test_touched_blocks(given_):
    shape, chunks, block, random = given_
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    places = [p for p in itertools.product(*map(range, grid)) if random.random() < 0.4]
    stored = np.array(places, np.int64).reshape(-1, len(shape))
    mask = np.zeros(shape, bool)
    for place in places:
        mask[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunks, strict=True))] = True
    wanted = {
        tuple(i // b for i, b in zip(point, block, strict=True))
        for point in np.argwhere(mask).tolist()
    }
    found = touched(stored, chunks, shape, block)
    assert len(found) == len(wanted) <= prod(shape)
    assert set(map(tuple, found.tolist())) == wanted


# Copies of datasets


@pytest.mark.parametrize("how", ["copy", "export", "ingest", "clone", "load"])
@pytest.mark.parametrize("shards", [None, (2000,)])
def test_copies_of_datasets_store_what_is_stored(con, tmp_path, how, shards):
    if how == "export" or shards:
        require("zarr")
    options = {"shards": shards} if shards and "FileC" in repr(con) else {}
    ds = con.create_dataset("x", (10**13,), "i4", 7, chunk_size=(1000,), **options)
    ds[105:112] = 1
    ds[10**13 - 3 :] = 2
    ds.attrs["a"] = 1
    (tmp_path / "other").mkdir()
    with dn.Connection(str(tmp_path / "other"), backend="file") as other:
        if how == "copy":
            made = ds.copy(other, chunk_size=(1600,))
        elif how == "ingest":
            other.ingest(con)
            made = other["x"]
        elif how == "clone":
            made = ds.clone("y", data=True)
        elif how == "load":
            made = other.create_dataset("x", ds.shape, "f8", 7, chunk_size=(1600,))
            made.load(ds)
        else:
            con.export(tmp_path / "x.zarr")
            other.disconnect()
            other = dn.Connection(str(tmp_path / "x.zarr"), backend="file")
            other.connect()
            made = other["x"]
        grain = made.instance.grain[0]
        stored = {(i // grain,) for i in (*range(105, 112), *range(10**13 - 3, 10**13))}
        assert stored <= set(made.instance.object_indices())
        assert len(list(made.instance.object_indices())) <= 6
        assert made[100:115].tolist() == [7] * 5 + [1] * 7 + [7] * 3
        assert made[10**13 - 5 :].tolist() == [7, 7, 2, 2, 2]


@pytest.mark.parametrize(
    ("dtype", "fill", "other", "otherfill"),
    [
        ("i4", 1, "f8", 1.5),
        ("f4", np.nan, "f8", np.nan),
        ("U1", "a", "U3", "abc"),
        ("f8", 0.0, "f8", -0.0),
    ],
)
def test_what_was_never_written_is_not_another_fill_value(con, dtype, fill, other, otherfill):
    ds = con.create_dataset("x", (4,), dtype, fill, chunk_size=(2,))
    with dn.Connection("others", backend="ram") as ram:
        for name in list(ram):
            del ram[name]
        made = ram.create_dataset("x", (4,), other, otherfill)
        wanted = np.full(4, fill, dtype).astype(other)
        made.load(ds)
        assert made[...].tobytes() == wanted.tobytes()
        again = ram.create_dataset("y", (4,), other, otherfill)
        again.load(open_source(con)["x"])
        assert again[...].tobytes() == wanted.tobytes()


def test_a_dataset_that_is_gone_is_not_taken_for_an_empty_one(con):
    ds = con.create_dataset("x", data=np.arange(4), chunk_size=(2,))
    del con["x"]
    with dn.Connection("gone", backend="ram") as ram:
        with pytest.raises(dn.errors.DosnaError):
            ds.copy(ram)
        assert "x" not in ram
