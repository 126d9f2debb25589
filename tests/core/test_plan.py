"""Plans carried out on a dict of chunks, against the same work done by NumPy."""

import pickle
import sys
from itertools import chain, product
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_selection import array_of, keys, numpy_result, same, shapes

from dosna.core.plan import ChunkTask, every_chunk, plan, single
from dosna.core.selection import select

quick = settings(max_examples=250, deadline=None)


def grid_of(shape, chunk_size):
    return tuple(-(-n // c) for n, c in zip(shape, chunk_size, strict=True))


def bounds(idx, chunk_size, shape):
    return tuple(
        slice(i * c, min(i * c + c, n)) for i, c, n in zip(idx, chunk_size, shape, strict=True)
    )


def cut(array, chunk_size):
    """Chunks of full size by index; what sticks out of the array is -1."""
    chunks = {}
    for idx in product(*map(range, grid_of(array.shape, chunk_size))):
        chunk = np.full(chunk_size, -1, array.dtype)
        inside = array[bounds(idx, chunk_size, array.shape)]
        chunk[tuple(map(slice, inside.shape))] = inside
        chunks[idx] = chunk
    return chunks


def joined(chunks, shape, chunk_size):
    array = np.empty(shape, dtype=int)
    for idx, chunk in chunks.items():
        place = bounds(idx, chunk_size, shape)
        array[place] = chunk[tuple(slice(0, p.stop - p.start) for p in place)]
    return array


@st.composite
def cases(draw):
    shape = draw(shapes())
    chunk_size = tuple(draw(st.integers(1, 7)) for _ in shape)
    key = draw(keys(shape))
    assume(numpy_result(array_of(shape), key) is not None)
    return shape, chunk_size, key


@st.composite
def grids(draw):
    shape = draw(shapes())
    return shape, tuple(draw(st.integers(1, 4)) for _ in shape)


def plain(part):
    """Slices and arrays as what compares by ``==``."""
    if isinstance(part, np.ndarray):
        return part.tolist()
    if isinstance(part, slice):
        return (part.start, part.stop, part.step)
    return tuple(map(plain, part)) if isinstance(part, tuple) else part


def listed(tasks):
    return [plain(tuple(task)) for task in tasks]


@quick
@given(cases())
def test_reading_chunk_by_chunk(case):
    shape, chunk_size, key = case
    array = array_of(shape)
    chunks = cut(array, chunk_size)
    selection = select(key, shape)
    result, canonical = selection.allocate(array.dtype)
    canonical[...] = -2
    for task in plan(selection, chunk_size):
        values = chunks[task.idx][task.chunk]
        assert np.shape(canonical[task.out]) == np.shape(values)
        canonical[task.out] = values
    same(selection.finish(result), array[key])


@quick
@given(cases(), st.data())
def test_writing_chunk_by_chunk(case, data):
    shape, chunk_size, key = case
    array = array_of(shape)
    chunks = cut(array, chunk_size)
    selection = select(key, shape)
    values = -10 - array_of(selection.out_shape)
    if values.ndim and data.draw(st.booleans()):
        values = values[:1]
    assume(not (values.ndim > 1 and isinstance(key, np.ndarray) and key.dtype == bool))
    canonical = selection.spread(values)
    for task in plan(selection, chunk_size):
        if task.whole:
            chunk = np.full(chunk_size, -1)
            chunk[task.chunk] = canonical[task.out]
            chunks[task.idx] = chunk
        else:
            chunks[task.idx][task.chunk] = canonical[task.out]
    try:
        array[key] = values
    except TypeError:
        assume(False)
    assert np.array_equal(joined(chunks, shape, chunk_size), array)


@quick
@given(cases())
def test_tasks(case):
    shape, chunk_size, key = case
    numbers = array_of(shape)
    selection = select(key, shape)
    tasks = list(plan(selection, chunk_size))
    assert len(plan(selection, chunk_size)) == len(tasks)
    grid = grid_of(shape, chunk_size)
    touched = set()
    for number in np.ravel(numbers[key]).tolist():
        place = np.unravel_index(number - 1, shape)
        touched.add(tuple(int(p) // c for p, c in zip(place, chunk_size, strict=True)))
    assert {task.idx for task in tasks} == touched
    assert len(tasks) == len(touched)
    for task in tasks:
        assert isinstance(task, ChunkTask)
        assert len(task.idx) == len(task.chunk) == len(shape)
        assert all(type(i) is int and 0 <= i < n for i, n in zip(task.idx, grid, strict=True))
        for part in task.chunk:
            if isinstance(part, slice):
                assert {type(part.start), type(part.stop), type(part.step)} == {int}
                assert part.step > 0
                assert part.step == 1 or part.stop - part.start > 1
        for part in task.out:
            if isinstance(part, slice):
                assert {type(part.start), type(part.stop)} == {int}
                assert part.step is None
        inside = tuple(slice(0, p.stop - p.start) for p in bounds(task.idx, chunk_size, shape))
        covered = np.zeros(chunk_size, bool)
        covered[task.chunk] = True
        if selection.points is None:
            assert task.whole == covered[inside].all()
        else:
            assert not task.whole
        covered[inside] = False
        assert not covered.any()


@quick
@given(cases(), st.integers(1, 9))
def test_parts_make_up_the_plan(case, n):
    shape, chunk_size, key = case
    whole = plan(select(key, shape), chunk_size)
    tasks = listed(whole)
    count = len(tasks)

    split = whole.split(n)
    assert len(split) == min(n, count)
    assert all(count // n <= len(part) <= -(-count // n) for part in split if count >= n)
    parts = [whole.part(i, n) for i in range(n)]
    batches = list(whole.batches(n))
    assert [len(batch) for batch in batches[:-1]] == [n] * (len(batches) - 1)
    for pieces in (split, parts, batches):
        assert [len(piece) for piece in pieces] == [len(list(piece)) for piece in pieces]
        assert listed(chain.from_iterable(pieces)) == tasks
        again = [pickle.loads(pickle.dumps(piece)) for piece in pieces]
        assert listed(chain.from_iterable(again)) == tasks
        finer = [part for piece in pieces for part in piece.split(2)]
        assert listed(chain.from_iterable(finer)) == tasks
        again = [pickle.loads(pickle.dumps(part)) for piece in again for part in piece.split(2)]
        assert listed(chain.from_iterable(again)) == tasks


@quick
@given(cases(), st.integers(1, 9))
def test_columns_are_the_tasks(case, n):
    shape, chunk_size, key = case
    for part in plan(select(key, shape), chunk_size).split(n):
        idx, chunk, out, whole = map(list, part.columns())
        assert listed(zip(idx, chunk, out, whole, strict=True)) == listed(part)


@quick
@given(grids())
def test_every_chunk(case):
    shape, chunk_size = case
    array = array_of(shape)
    seen = np.zeros(shape, int)
    tasks = list(every_chunk(shape, chunk_size))
    assert [task.idx for task in tasks] == list(product(*map(range, grid_of(shape, chunk_size))))
    for task in tasks:
        assert task.whole
        assert task.out == bounds(task.idx, chunk_size, shape)
        assert np.zeros(chunk_size)[task.chunk].shape == array[task.out].shape
        assert all(s.start == 0 for s in task.chunk)
        seen[task.out] += 1
    assert np.all(seen == 1)


@quick
@given(cases())
def test_single_is_numpys_result_or_none(case):
    shape, chunk_size, key = case
    found = single(key, shape, chunk_size)
    if found is None:
        return
    array = array_of(shape)
    idx, local = found
    assert all(type(i) is int for i in idx)
    same(cut(array, chunk_size)[idx][local], array[key])


@st.composite
def small_boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    chunk_size = tuple(draw(st.integers(1, 5)) for _ in shape)
    key = []
    for n, c in zip(shape, chunk_size, strict=True):
        start = draw(st.integers(0, n - 1))
        end = min(n, start // c * c + c)
        stop = draw(st.integers(start + 1, end))
        if stop == n:
            stop = draw(st.sampled_from([n, n + 3, None]))
        number = slice(start if start else draw(st.sampled_from([0, None])), stop)
        key.append(start if draw(st.booleans()) else number)
    return shape, chunk_size, tuple(key)


@quick
@given(small_boxes())
def test_single_finds_every_plain_box_in_one_chunk(case):
    shape, chunk_size, key = case
    array = array_of(shape)
    found = single(key, shape, chunk_size)
    assert found is not None
    idx, local = found
    same(cut(array, chunk_size)[idx][local], array[key])


@pytest.mark.parametrize(
    "key",
    [
        True,
        (True, 0),
        (slice(True), 0),
        (-1, 0),
        (5, 0),
        (0,),
        (0, 0, 0),
        (0, slice(None)),
        (0, slice(2, 2)),
        (0, slice(0, 1, 2)),
        (0, slice(0, 1, -1)),
        (0, None),
        (0, ...),
        ([0], 0),
        (1.0, 0),
    ],
)
def test_single_leaves_the_unusual_alone(key):
    assert single(key, (5, 4), (3, 3)) is None


def test_single_of_one_dimension_needs_no_tuple():
    assert single(4, (5,), (3,)) == ((1,), (1,))
    # Axes that are not named are whole.
    assert single(4, (5, 4), (3, 4)) == ((1, 0), (1, slice(0, 4)))
    assert single((4, 1), (5, 4, 2), (3, 2, 2)) == ((1, 0, 0), (1, 1, slice(0, 2)))
    assert single((), (2, 2), (3, 3)) == ((0, 0), (slice(0, 2), slice(0, 2)))
    assert single(4, (5, 4), (3, 3)) is None
    assert single((4, 1, 0), (5, 4), (3, 4)) is None
    assert single(..., (5, 4), (5, 4)) is None
    assert single(slice(3, None), (5,), (3,)) == ((1,), (slice(0, 2),))


def test_the_last_of_duplicated_points_wins():
    places = np.random.default_rng(5).integers(0, 40, (2, 3000))
    array = np.zeros((40, 40), int)
    chunks = cut(array, (7, 9))
    selection = select(tuple(places), array.shape)
    values = selection.spread(np.arange(3000))
    for task in plan(selection, (7, 9)):
        chunks[task.idx][task.chunk] = values[task.out]
    for i, place in enumerate(zip(*places.tolist(), strict=True)):
        array[place] = i
    assert np.array_equal(joined(chunks, (40, 40), (7, 9)), array)


@pytest.mark.parametrize(
    ("n", "width"), [(60_000, 60_000), (3_000_000, 3_000_000), (10**11, 10**11), (2**40, 1)]
)
def test_points_in_few_and_in_very_many_chunks(n, width):
    """Each of the ways of sorting: chunk numbers of 16, of 32, of 63 and of more bits."""
    points = np.random.default_rng(n).integers(0, n, 500)
    points[100:200] = points[:100]
    tasks = list(plan(select((points, points), (n, n)), (1, width)))
    assert [task.idx for task in tasks] == sorted({(p, p // width) for p in points.tolist()})
    for task in tasks:
        assert (points[task.out[0]] == task.idx[0]).all()
        assert (np.diff(task.out[0]) > 0).all()


def test_points_already_in_order_are_not_sorted():
    selection = select(np.arange(100) % 10 == 0, (100,))
    assert listed(plan(selection, (30,)))[1] == ((1,), ([0, 10, 20],), ((3, 6, None),), False)


def test_a_plan_is_small_however_many_its_tasks():
    huge = every_chunk((10**5,) * 3, (100,) * 3)
    assert len(huge) == 10**9
    assert [next(iter(huge.part(i, 3))).idx for i in range(3)] == [
        (0, 0, 0),
        (333, 333, 333),
        (666, 666, 666),
    ]
    assert sum(1 for _ in next(huge.batches(1000))) == 1000
    part = every_chunk((640, 640, 640), (64, 64, 64)).part(2, 7)
    assert len(pickle.dumps(part)) < 2500


def test_split_is_even_where_the_first_axis_has_one_chunk():
    parts = every_chunk((1, 3, 1000), (1, 1, 1)).split(4)
    assert [len(part) for part in parts] == [750] * 4


def test_tasks_of_a_plan_are_made_lazily():
    points = np.arange(10**5)
    lazy = plan(select((points, points), (10**5, 10**5)), (1, 1))
    tracked = sys.getallocatedblocks()
    next(iter(lazy))
    assert sys.getallocatedblocks() - tracked < 10**4
    assert prod(map(len, lazy.split(2))) == 25 * 10**8
