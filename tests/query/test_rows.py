"""Rows of datasets: a range, or some of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HANG

import dosna as dn
from dosna.errors import FormatError
from dosna.query.rows import read_rows, take_rows

ROWS = 30
INNER = [(), (3,), (2, 2)]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Return datasets with their values, in whole rows and in parts of rows."""
    with dn.Connection(tmp_path_factory.mktemp("rows"), backend="file") as con:
        found = []
        for inner in INNER:
            data = np.arange(ROWS * int(np.prod(inner))).reshape(ROWS, *inner)
            for part in {1, *inner[:1]}:
                chunks = (7, *(min(part, n) for n in inner))
                ds = con.create_dataset(f"d{len(found)}", data=data, chunk_size=chunks)
                found.append((ds.instance, data))
        yield found


@given(data=st.data())
def test_taken_rows_are_those_of_numpy(arrays, data):
    dataset, values = data.draw(st.sampled_from(arrays))
    start = data.draw(st.integers(0, ROWS - 1))
    left = st.integers(0, ROWS - 1 - start)
    if data.draw(st.booleans(), label="a range"):
        first, last = sorted(data.draw(st.tuples(left, left)))
        rows = np.arange(first, last + 1)
    else:
        rows = np.array(sorted(data.draw(st.sets(left))), np.int64)
    found = take_rows(dataset, rows, start)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values[start + rows])


@pytest.mark.parametrize("rows", [[28, 29], [0, 29]])
def test_rows_beyond_the_end_are_refused(arrays, rows):
    with pytest.raises(FormatError, match="ends at row 30"):
        take_rows(arrays[0][0], np.array(rows), 1)


def test_threads_allocate_their_results_together(arrays):
    """With memory of 8 MiB for each thread, the columns of a range would keep much of it alive."""
    (dataset, values), together = arrays[0], threading.Barrier(8)

    def read(_):
        together.wait(HANG)
        return read_rows(dataset, 0, ROWS, kept=True)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    for one in found:
        np.testing.assert_array_equal(one, values)
    places = {one.ctypes.data for one in found}
    assert len(places) == 8
    # All but those that no longer fit into what was left of the memory before.
    assert sum(abs(place - other) < 1 << 20 for place in places for other in places) >= 32
