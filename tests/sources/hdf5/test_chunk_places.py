"""The places of chunks, in files whose index of chunks libhdf5 lists as if it were another."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.sources.hdf5.direct import stored_records

h5py = require("h5py")


@st.composite
def layouts(draw):
    """Give a shape, the chunks and the largest shape."""
    axes = draw(st.integers(1, 4))
    shape = draw(st.lists(st.integers(1, 7), min_size=axes, max_size=axes))
    chunks = [draw(st.integers(1, n)) for n in shape]
    most = [draw(st.one_of(st.none(), st.integers(n, n + 6))) for n in shape]
    return tuple(shape), tuple(chunks), tuple(most)


def places_of(shape, chunks):
    grid = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
    return [
        tuple(slice(s, min(s + c, n)) for s, c, n in zip(start, chunks, shape, strict=True))
        for start in product(*grid)
    ]


@given(layouts(), st.sampled_from(["earliest", "latest"]), st.booleans(), st.data())
def test_records_are_those_of_the_chunks(layout, version, filtered, data):
    shape, chunks, most = layout
    places = places_of(shape, chunks)
    written = data.draw(st.lists(st.integers(0, len(places) - 1), unique=True))
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 16, False)
    low = h5py.h5f.LIBVER_EARLIEST if version == "earliest" else h5py.h5f.LIBVER_LATEST
    access.set_libver_bounds(low, h5py.h5f.LIBVER_LATEST)
    made = h5py.h5f.create(b"places", h5py.h5f.ACC_TRUNC, fapl=access)
    with h5py.File(made) as file:
        array = file.create_dataset(
            "a", shape, "u2", chunks=chunks, maxshape=most, shuffle=filtered, fillvalue=9999
        )
        for number in written:
            array[places[number]] = 1000 + number
        file.flush()
        image = made.get_file_image()
        numbers, records = stored_records(array)
    assert sorted(numbers.tolist()) == sorted(written)
    for number, (offset, size, _) in zip(numbers.tolist(), records.T.tolist(), strict=True):
        raw = np.frombuffer(image[offset : offset + size], np.uint8)
        values = raw.reshape(2, -1).T.copy().view("<u2") if filtered else raw.view("<u2")
        assert values.reshape(-1)[0] == 1000 + number


@pytest.mark.parametrize("most", [(9, None), (20, None), (None, 30), (None, None)])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": True}])
def test_arrays_that_grow_along_any_axis(tmp_path, most, options):
    values = np.arange(9 * 22, dtype="i4").reshape(9, 22)
    path = str(tmp_path / "grows.h5")
    with h5py.File(path, "w", libver="latest") as file:
        made = file.create_dataset("a", (9, 5), "i4", chunks=(4, 3), maxshape=most, **options)
        made.resize((9, 22))
        made[:, 3:] = values[:, 3:]
    values[:, :3] = 0
    with dn.Connection(path, backend="ram") as con:
        con.ingest(path, "copied")
        con.link(path, "linked")
        for name in ("copied/a", "linked/a"):
            np.testing.assert_array_equal(con[name][...], values)
        stored = [con["linked/a"].has_chunk((0, column)) for column in range(8)]
        assert stored == [False] + [True] * 7
