"""Comparing elements: what NumPy's != says, but that NaN and NaT are equal to themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dosna as dn
from dosna.core.compare import other_bytes, unequal

NESTED = np.dtype([("a", "f4", (2,)), ("b", [("c", "M8[s]"), ("d", "S3")])])


def as_seen(value):
    """What a person would call the same value: one NaN is as good as another."""
    if isinstance(value, (list, tuple, np.ndarray, np.void)):
        return tuple(map(as_seen, value.tolist() if isinstance(value, np.ndarray) else value))
    parts = [value.real, value.imag] if isinstance(value, complex) else [value]
    return "not a value" if any(part != part for part in parts) or value is None else value


@given(
    st.sampled_from(["?", "i2", "u8", "f2", "f8", "c8", "M8[s]", "S2", "U2", NESTED]).flatmap(
        lambda dtype: st.tuples(
            *[hnp.arrays(dtype, (3,), elements=hnp.from_dtype(np.dtype(dtype)))] * 2
        )
    )
)
def test_each_element_is_compared(arrays):
    one, other = arrays
    mixed = np.array([one[0], other[1], one[2]], one.dtype)
    wanted = [as_seen(a.tolist()) != as_seen(b.tolist()) for a, b in zip(one, mixed, strict=True)]
    assert unequal(one, mixed).tolist() == wanted


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (
            np.array("3000-01-01", "M8[D]"),
            np.array("1830-11-23T00:50:52.580896768", "M8[ns]"),
            True,
        ),
        (np.array(2**62, "m8[s]"), np.array(0, "m8[ms]"), True),
        (np.array("2020-01-01", "M8[D]"), np.array("2020-01-01", "M8[ns]"), False),
        (np.array("NaT", "M8[D]"), np.array("NaT", "M8[ns]"), False),
        (np.array(2**53 + 1), np.array(2**53, "c16"), True),
        (np.array(2**63 - 1), np.array(2**63, "c16"), True),
        (np.array(2**53, "u8"), np.array(2**53, "c16"), False),
        (np.array(5), np.array(5 + 1j, "c8"), True),
        (np.array(5), np.array(complex(5, np.nan)), True),
    ],
)
def test_values_that_the_common_dtype_lacks_differ(one, other, differs):
    assert unequal(one, other).tolist() == unequal(other, one).tolist() == differs
    one, other = one.reshape(1), other.reshape(1)
    assert unequal(one, other).tolist() == unequal(other, one).tolist() == [differs]


def test_times_beyond_the_finer_unit_differ_and_others_are_compared():
    seconds = np.array([[1, 2**62, 5], [2**61, 7, 0]], "m8[s]")
    others = np.array([[1000, 0, 5001], [0, 7000, 0]], "m8[ms]")
    wanted = [[False, True, True], [True, False, False]]
    assert unequal(seconds, others).tolist() == unequal(others, seconds).tolist() == wanted


@pytest.mark.parametrize("dtype", ["g", ">g", "G"])
def test_the_undefined_bytes_of_long_doubles_are_no_part_of_the_value(dtype):
    values = (np.arange(4, dtype="g") / 3).astype(dtype)
    other = np.frombuffer(b"\xff" * values.nbytes, dtype).copy()
    for n in range(4):
        other[n] = values[n]
    assert other_bytes(values, other).tolist() == [False] * 4
    other[2] = np.nextafter(np.longdouble(2) / 3, 1)
    assert other_bytes(values, other).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "value", [np.array(2.5, ">f8"), np.array(b"abc", "S5"), np.array(3, ">m8[h]")]
)
def test_arrays_without_axes_are_compared_byte_by_byte(value):
    with dn.Connection("compare-0d", backend="ram", engine="cpu") as con:
        ds = con.create_dataset("a", data=value)
        assert ds.compare(value, exact=True).equal
        assert not ds.compare(np.zeros((), value.dtype), exact=True).equal
        ds.delete()


def test_plain_bytes():
    one = np.array([b"abc", b"ab\0", b"\0bc"], "V3")
    other = np.array([b"abc", b"abc", b"\0bc"], "V3")
    assert unequal(one, other).tolist() == [False, True, False]


def test_fields_that_differ_are_refused():
    with pytest.raises(TypeError, match="fields"):
        unequal(np.zeros(2, [("a", "i4")]), np.zeros(2, [("b", "i4")]))
    with pytest.raises(TypeError):
        unequal(np.zeros(2, [("a", "i4")]), np.zeros(2))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_small_arrays(shape):
    with dn.Connection("compare", backend="ram") as con:
        ds = con.create_dataset("a", data=np.zeros(shape))
        try:
            assert ds.compare(np.zeros(shape)).equal
            found = ds.compare(np.ones(shape))
            assert (found.elements, found.first) == (
                ds.size,
                (0,) * len(shape) if ds.size else None,
            )
        finally:
            ds.delete()


def test_integers_that_no_float_has_differ_from_floats():
    big = np.array([2**53 + 1, 2**53, -(2**63)], "i8")
    with dn.Connection("large", backend="ram") as con:
        ds = con.create_dataset("a", data=big)
        assert ds.compare(big.astype("f8")).elements == 1
        top = con.create_dataset("b", data=np.array([2**64 - 1, 7], "u8"))
        assert top.compare(np.array([2.0**64, 7])).elements == 1
        for name in ("a", "b"):
            con.del_dataset(name)


@given(
    st.sampled_from(["?", "i2", "f8", "c8", "M8[s]", "S3", "U2", NESTED]).flatmap(
        lambda dtype: hnp.arrays(dtype, (3, 2), elements=hnp.from_dtype(np.dtype(dtype)))
    ),
    st.data(),
)
def test_a_byte_that_differs_is_found_in_its_element(array, data):
    assert not other_bytes(array, array.copy()).any()
    place = data.draw(st.integers(0, array.nbytes - 1))
    changed = bytearray(array.tobytes())
    changed[place] ^= data.draw(st.integers(1, 255))
    other = np.frombuffer(changed, array.dtype).reshape(array.shape)
    found = np.flatnonzero(other_bytes(array, other))
    assert found.tolist() == [place // array.dtype.itemsize]


def test_what_lies_between_fields_is_no_value():
    padded = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 4})
    one = np.zeros(2, padded)
    other = np.frombuffer(b"\0xyz\1xyz", padded)
    assert other_bytes(one, other).tolist() == [False, True]


def test_exactly_is_of_the_same_dtype():
    with dn.Connection("compared exactly", backend="ram") as con:
        ds = con.create_dataset("x", data=np.array([0.0, np.nan]), chunk_size=1)
        assert ds.compare(np.array([-0.0, np.nan])).equal
        assert ds.compare(np.array([-0.0, np.nan]), exact=True).first == (0,)
        with pytest.raises(TypeError, match="dtype float64 cannot be compared exactly"):
            ds.compare(np.array([0, np.nan], "f4"), exact=True)
