"""Which values a conversion changes: by Python's own exact numbers and texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dosna.core.casting import lost
from dosna.core.values import check_fillvalue

NUMBERS = ["?", "i1", "u1", "<i4", ">i8", "<u8", "f2", ">f4", "<f8", "c8", ">c16", "g"]


def changed(value, dtype):
    """Say by Python's exact arithmetic whether a number cannot be of a dtype."""
    imag, real = (value.imag, value.real) if isinstance(value, complex) else (0, value)
    if dtype.kind in "fc":
        if dtype.kind == "f" and imag != 0:
            return True
        parts = [real, imag]
        with np.errstate(over="ignore"):
            return any(math.isfinite(p) and not np.isfinite(dtype.type(p)) for p in parts)
    if imag != 0 or not math.isfinite(real) or real != int(real):
        return True
    if dtype.kind == "b":
        return int(real) not in (0, 1)
    limits = np.iinfo(dtype)
    return not int(limits.min) <= int(real) <= int(limits.max)


@given(st.data(), st.sampled_from(NUMBERS[:-1]), st.sampled_from(NUMBERS[:-1]))
def test_numbers(data, source, target):
    source, target = np.dtype(source), np.dtype(target)
    edges = [0, 1, -1, 127, 128, 255, 256, -128, -129, 2.0**31, 2.0**63, -(2.0**63), 2.0**64]
    elements = hnp.from_dtype(source)
    with np.errstate(over="ignore"):
        if source.kind in "fc":
            elements |= st.sampled_from([np.array(e).astype(source)[()] for e in [*edges, 1e300]])
        values = data.draw(hnp.arrays(source, hnp.array_shapes(max_dims=2), elements=elements))
    expected = [changed(v, target) for v in values.reshape(-1).tolist()]
    found = lost(values, target)
    assert found.shape == values.shape
    assert found.reshape(-1).tolist() == expected


@pytest.mark.parametrize("dtype", ["M8[s]", ">m8[10ms]"])
def test_numbers_and_times(dtype):
    counts = [0, 127, 128, -129, 2**40]
    times = np.array(counts, ">i8").astype(dtype)
    small = [False, False, True, True, True]
    assert lost(times, np.dtype(">i1")).tolist() == small
    assert not lost(times, np.dtype("f8")).any()
    numbers = np.array([1.5, 2, np.nan, np.inf, 2.0**63])
    assert lost(numbers, np.dtype(dtype)).tolist() == [True, False, False, True, True]
    assert lost(np.array([1, 1j]), np.dtype(dtype)).tolist() == [False, True]
    assert lost(np.array([1, 2**63], "u8"), np.dtype(dtype)).tolist() == [False, True]


@given(st.lists(st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=5)))
def test_texts(texts):
    values = np.array(texts, "U5")
    for length in range(1, 7):
        assert lost(values, np.dtype(f"<U{length}")).tolist() == [len(t) > length for t in texts]
        assert lost(values.astype(object), np.dtype(f">U{length}")).tolist() == [
            len(t) > length for t in texts
        ]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["2020-01-01T00:00", "2020-01-01T12:00", "NaT"], "M8[D]", [False, True, False]),
        (["3000-01-01", "2020-01-01", "NaT"], "M8[ns]", [True, False, False]),
        ([12345, 12], "U3", [True, False]),
        ([0.5, 1 / 3], "S4", [False, True]),
    ],
)
def test_others(values, dtype, expected):
    found = np.array(values, "M8" if "M8" in dtype else None)
    assert lost(found, np.dtype(dtype)).tolist() == expected


def test_fields_and_their_parts():
    source = np.dtype([("a", "f8"), ("b", "U4", (2,))])
    values = np.array([(1.0, ["ab", "c"]), (1.5, ["", ""]), (2, ["x", "long"])], source)
    target = np.dtype([("x", "i4"), ("y", "U2", (2,))])
    assert lost(values, target).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("fill", "dtype"),
    [
        (np.datetime64("2020-01-01T00:00:00.5"), "M8[s]"),
        ("2020-01-01T00:00:00.5", "M8[s]"),
        (np.timedelta64(1500, "ms"), "m8[s]"),
        (np.timedelta64(1500, "ms"), "M8[s]"),
        (np.datetime64("2020-01-01"), "m8[s]"),
        (np.datetime64("3000-01-01"), "M8[ns]"),
        (np.array("abcd"), "U3"),
        (12345, "U3"),
        (("abcd", 1), [("a", "U3"), ("b", "i4")]),
        (("abc", 1.5), [("a", "U3"), ("b", "i4")]),
        (b"abcdefg", "V6"),
        (300, "u1"),
        (1.5, "i4"),
        (2, "?"),
    ],
)
def test_fill_values_that_would_be_changed_are_refused(fill, dtype):
    with pytest.raises(ValueError, match="does not fit dtype"):
        print(check_fillvalue(fill, np.dtype(dtype)))


@pytest.mark.parametrize(
    ("fill", "dtype"),
    [
        (np.datetime64("2020-01-01T00:00:01"), "M8[s]"),
        (np.datetime64("2020-01-01"), "M8[ns]"),
        ("2020-01-01", "M8[ns]"),
        ("NaT", "M8[s]"),
        (5, "M8[s]"),
        (np.timedelta64("NaT"), "m8[s]"),
        ("abc", "U3"),
        (("abc", 1), [("a", "U3"), ("b", "i4")]),
        (1.0, "i4"),
        (0.1, "f4"),
        (float("nan"), "f2"),
        (True, "?"),
    ],
)
def test_fill_values_that_fit(fill, dtype):
    assert check_fillvalue(fill, np.dtype(dtype)) is not None
