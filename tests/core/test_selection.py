"""Selections against NumPy: the same results, the same assignments, the same errors."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dosna.core.indices import true_places
from dosna.core.selection import select

quick = settings(max_examples=150, deadline=None)


def array_of(shape):
    return np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape)


def shapes(min_dims=0):
    return st.lists(st.integers(0, 6), min_size=min_dims, max_size=4).map(tuple)


@st.composite
def keys(draw, shape):
    """Keys of every kind, most of them valid."""
    entries = []
    point_shape = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,), (2, 1)]))
    axis = 0
    while axis < len(shape):
        n = shape[axis]
        kind = draw(st.sampled_from("isssaamMn."))
        if kind == "n":
            entries.append(None)
            continue
        if kind == ".":
            if draw(st.booleans()):
                break
            if not any(e is Ellipsis for e in entries):
                entries.append(Ellipsis)
                axis += draw(st.integers(0, len(shape) - axis))
            continue
        if kind in "ia" and n == 0:
            kind = "s"
        if kind == "i":
            number = draw(st.integers(-n, n - 1))
            entries.append(draw(st.sampled_from([int, np.int16, np.array]))(number))
        elif kind == "s":
            ends = st.none() | st.integers(-n - 2, n + 2)
            steps = st.none() | st.integers(-4, 4).filter(bool)
            entries.append(slice(draw(ends), draw(ends), draw(steps)))
        elif kind == "a":
            trim = draw(st.integers(0, len(point_shape)))
            size = int(np.prod(point_shape[trim:]))
            numbers = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            points = np.array(numbers, dtype=np.int32).reshape(point_shape[trim:])
            entries.append(points.tolist() if draw(st.booleans()) else points)
        else:
            ndim = 1 if kind == "m" else draw(st.integers(1, len(shape) - axis))
            part = shape[axis : axis + ndim]
            size = int(np.prod(part))
            bits = draw(st.integers(0, 2**size - 1)) if size < 40 else draw(st.integers(0, 2**40))
            mask = np.array([bits >> i & 1 for i in range(size)], dtype=bool).reshape(part)
            entries.append(mask.tolist() if draw(st.booleans()) and mask.size else mask)
            axis += ndim - 1
        axis += 1
    if draw(st.integers(0, 9)) == 0:
        entries.append(None)
    if len(entries) == 1 and draw(st.booleans()):
        return entries[0]
    return tuple(entries)


@st.composite
def cases(draw):
    shape = draw(shapes())
    return shape, draw(keys(shape))


def canonical_key(selection):
    points = iter(selection.points or ())
    return tuple(
        next(points) if r is None else slice(r[0], r[0] + r[1] * r[2], r[2])
        for r in selection.ranges
    )


def numpy_result(array, key):
    """NumPy's result, or None where both refuse."""
    try:
        result = array[key]
    except IndexError:
        with pytest.raises(IndexError):
            select(key, array.shape)
        return None
    if not np.size(result):
        # NumPy leaves some points and masks unchecked where nothing is selected.
        try:
            select(key, array.shape)
        except IndexError as error:
            if "out of bounds" not in str(error) and "did not match" not in str(error):
                raise
            return None
    return result


def same(result, expected):
    assert type(result) is type(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert np.array_equal(result, expected)


@quick
@given(cases())
def test_reading_equals_numpy(case):
    shape, key = case
    array = array_of(shape)
    expected = numpy_result(array, key)
    assume(expected is not None)
    selection = select(key, shape)
    assert selection.out_shape == expected.shape
    assert selection.size == expected.size
    source = array[canonical_key(selection)]
    assert selection.canonical_shape == source.shape
    result, canonical = selection.allocate(array.dtype)
    assert result.flags.c_contiguous
    canonical[...] = source
    same(selection.finish(result), expected)


@quick
@given(cases())
def test_ranges_and_points_are_canonical(case):
    shape, key = case
    assume(numpy_result(array_of(shape), key) is not None)
    selection = select(key, shape)
    for r, n in zip(selection.ranges, shape, strict=True):
        if r is not None:
            start, count, step = r
            assert {type(x) for x in r} == {int}
            assert step > 0
            assert count == 0 or 0 <= start <= start + (count - 1) * step < n
    if selection.points is None:
        assert None not in selection.ranges
        return
    point_axes = [axis for axis, r in enumerate(selection.ranges) if r is None]
    assert len(point_axes) == len(selection.points)
    for axis, p in zip(point_axes, selection.points, strict=True):
        assert p.dtype == np.int64
        assert p.shape == (selection.canonical_shape[selection.point_axis],)
        assert np.all((p >= 0) & (p < shape[axis]))


@quick
@given(cases(), st.data())
def test_assignment_equals_numpy(case, data):
    shape, key = case
    array = np.zeros(shape)
    expected = np.zeros(shape)
    result = numpy_result(expected, key)
    assume(result is not None)
    wanted = list(np.shape(result))
    kept = wanted[data.draw(st.integers(0, len(wanted))) :]
    value_shape = [1 if data.draw(st.integers(0, 3)) == 0 else n for n in kept]
    if len(kept) == len(wanted) and data.draw(st.booleans()):
        value_shape = [1, *value_shape]
    if value_shape and data.draw(st.integers(0, 5)) == 0:
        value_shape[-1] += 1
    values = array_of(value_shape).astype(float)
    selection = select(key, shape)
    try:
        expected[key] = values
    except ValueError:
        with pytest.raises(ValueError, match=r"could not broadcast|with a sequence"):
            selection.spread(values)
        return
    except TypeError:
        # A mask of the whole array takes values of one dimension only in NumPy, against its own
        # rule that further axes of length 1 may be dropped; here the rule holds for masks too.
        assume(False)
    canonical = selection.spread(values)
    assert canonical.shape == selection.canonical_shape
    array[canonical_key(selection)] = canonical
    assert np.array_equal(array, expected)


@quick
@given(cases(), st.booleans())
def test_view_of_an_output_writes_into_it(case, fortran):
    shape, key = case
    array = array_of(shape)
    expected = numpy_result(array, key)
    assume(expected is not None)
    selection = select(key, shape)
    out = np.zeros(selection.out_shape, order="F" if fortran else "C")
    canonical = selection.view(out)
    if canonical is None:
        assert fortran
        assert selection.points is not None
        return
    canonical[...] = array[canonical_key(selection)]
    assert np.array_equal(out, expected)


def test_view_is_none_where_the_layout_allows_none():
    selection = select([[0, 1], [1, 2]], (5, 3))
    assert selection.view(np.zeros((2, 2, 3), order="F")) is None
    with pytest.raises(ValueError, match=r"shape \(2, 2, 3\)"):
        selection.view(np.zeros((4, 3)))


@quick
@given(cases())
def test_selections_pickle(case):
    shape, key = case
    array = array_of(shape)
    assume(numpy_result(array, key) is not None)
    selection = select(key, shape)
    copy = pickle.loads(pickle.dumps(selection))
    assert copy.shape == shape
    assert copy.out_shape == selection.out_shape
    same(array[canonical_key(copy)], array[canonical_key(selection)])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, "index 5 is out of bounds for axis 0 with size 5"),
        (-6, "index -6 is out of bounds for axis 0 with size 5"),
        (10**30, "out of bounds"),
        ((0, [0, 4]), "index 4 is out of bounds for axis 1 with size 4"),
        ([0, -6], "index -6 is out of bounds for axis 0 with size 5"),
        (np.array([2**63], np.uint64), "out of bounds"),
        (([9], np.zeros(0, int)), "index 9 is out of bounds"),
        ((0, 0, 0), "too many indices for array: array is 2-dimensional, but 3 were indexed"),
        ((..., 0, ...), "single ellipsis"),
        (([0, 1], [0, 1, 2]), r"shape mismatch.* shapes \(2,\) \(3,\)"),
        (np.ones(4, bool), "axis is 5 but size of corresponding boolean axis is 4"),
        (np.ones((5, 3), bool), "along axis 1; size of axis is 4 but"),
        (np.ones((5, 0), bool), "along axis 1"),
        (1.0, "only integers"),
        ([1.0], "only integers"),
        (np.array([1.0]), "must be of integer"),
        (np.array([], float), "must be of integer"),
        ([[0], [0, 1]], "only integers"),
        ({1}, "only integers.*not set"),
        ("name", r"read first: array\[\.\.\.\]\['name'\]"),
        (["a", "b"], r"read first: array\[\.\.\.\]\[\['a', 'b'\]\]"),
        (True, "boolean without dimensions"),
        (np.False_, "boolean without dimensions"),
        (np.array(True), "boolean without dimensions"),
        ((0, True), "boolean without dimensions"),
    ],
)
def test_refused_as_by_numpy(key, message):
    with pytest.raises(IndexError, match=message):
        select(key, (5, 4))


@pytest.mark.parametrize(
    ("key", "error"), [(slice(None, None, 0), ValueError), (slice(1.0, 2), TypeError)]
)
def test_bad_slices_as_in_numpy(key, error):
    with pytest.raises(error) as numpys:
        np.zeros(3)[key]
    with pytest.raises(error) as ours:
        select(key, (3,))
    if error is TypeError:
        assert str(ours.value) == str(numpys.value)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        (slice(None), np.ones(3), r"from shape \(3,\) into shape \(2,4\)"),
        (0, np.ones((2, 4)), r"from shape \(2,4\) into shape \(4,\)"),
        ([[0, 1], [1, 0]], np.ones((3, 4)), r"from shape \(3,4\) into shape \(2,2,4\)"),
        ((0, 0), [1, 2], "with a sequence"),
    ],
)
def test_values_of_a_wrong_shape(key, values, message):
    with pytest.raises(ValueError, match=message):
        select(key, (2, 4)).spread(values)


def test_spread_converts_as_assignment_does():
    selection = select(slice(1, 3), (4,))
    assert selection.spread([1.7, -1.2], "i2").tolist() == [1, -1]
    assert selection.spread("2020-01-01", "M8[D]").tolist() == [np.datetime64("2020-01-01")] * 2
    with pytest.raises(OverflowError):
        selection.spread(300, "u1")


@pytest.mark.parametrize("dtype", ["?", "V3", [("a", "i4"), ("b", "f8")]])
def test_one_element_takes_an_array_where_numpys_does(dtype):
    values = np.ones((1, 1), dtype)
    array = np.zeros((2, 4), dtype)
    array[0, 0] = values
    assert select((0, 0), (2, 4)).spread(values)[()] == array[0, 0]


def test_spread_repeats_nothing_in_memory():
    everything = select(..., (10**6, 10**6))
    assert everything.spread(5).strides == (0, 0)
    assert everything.spread(np.arange(10**6)).base is not None
    points = np.zeros((30, 40), int)
    block = select((points, slice(None)), (10, 10**12))
    spread = block.spread(np.ones((40, 1)))
    assert spread.shape == (1200, 10**12)
    block = select((slice(None), points), (10**12, 10))
    assert block.spread(np.ones((30, 1))).shape == (10**12, 1200)


def test_large_results_are_aligned():
    for n in (2**13, 2**13 + 1, 10**5):
        result, canonical = select(slice(None, None, -1), (n,)).allocate("f8")
        assert result.ctypes.data % 64 == 0
        assert result.shape == canonical.shape == (n,)


@pytest.mark.parametrize("dtype", ["?", ">i2", "c16", "M8[ns]", "S3", "U2", "i4,f8", "S0"])
def test_results_of_every_dtype(dtype):
    selection = select((slice(None), 0), (40000, 2))
    result, canonical = selection.allocate(dtype)
    assert result.dtype == canonical.dtype == np.zeros(0, dtype).dtype
    canonical[...] = np.zeros((), dtype)
    assert np.array_equal(result, np.zeros(40000, dtype))


@pytest.mark.parametrize(
    ("shape", "key"),
    [
        ((), ()),
        ((), ...),
        ((), None),
        ((3,), 1),
        ((3,), (1, ...)),
        ((3,), np.array(1)),
        ((3, 3), (np.int8(1), np.array(-1))),
        ((3,), [1]),
        ((3,), (1, None)),
    ],
)
def test_scalars_where_numpy_gives_scalars(shape, key):
    array = array_of(shape)
    selection = select(key, shape)
    result, canonical = selection.allocate(array.dtype)
    canonical[...] = array[canonical_key(selection)]
    same(selection.finish(result), array[key])


@pytest.mark.parametrize("length", [0, 1, 7, 40, 5000])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.07, 0.1, 0.11, 0.6, 1.0])
def test_places_of_true_elements(length, share):
    mask = np.random.default_rng(length).permutation(length) < share * length
    for some in (mask, mask[::-1], np.repeat(mask, 3)[::3]):
        found = true_places(some)
        assert found.dtype == np.int64
        assert np.array_equal(found, np.flatnonzero(some))
