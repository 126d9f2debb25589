"""Arrays, dtypes and indices for the conformance tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dosna.core.types import Array

DTYPES: tuple[Any, ...] = (
    "?",
    "i1",
    "<i2",
    ">i4",
    "<u8",
    "<f2",
    ">f4",
    "<f8",
    "<c8",
    ">c16",
    "<M8[ns]",
    ">M8[D]",
    "<m8[us]",
    "S5",
    "<U4",
    ">U3",
    "V6",
    "T",
    [("id", "<i4"), ("energy", "<f8"), ("hit", "?"), ("name", "<U3"), ("xy", [("x", "<f4")])],
)
"""A dtype of each kind that every backend stores, in both byte orders."""

ALL_DTYPES: tuple[Any, ...] = (
    *DTYPES,
    [("id", "<i4"), ("energy", ">f8"), ("hit", "?"), ("name", "<U3"), ("xy", "<f4", (2,))],
)
"""The same dtypes, and one more that NumPy has and Zarr has not."""

SHAPE, CHUNKS = (7, 10, 9), (3, 4, 5)
"""The extents of an array and of its chunks, which divide no axis."""


def sample(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Array:
    """Return an array of any storable dtype in which elements differ."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if kind.names is not None:
        made: Array = np.zeros(shape, kind)
        for number, field in enumerate(kind.names):
            part = made[field]
            part[...] = sample(part.shape, part.dtype, seed + number)
        return made
    if kind.kind == "V":
        raw = rng.integers(0, 256, (*shape, kind.itemsize), np.uint8)
        made = raw.view(kind).reshape(shape)
        return made
    numbers = rng.integers(-100, 100, shape)
    if kind.kind == "T":
        # Empty texts, texts beyond the 15 bytes that NumPy keeps in place, and not only ASCII.
        texts = [f"{n}\u00e4\U0001f600"[: n % 7] * (n % 5) for n in numbers.flat]
        return np.array(texts, kind).reshape(shape)
    if kind.kind in "SU":
        return numbers.astype(kind)
    if kind.kind == "b":
        return numbers > 0
    if kind.kind == "u":
        return np.abs(numbers).astype(kind)
    if kind.kind == "c":
        return (numbers + 1j * rng.integers(-9, 9, shape)).astype(kind)
    return numbers.astype(kind)


def check(found: Any, expected: Any, what: object = "") -> None:
    """Assert that two results have the same bytes, dtype, shape and kind."""
    assert isinstance(found, np.ndarray) == isinstance(expected, np.ndarray), (what, found)
    a, b = np.asarray(found), np.asarray(expected)
    assert a.dtype == b.dtype, (what, a.dtype, b.dtype)
    assert a.shape == b.shape, (what, a.shape, b.shape)
    if a.dtype.kind == "T":
        assert a.tolist() == b.tolist(), what
    elif a.tobytes() != b.tobytes():
        places = np.argwhere(a != b)
        raise AssertionError(f"{what}: differs at {places[:3].tolist()}:\n{a}\n{b}")


ALL = slice(None)

PLAIN_INDICES: tuple[Any, ...] = (
    (),
    ...,
    0,
    -1,
    np.int16(3),
    np.array(2),
    (1, 2, 3),
    (-1, -10, 8),
    (2, 5),
    ALL,
    slice(2, 5),
    slice(3, 6),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(5, 1, -2),
    slice(100, 200),
    slice(-100, 100),
    slice(4, 4),
    slice(5, 2),
    (..., 3),
    (2, ..., 1),
    (slice(1, 6, 2), slice(8, None, -3), slice(2, 7)),
    (ALL, 3),
    (slice(6, 7), slice(8, 10), slice(5, 9)),
    None,
    (None, 2),
    (ALL, None, 4, ..., None),
    [0, 2, 6],
    [1, 1, 0],
    np.array([-1, 3]),
    [],
    [[0, 1], [2, 6]],
    ([0, 1], [2, 3]),
    ([6, 0, 3], [9, 0, 9], [8, 8, 0]),
    (ALL, [0, 5], [1, 2]),
    ([0, 1], ALL, [2, 3]),
    (0, ALL, [1, 3]),
    (slice(None, None, -2), [3, 0]),
    (..., [8, 1, 1]),
    (None, [0, 2], 3),
    (np.array([[0], [4]]), [1, 5, 9]),
    (np.array([[0], [4]]), ALL, np.array([1, 5, 8])),
    (slice(1, 5), np.array([[0, 9], [4, 4]])),
)
"""Indices of an array of `SHAPE`: integers, slices, new axes, and arrays of integers."""


def indices() -> list[Any]:
    """List indices of an array of `SHAPE`, one of every kind that NumPy accepts."""
    rng = np.random.default_rng(3)
    axis0, axis1, axis2 = (rng.random(n) < 0.5 for n in SHAPE)
    plane, rear = rng.random(SHAPE[:2]) < 0.5, rng.random(SHAPE[1:]) < 0.5
    full = rng.random(SHAPE) < 0.3
    return [
        *PLAIN_INDICES,
        axis0,
        list(axis0),
        (ALL, axis1),
        (..., axis2),
        plane,
        (ALL, rear),
        (2, rear),
        full,
        np.zeros(SHAPE, bool),
        (np.flatnonzero(axis0), ALL, 4),
    ]


BAD_INDICES: tuple[Any, ...] = (
    7,
    -8,
    (0, 10),
    (0, 0, 0, 0),
    (..., 0, ...),
    "name",
    ["name"],
    1.5,
    [0, 7],
    [0, -8],
    [0.5],
    ([0, 1], [0, 1, 2]),
    np.zeros(6, bool),
    np.zeros((7, 9), bool),
    slice(None, None, 0),
    slice("a", None),
    slice(0.5, None),
    True,
    (0, False),
    {},
)
"""Indices of an array of `SHAPE` that must be refused."""


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Draw an index: basic, of integer arrays, of masks, or a mixture of these."""
    kind = draw(st.sampled_from(["basic", "basic", "points", "mask", "mixed"]))
    if kind == "points" and shape and all(shape):
        return draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2)))
    if kind == "mask" and shape:
        axes = draw(st.integers(1, len(shape)))
        return draw(hnp.arrays(bool, shape[:axes]))
    if kind == "mixed" and shape and all(shape):
        axis = draw(st.integers(0, len(shape) - 1))
        key: list[Any] = [draw(st.slices(n)) for n in shape]
        key[axis] = draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), max_size=6))
        return tuple(key)
    return draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=6))
