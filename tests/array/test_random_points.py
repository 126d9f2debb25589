"""Random points cost calls for the chunks that they are in, however many they are."""

from __future__ import annotations

import sys

import numpy as np

import dosna as dn


def calls(function):
    """Count the functions of Python that are called, those of C among them."""
    found = 0

    def count(frame, event, argument):
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def test_many_points_are_as_many_calls_as_few():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (1000, 1000), np.uint8)
    rows, columns = rng.integers(0, 1000, (2, 100_000))
    with dn.Connection("random points", backend="ram", engine="cpu") as con:
        ds = con.create_dataset("a", data=data, chunk_size=(100, 100))
        few, many = (calls(lambda n=n: ds[rows[:n], columns[:n]]) for n in (2_000, 100_000))
        assert np.array_equal(ds[rows, columns], data[rows, columns])
    assert few < 10 * 100  # chunks
    assert many < few + 20
