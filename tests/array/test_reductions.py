"""Reductions to one value and along axes, beside NumPy's."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.testing.samples import sample

OPS = ("sum", "mean", "min", "max")


@given(
    shape=st.lists(st.integers(1, 7), max_size=4).map(tuple),
    dtype=st.sampled_from(["?", "i1", "<u2", ">i8", "<f4", ">f8", "<c8"]),
    op=st.sampled_from(OPS),
    keepdims=st.booleans(),
    data=st.data(),
)
def test_any_reduction_is_that_of_numpy(shape, dtype, op, keepdims, data):
    draw = data.draw
    axes = draw(st.none() | st.permutations(range(len(shape))))
    if axes is not None:
        axes = tuple(axes[: draw(st.integers(0, len(axes)))])
    array = sample(shape, dtype, 3)
    chunk_size = tuple(draw(st.integers(1, n)) for n in shape)
    with dn.Connection(secrets.token_hex(6), backend="ram") as con:
        ds = con.create_dataset("a", data=array, chunk_size=chunk_size)
        found = getattr(np, op)(ds, axis=axes, keepdims=keepdims)
    expected = getattr(np, op)(array, axis=axes, keepdims=keepdims)
    assert type(found) is type(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shards", [None, (4, 30, 30)])
def test_sums_have_the_same_bits_for_any_number_of_workers(tmp_path, shards):
    require("joblib")
    values = np.random.default_rng(0).random((40, 30, 30), "f4")
    found = set()
    for engine, options in [("cpu", {}), ("joblib", {"njobs": 3})]:
        with dn.Connection(str(tmp_path), backend="file", engine=engine, engine_kw=options) as con:
            if "a" not in con:
                con.create_dataset("a", data=values, chunk_size=(1, 10, 30), shards=shards)
            for axis in (0, 2, (0, 1)):
                total = con["a"].reduce("sum", axis, memory_limit="1 MiB")
                np.testing.assert_allclose(total, values.sum(axis, dtype="f8"), rtol=1e-6)
                found.add((axis, total.tobytes()))
    assert len(found) == 3


def test_what_has_no_elements_is_reduced_as_by_numpy():
    with dn.Connection("empty", backend="ram") as con:
        ds = con.create_dataset("a", (3, 0, 2), "f4")
        np.testing.assert_array_equal(ds.sum(axis=1), np.zeros((3, 2), "f4"))
        assert ds.sum(axis=0).shape == (0, 2)
        with pytest.raises(ValueError, match="zero-size"):
            ds.min(axis=1)


def test_other_parameters_of_numpy_are_refused():
    with dn.Connection("refused", backend="ram") as con:
        ds = con.create_dataset("a", data=np.ones((3, 4), "f4"))
        with pytest.raises(TypeError, match="dtype"):
            np.sum(ds, axis=0, dtype="f8")
        with pytest.raises(TypeError, match="out"):
            np.max(ds, axis=0, out=np.empty(4, "f4"))
        for op, given in [("sum", {"where": [True] * 4}), ("min", {"initial": 0})]:
            (name,) = given
            with pytest.raises(TypeError, match=rf"np\.{op}\(ds\[\.\.\.\], {name}="):
                getattr(np, op)(ds, **given)
        assert ds.sum(initial=None) == 12
