"""A million random points over ten thousand chunks cost what the reading of them costs."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

import dosna as dn

POINTS, SIDE, CHUNK = 1_000_000, 10_000, 100


def seconds(call, rounds=3):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


@pytest.mark.serial
def test_a_million_random_points():
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, SIDE, (2, POINTS))
    grid = SIDE // CHUNK
    with dn.Connection("random points", backend="ram", engine="cpu") as con:
        ds = con.create_dataset("a", (SIDE, SIDE), "u1", chunk_size=(CHUNK, CHUNK))
        ds[...] = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        try:
            chunks = {c.idx: c.get_data() for c in ds.iter_chunks()}
            number = rows // CHUNK * grid + columns // CHUNK
            order = np.argsort(number, kind="stable")
            ends = np.searchsorted(number[order], np.arange(grid * grid + 1))
            groups = [
                (
                    (n // grid, n % grid),
                    order[a:b],
                    rows[order[a:b]] % CHUNK,
                    columns[order[a:b]] % CHUNK,
                )
                for n, (a, b) in enumerate(pairwise(ends))
            ]
            out = np.empty(POINTS, np.uint8)

            def grouped():
                for idx, at, i, j in groups:
                    out[at] = chunks[idx][i, j]

            base = seconds(grouped)
            ours = seconds(lambda: ds[rows, columns])
            assert np.array_equal(ds[rows, columns], out)
        finally:
            ds.delete()
    print(f"NumPy grouped by chunk {base:.3f} s, dosna {ours:.3f} s, ratio {ours / base:.2f}")
    assert ours < 3 * base
