"""Handles on single chunks of backends."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.backends.base import BackendDataset
from dosna.core.metadata import new_metadata


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_a_chunk_is_read_and_written_whole(backend, tmp_path):
    if backend == "hdf5":
        require("h5py")
    with dn.Connection(str(tmp_path), backend=backend) as con:
        ds = con.create_dataset("x", (5, 5), "i4", chunk_size=(4, 4), fillvalue=7)
        inner, corner = ds.instance.get_chunk((0, 0)), ds.instance.get_chunk((1, 1))
        assert inner.name == "chunk_0_0"
        assert (corner.get_data() == np.full((4, 4), 7)).all()
        values = np.arange(16).reshape(4, 4)
        inner.set_data(values)
        corner.set_data(values)
        inner.set_data(-1, (slice(0, 1), 2))
        values[0, 2] = -1
        assert (inner.get_data() == values).all()
        assert inner.get_data((slice(0, 2), 2)).tolist() == [-1, 6]
        # What lies outside of the array stays fill.
        assert corner.get_data().ravel().tolist() == [0] + [7] * 15
        corner.set_data(3)
        assert (ds[4, 4], ds[0, 2]) == (3, -1)
        assert ds.instance.get_chunk_data((1, 1)).tolist() == [[3]]


def test_a_backend_without_reading_and_writing_is_told_so():
    class Unfinished(BackendDataset):
        guarantees = has_chunk = del_chunk = chunk_indices = update = refresh = None

    con = dn.Connection("unfinished", backend="ram").instance
    ds = Unfinished(con, "x", con.create_dataset("x", new_metadata((4,), "i4", 0, (2,))).metadata)
    with pytest.raises(NotImplementedError, match="get_chunk_data"):
        ds.get_chunk_data((0,))
    with pytest.raises(NotImplementedError, match="get_chunk_data"):
        ds.set_chunk_data((0,), 1)
