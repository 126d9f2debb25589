"""Metadata: their JSON, names, chunk sizes and fill values."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dosna.core import metadata as metadata
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.names import check_name, parents
from dosna.core.values import check_fillvalue, decode_value, encode_value
from dosna.errors import DatasetNameError, FormatError
from dosna.testing.samples import ALL_DTYPES, sample

DTYPE = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
    hnp.array_dtypes(allow_subarrays=True),
)


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    # What text has in memory are places of it.
    values = [x.tolist() if x.dtype.kind == "T" else x.tobytes() for x in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and values[0] == values[1]


@given(st.data())
def test_any_metadata_survive_their_json(data):
    dtype = data.draw(DTYPE)
    fill = data.draw(hnp.arrays(dtype, ()))[()]
    shape = tuple(data.draw(st.lists(st.integers(0, 2**40), max_size=4)))
    made = DatasetMetadata(
        shape,
        dtype,
        fill,
        tuple(data.draw(st.integers(1, 2**20)) for _ in shape),
        {"a": encode_value(np.arange(3))},
        {"compression": "gzip"},
        data.draw(st.booleans()),
    )
    text = made.to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = DatasetMetadata.from_json(text)
    assert same(found.fillvalue, fill)
    assert found.replace(fillvalue=0) == made.replace(fillvalue=0)
    assert found.dtype.str == made.dtype.str


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_attributes_keep_arrays_and_scalars(dtype):
    array = sample((3, 2), dtype)
    for value in (array, array[1:], array[::-1, ::2], array[0, 0], array[:0]):
        found = decode_value(json.loads(json.dumps(encode_value(value))))
        if isinstance(value, str):  # NumPy's text is a str, which JSON has.
            assert found == value
            continue
        assert type(found) is type(value)
        assert same(found, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["__numpy__", "__float__", "__map__", "dtype"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_attributes_keep_json_values_even_those_that_look_like_tags(value):
    text = json.dumps(encode_value(value), allow_nan=False)
    assert decode_value(json.loads(text)) == value


@pytest.mark.parametrize("value", [object(), {1}, b"x", {1: 2}, np.array([None]), [object()]])
def test_attributes_refuse_what_json_and_numpy_have_not(value):
    with pytest.raises(TypeError, match=r"kept|keys"):
        encode_value(value)


def test_attributes_refuse_masks():
    masked = np.ma.masked_greater(np.arange(3), 1)
    for value in (masked, [masked], np.ma.masked):
        with pytest.raises(TypeError, match="mask"):
            encode_value(value)
    assert decode_value(encode_value(np.ma.array([1, 2]))).tolist() == [1, 2]


@pytest.mark.parametrize("value", [1j, complex(np.nan, -0.0), 1 + 2j])
def test_attributes_keep_complex_numbers_of_python(value):
    found = decode_value(json.loads(json.dumps(encode_value([value]))))[0]
    assert isinstance(found, complex)
    assert np.complex128(value).tobytes() == np.complex128(found).tobytes()


def document(**changes):
    return json.dumps({**json.loads(new_metadata((4,), "f4").to_json()), **changes})


def test_a_newer_format_is_refused_by_its_number():
    with pytest.raises(FormatError, match=r"7.*update"):
        DatasetMetadata.from_json(document(dosna_format=7), "metadata of 'a'")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        document(dosna_format=0),
        document(dosna_format="1"),
        document(dosna_format=None),
        document(shape="4"),
        document(shape=None),
        document(dtype="no dtype"),
        document(dtype={"fields": []}),
        document(fillvalue="text"),
        document(chunk_size=[None]),
        document()[:-5],
    ],
)
def test_broken_metadata_are_refused_by_name(text):
    with pytest.raises(FormatError, match="metadata of 'a'"):
        DatasetMetadata.from_json(text, "metadata of 'a'")


@pytest.mark.parametrize("changes", [{"chunk_size": [0]}, {"chunk_size": [2, 2]}, {"shape": [-1]}])
def test_metadata_that_cannot_be_are_refused(changes):
    with pytest.raises(FormatError):
        DatasetMetadata.from_json(document(**changes))


@given(
    st.lists(st.integers(0, 3000), max_size=4).map(tuple),
    st.sampled_from([1, 2, 4, 8, 16, 100, 2**21]),
)
def test_chosen_chunks_are_of_about_one_mebibyte(shape, itemsize):
    chunks = metadata.choose_chunk_size(shape, itemsize)
    nbytes = math.prod(chunks) * itemsize
    assert all(1 <= c <= max(1, n) for c, n in zip(chunks, shape, strict=True))
    assert nbytes <= metadata.TARGET_CHUNK_BYTES or set(chunks) <= {1}
    whole = math.prod(max(1, n) for n in shape) * itemsize
    assert nbytes == whole or nbytes * 3 >= metadata.TARGET_CHUNK_BYTES


def test_chosen_chunks_are_near_cubes():
    assert metadata.choose_chunk_size((1000, 1000, 1000), 4) == (63, 63, 63)
    assert metadata.choose_chunk_size((10_000_000,), 8) == (78125,)
    assert metadata.choose_chunk_size((), 8) == ()
    assert metadata.choose_chunk_size((0, 5), 8) == (1, 5)


@pytest.mark.parametrize("name", ["a", "entry/data", "a b", "ä/ö", "chunk_0", "x" * 200, "a.b/c"])
def test_legal_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".hidden", "a\0", "a\n", "a\\b", "ä" * 101],
)
def test_illegal_names(name):
    with pytest.raises(DatasetNameError, match="name"):
        check_name(name)


def test_parents():
    assert parents("a/b/c") == ["a", "a/b"]
    assert parents("a") == []


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("u1", -1),
        ("u1", 256),
        ("i4", 0.5),
        ("i4", np.nan),
        ("?", 2),
        ("f4", "text"),
        ("f4", [1]),
        ("S2", b"abc"),
        ("U1", "ab"),
        ("f2", 1e6),
        ("M8[s]", "no date"),
    ],
)
def test_fill_values_that_do_not_fit(dtype, value):
    with pytest.raises(ValueError, match="fillvalue"):
        check_fillvalue(value, np.dtype(dtype))


@pytest.mark.parametrize(
    ("dtype", "value", "kept"),
    [
        ("u1", None, 0),
        ("u1", 255.0, 255),
        ("i8", True, 1),
        ("f4", 0.1, np.float32(0.1)),
        ("c8", 1, 1 + 0j),
        ("U2", "ab", "ab"),
        ("M8[D]", "2020-01-02", np.datetime64("2020-01-02")),
    ],
)
def test_fill_values_that_fit(dtype, value, kept):
    found = check_fillvalue(value, np.dtype(dtype))
    assert found == kept
    assert found.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", [object, "S0", "V0", [("a", "O")], ("i4", (2,))])
def test_dtypes_that_are_not_plain_bytes(dtype):
    with pytest.raises(TypeError, match="dtype"):
        new_metadata((2,), dtype)


def test_bounds_of_chunks():
    made = new_metadata((5, 7), "u1", None, (2, 3))
    assert made.bounds((2, 1)) == (
        (slice(4, 5), slice(3, 6)),
        (slice(0, 1), slice(0, 3)),
    )
    assert made.contains((2, 2))
    assert not any(made.contains(idx) for idx in [(3, 0), (-1, 0), (0,), (0, 0, 0)])


def test_pickling_lets_other_threads_use_the_metadata():
    class Using:
        """A value whose pickling does what another thread may do at that time."""

        def __reduce__(self):
            assert metadata.total_chunks == 4
            return int, ()

    metadata = new_metadata((4, 4), "i4", chunk_size=(2, 2)).replace(origin={"x": Using()})
    assert pickle.loads(pickle.dumps(metadata)).origin == {"x": 0}


@pytest.mark.parametrize(
    ("value", "error", "noun"),
    [
        (3.5, TypeError, "integers"),
        (None, TypeError, "integers"),
        ("3", TypeError, "integers"),
        ((2, True), TypeError, "integers"),
        ((2, -1), ValueError, "extent"),
        ((2, 1 << 63), ValueError, "extent"),
        ((1,) * 65, ValueError, "axes"),
    ],
)
def test_extents_that_cannot_be(value, error, noun):
    with pytest.raises(error, match=f"shape.*{noun}"):
        metadata.check_extents(value, "shape")
