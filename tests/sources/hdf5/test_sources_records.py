"""Compounds of sources in backends that have no gaps, byte orders or arrays in fields."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.cli import main
from dosna.core.values import plain_fields
from dosna.errors import RefusedError
from dosna.sources import open_source

INNER = np.dtype([("re", ">f4"), ("im", "<f4", (2,))])
KINDS = {
    "gaps": np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8]}),
    "order": np.dtype({"names": ["b", "a"], "formats": ["f8", "i2"], "offsets": [4, 0]}),
    "big": np.dtype([("a", ">i4"), ("b", ">f8"), ("c", "S3")]),
    "pandas": np.dtype([("index", "<i8"), ("values_block_0", "<f8", (1,)), ("x", "<i8", (3,))]),
    "matrix": np.dtype([("m", ">u2", (2, 2)), ("m_0_0", "?")]),
    "nested": np.dtype(
        {"names": ["n", "x"], "formats": [INNER, ("i2", (2,))], "offsets": [4, 20]}
    ),
    "plain": np.dtype([("a", "<i4"), ("b", "<f8")]),
}


def sample(dtype, count=23):
    """Make elements whose bytes between fields are zero, as files have them."""
    made = np.zeros(count, dtype)
    random = np.random.default_rng(len(dtype.names))

    def fill(where):
        for name in where.dtype.names or ():
            part = where[name]
            if part.dtype.names is not None:
                fill(part)
            elif part.dtype.kind == "S":
                part[...] = b"ab"
            else:
                part[...] = random.integers(0, 2, part.shape)

    fill(made)
    return made


def leaves(array):
    """Give the values of elements field by field, in order, whatever the fields are called."""
    found = []
    for name in array.dtype.names:
        part = array[name]
        if part.dtype.names is not None and part.ndim == array.ndim:
            found += leaves(part)
        elif part.dtype.names is not None:
            for idx in np.ndindex(part.shape[array.ndim :]):
                found += leaves(part[(..., *idx)])
        else:
            columns = part.reshape(len(array), -1)
            found += [columns[:, n].tolist() for n in range(columns.shape[1])]
    return found


@pytest.fixture(params=["ram", "hdf5", "file"])
def con(request, tmp_path):
    if request.param == "hdf5":
        require("h5py")
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend=request.param) as made:
        yield made
        for name in list(made):
            del made[name]


def test_plain_fields():
    packed, view = plain_fields(KINDS["matrix"])
    assert packed.names == ("m_0_0_", "m_0_1", "m_1_0", "m_1_1", "m_0_0")
    assert packed.itemsize == KINDS["matrix"].itemsize == view.itemsize
    assert all(packed[name].str[0] in "<|" for name in packed.names)
    assert plain_fields(KINDS["plain"]) == (KINDS["plain"],) * 2
    assert plain_fields(np.dtype(">f8"))[0] == np.dtype(">f8")
    with pytest.raises(TypeError, match="1000 fields"):
        plain_fields(np.dtype([("a", "u1", (40, 40))]))


def test_compounds_of_every_kind(con, tmp_path):
    h5py = require("h5py")
    path = tmp_path / "a.h5"
    arrays = {name: sample(dtype) for name, dtype in KINDS.items()}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(10,))
    report = con.ingest(path)
    assert report.made == sorted(KINDS)
    for name, array in arrays.items():
        ds = con[name]
        assert leaves(ds[...]) == leaves(array), name
        assert leaves(ds[3:5]) == leaves(array[3:5])
        converted = ds.dtype != array.dtype
        assert converted == any(
            "its elements are kept as" in n for n in report.notes.get(name, ())
        )
        with open_source(path) as source:
            assert ds.compare(source[name]).equal
    assert con["pandas"].dtype.names[:2] == ("index", "values_block_0")
    assert con.ingest(path).present == report.made


def test_zarr_reads_the_tables_of_pandas(tmp_path):
    h5py, zarr = require("h5py"), require("zarr")
    array = sample(KINDS["pandas"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["df/table"] = array
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        con.ingest(tmp_path / "a.h5")
    found = zarr.open(str(tmp_path / "store"), mode="r")["df/table"][...]
    assert leaves(found) == leaves(array)
    assert main(["verify", f"file:{tmp_path}/store", "--against", str(tmp_path / "a.h5")]) == 0


def test_what_a_backend_cannot_store_is_refused_before_anything_is_made(tmp_path):
    h5py = require("h5py")
    (tmp_path / "store").mkdir()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(3)
        file["b"] = np.zeros(2, np.longdouble)
        file["c"] = np.zeros(2, [("x", "i4"), ("y", np.longdouble)])
        file["d/zarr.json"] = np.arange(3)
        file["e"] = np.zeros(2, [("x", "u1", (40, 40))])
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        for chosen, says in [
            (["a", "b"], "'b' of .*Zarr has no data type"),
            (["a", "c"], "'c' of .*field 'y'"),
            (["a", "e"], "'e' of .*1000 fields"),
            (["a", "d"], "zarr.json"),
        ]:
            with pytest.raises((RefusedError, dn.errors.DatasetNameError), match=says):
                con.ingest(tmp_path / "a.h5", select=chosen)
            assert list(con) == []
        report = con.ingest(tmp_path / "a.h5", on_error="skip")
        assert report.made == ["a"]
        assert sorted(report.skipped) == ["b", "c", "d/zarr.json", "e"]
