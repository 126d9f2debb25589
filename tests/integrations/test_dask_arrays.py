"""Dask arrays of datasets and datasets of Dask arrays: `to_dask` and `store_dask`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna import errors

dask = require("dask")
da = require("dask.array")

VOLUME = np.arange(13 * 17 * 5.0).reshape(13, 17, 5)


@pytest.fixture(params=["ram", "file"])
def con(request, tmp_path):
    with dn.Connection(str(tmp_path), backend=request.param) as con:
        yield con


def test_blocks_are_whole_stored_objects(con):
    ds = con.create_dataset("a", data=VOLUME, chunk_size=(4, 4, 4))
    assert ds.to_dask(None).chunks[0] == (4, 4, 4, 1)
    assert np.array_equal(ds.to_dask().compute(), VOLUME)
    assert np.array_equal(ds.to_dask((5, 5, 5))[::3].compute(), VOLUME[::3])
    large = con.create_dataset("b", (4096, 4096), "f8", chunk_size=(100, 100))
    with dask.config.set({"array.chunk-size": "1 MiB"}):
        blocks = large.to_dask()
    assert blocks.chunksize[0] % 100 == blocks.chunksize[1] % 100 == 0
    assert blocks.npartitions > 100


def test_blocks_of_text(con):
    words = np.array(["a", "", "bc"] * 3, "T")
    ds = con.create_dataset("t", data=words, chunk_size=4)
    for chunks in ("auto", None):
        found = ds.to_dask(chunks)
        assert found.dtype == words.dtype
        assert found.compute().tolist() == words.tolist()
    again = con.create_dataset("again", shape=9, dtype=str, chunk_size=2)
    again.store_dask(ds.to_dask())
    assert again.compare(ds).equal


def test_names_change_with_every_call(con):
    ds = con.create_dataset("a", data=VOLUME)
    assert ds.to_dask().name != ds.to_dask().name


extents = st.integers(1, 12)


@given(data=st.data())
@settings(max_examples=60)
def test_any_blocks_are_stored_into_any_region(data):
    shape = data.draw(st.tuples(extents, extents))
    chunks = data.draw(st.tuples(extents, extents))
    starts = [data.draw(st.integers(0, n)) for n in shape]
    stops = [data.draw(st.integers(a, n)) for a, n in zip(starts, shape, strict=True)]
    region = tuple(map(slice, starts, stops))
    values = np.arange(np.prod([b - a for a, b in zip(starts, stops, strict=True)]) * 1.0)
    values = values.reshape([b - a for a, b in zip(starts, stops, strict=True)])
    array = da.from_array(values, chunks=data.draw(st.tuples(extents, extents)))
    with dn.Connection("dask-arrays", backend="ram") as con:
        ds = con.create_dataset("a", shape, "f8", chunk_size=chunks, fillvalue=-1)
        writes = []
        wrapped = Recorded(ds, writes)
        from dosna.integrations.dask import store_dask

        assert store_dask(wrapped, array, region, True) is None
        expected = np.full(shape, -1.0)
        expected[region] = values
        assert np.array_equal(ds[...], expected)
        seen = [idx for write in writes for idx in write]
        assert len(seen) == len(set(seen)), "two blocks wrote to one stored object"
        con.del_dataset("a")


class Recorded:
    """A dataset that notes which stored objects each assignment touches."""

    def __init__(self, ds, writes):
        self._ds, self._writes = ds, writes

    def __getattr__(self, name):
        return getattr(self._ds, name)

    def __setitem__(self, key, values):
        grain = self._ds.chunk_size
        spans = [range(s.start // g, -(-s.stop // g)) for s, g in zip(key, grain, strict=True)]
        self._writes.append([(i, j) for i in spans[0] for j in spans[1]])
        self._ds[key] = values


def test_storing_can_wait(con):
    ds = con.create_dataset("a", (13, 17, 5), "f8", chunk_size=(4, 4, 4))
    work = ds.store_dask(da.from_array(VOLUME, chunks=6), compute=False)
    assert not ds.written_chunks()
    work.compute()
    assert np.array_equal(ds[...], VOLUME)


def test_wrong_arguments_are_refused(con):
    ds = con.create_dataset("a", (13, 17), "f8", chunk_size=(4, 4))
    with pytest.raises(ValueError, match="region"):
        ds.store_dask(da.ones((3, 3)))
    with pytest.raises(ValueError, match="axes"):
        ds.store_dask(da.ones((3,)), [slice(3)])
    with pytest.raises(TypeError, match="no mask"):
        ds.store_dask(da.ma.masked_greater(da.arange(13 * 17).reshape(13, 17), 9))
    with pytest.raises(ValueError, match="step"):
        ds.store_dask(da.ones((7, 17)), [slice(None, None, 2), slice(None)])


def test_a_read_only_connection_refuses(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("a", data=np.zeros(4))
    with dn.Connection(str(tmp_path), backend="file", mode="r") as con:
        ds = con["a"]
        with pytest.raises(errors.ReadOnlyError):
            ds.store_dask(da.ones(4))
