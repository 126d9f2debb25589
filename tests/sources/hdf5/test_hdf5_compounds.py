"""HDF5: compounds with fields of types that NumPy does not have, fill values of any type."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn

h5py = require("h5py")
from h5py import h5d, h5p, h5s, h5t  # noqa: E402

ROWS = np.array([(1.5, -2.5, 1000 + n) for n in range(6)], "f4, f4, u4")


def bfloat16():
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    return kind


def of_bfloat16():
    """Return a compound of 16 bytes. h5py's dtype for it has f1 from byte 2, within f0."""
    kind = h5t.create(h5t.COMPOUND, 16)
    kind.insert(b"f0", 0, bfloat16())
    kind.insert(b"f1", 2, bfloat16())
    kind.insert(b"f2", 4, h5t.STD_U32LE)
    return kind


def write(file, name, kind, data, chunks=None):
    creation = h5p.create(h5p.DATASET_CREATE)
    if chunks:
        creation.set_chunk(chunks)
    made = h5d.create(file.id, name.encode(), kind, h5s.create_simple(data.shape), creation)
    made.write(h5s.ALL, h5s.ALL, data)


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_fields_that_are_longer_in_memory(tmp_path, backend):
    path = str(tmp_path / "a.h5")
    nested = h5t.create(h5t.COMPOUND, 16 * 2 + 1)
    nested.insert(b"pair", 0, h5t.array_create(of_bfloat16(), (2,)))
    nested.insert(b"end", 32, h5t.STD_I8LE)
    deep = np.zeros(3, [("pair", ROWS.dtype, (2,)), ("end", "i1")])
    deep["pair"], deep["end"] = ROWS.reshape(3, 2), [7, 8, 9]
    with h5py.File(path, "w") as file:
        write(file, "rows", of_bfloat16(), ROWS)
        write(file, "chunked", of_bfloat16(), ROWS, (2,))
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_fill_value(np.asarray(ROWS[3]))
        h5d.create(file.id, b"filled", of_bfloat16(), h5s.create_simple((4,)), creation)
        write(file, "deep", nested, deep)
    (tmp_path / "con").mkdir()
    options = {} if backend == "ram" else {"directory": str(tmp_path)}
    with dn.Connection("con", backend=backend, **options) as con:
        con.ingest(path)
        assert con["rows"][...].tolist() == con["chunked"][...].tolist() == ROWS.tolist()
        assert con["filled"][...].tolist() == [ROWS[3].item()] * 4
        if backend == "ram":
            assert np.array_equal(con["deep"][...], deep)
        with pytest.raises(dn.errors.RefusedError, match="not stored as"):
            con.link(f"{path}:/rows", "linked")


def test_attributes_with_fields_that_are_longer_in_memory(tmp_path):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3)
        made = h5py.h5a.create(file["a"].id, b"pairs", of_bfloat16(), h5s.create_simple((6,)))
        made.write(ROWS)
        file["a"].attrs["plain"] = ROWS
    with dn.Connection("attributes", backend="ram") as con:
        con.ingest(path)
        attrs = con["a"].attrs
        assert "NumPy does not have" in attrs["pairs"]
        assert np.array_equal(attrs["plain"], ROWS)
        del con["a"]


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_fill_values_of_dates_and_compounds_are_kept(tmp_path, backend):
    path = str(tmp_path / "a.h5")
    pair = np.dtype([("n", "<i4"), ("x", "<f8")])
    date = h5py.opaque_dtype(np.dtype("M8[ns]"))
    fills = {"dates": np.array("NaT", date), "pairs": np.array((7, 2.5), pair)}
    fills["raw"] = np.array(b"abc", "V3")
    with h5py.File(path, "w") as file:
        for name, fill in fills.items():
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_chunk((2,))
            creation.set_fill_value(fill)
            kind = h5t.py_create(fill.dtype, logical=True)
            space = h5s.create_simple((4,), (h5s.UNLIMITED,))
            h5d.create(file.id, name.encode(), kind, space, creation)
    (tmp_path / "con").mkdir()
    options = {} if backend == "ram" else {"directory": str(tmp_path)}
    with dn.Connection("con", backend=backend, **options) as con:
        con.ingest(path)
        for name, fill in fills.items():
            ds = con[name]
            ds.resize((6,))
            assert ds[...].tobytes() == fill.tobytes() * 6
            assert ds.fillvalue.tobytes() == fill.tobytes()
