"""Expressions computed: equal to Awkward over random trees, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from support import require

from dosna.errors import QueryError, QueryTypeError, UnknownNameError
from dosna.query.expressions import (
    Lists,
    Masked,
    bind,
    bind_condition,
    bind_projection,
    evaluate,
    evaluate_mask,
    parse,
    parse_projection,
    running,
)
from dosna.query.expressions.nodes import Call, Column, Compare, In, Literal, Logical

ak = require("awkward")

from random_expressions import (  # noqa: E402
    FLOATS,
    INTS,
    SPECIAL,
    by_awkward,
    columns,
    conditions,
    numeric,
)


def forms(arrays):
    return {name: array.layout.form for name, array in arrays.items()}


def bound_or_not(expr, arrays):
    """Bind, and leave out what is refused: arithmetic of truth values, lists that are none."""
    try:
        return bind(expr, forms(arrays))
    except QueryError:
        assume(False)


def agree(expr, tree):
    length, arrays = tree
    # Awkward's functions take no scalars.
    assume(all(c.arguments[0].columns for c in expr.walk() if isinstance(c, Call)))
    bound = bound_or_not(expr, arrays)
    assert parse(str(expr)) == expr
    try:
        with np.errstate(all="ignore"):
            expected = by_awkward(expr, arrays)
    except (OverflowError, ZeroDivisionError):
        assume(False)
    except ValueError:  # lists of other lengths
        with pytest.raises(QueryError):
            evaluate(expr, arrays, length)
        assume(False)
    # For a condition without lists, Awkward's `where` joins numbers and lists in a union.
    assume(not isinstance(expected, ak.Array) or "union" not in str(expected.type))
    found = evaluate(expr, arrays, length)
    if not isinstance(expected, ak.Array):
        expected = ak.Array(np.full(length, expected))
    typed = ak.Array(found)
    assert len(typed) == length
    same(typed.to_list(), expected.to_list())
    assert str(typed.type) == str(expected.type), str(expr)
    assert bound.depth == typed.ndim - 1
    assert bound.optional == any(sign in str(typed.type) for sign in ("?", "option"))
    assert str(bound.dtype) in str(typed.type)
    return bound, found


def same(found, expected):
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float) and not isinstance(found, (bool, type(None))):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    else:
        assert found == expected


@given(numeric(), columns())
@settings(max_examples=300)
def test_numbers_are_those_of_awkward(expr, tree):
    agree(expr, tree)


@given(numeric(level=1), columns())
@settings(max_examples=200)
def test_lists_are_those_of_awkward(expr, tree):
    agree(expr, tree)


@pytest.mark.slow
@given(conditions(), columns())
@settings(max_examples=300)
def test_conditions_are_those_of_awkward(expr, tree):
    bound, found = agree(expr, tree)
    assert bound.is_condition
    mask = evaluate_mask(expr, tree[1], tree[0])
    assert mask.dtype == bool
    assert mask.tolist() == [value is True for value in ak.Array(found).to_list()]


@given(conditions(), columns())
@settings(max_examples=60)
def test_blocks_are_as_the_whole(expr, tree):
    length, arrays = tree
    bound_or_not(expr, arrays)
    try:
        whole = evaluate_mask(expr, arrays, length)
    except QueryError:
        assume(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "BLOCK", 2)
        assert evaluate_mask(expr, arrays, length).tolist() == whole.tolist()


def test_columns_are_not_overwritten():
    flags = np.array([True, False, True])
    columns_of = {"a": flags, "b": ~flags, "x": np.array([1, 2, 3])}
    for text in (
        "a && b",
        "a && x > 1 && b",
        "a || b || x > 1",
        "where(a, a, b) && b",
        "fill(a, true) && b",
    ):
        evaluate(parse(text), columns_of, 3)
        assert flags.tolist() == [True, False, True]


def test_lists_of_many_and_of_few_that_hold():
    offsets = np.array([0, 0, 300, 301, 301, 1000, 1000])
    for few in (1, 40, 500):
        content = np.zeros(1000)
        content[::few] = 1
        lists = ak.Array(
            ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(content))
        )
        for text, function in {"any": ak.any, "all": ak.all, "sum": ak.sum}.items():
            found = evaluate(parse(f"{text}(x > 0)"), {"x": lists}, 6)
            assert found.tolist() == function(lists > 0, axis=-1).to_list()


def test_any_and_all_of_more_lists_than_are_summed_at_a_time():
    random = np.random.default_rng(1)
    counts = random.integers(0, 4, 150_000)
    lists = ak.unflatten(random.integers(0, 3, counts.sum()), counts)
    for part in (lists, lists[70_001:]):
        for text, function in {"any": ak.any, "all": ak.all}.items():
            found = evaluate(parse(f"{text}(x > 0)"), {"x": part}, len(part))
            np.testing.assert_array_equal(found, ak.to_numpy(function(part > 0, axis=-1)))


MANY = [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, 2**64 - 1, 255, 256, 7, 9, 11, 13, 15, 17, 19, 21]


@pytest.mark.parametrize("dtype", [*INTS, *FLOATS])
@pytest.mark.parametrize("values", [MANY, [*MANY, 0.1, -0.0, np.nan, np.inf, 2.0**53]])
def test_many_values_are_looked_up(dtype, values):
    array = np.array([*SPECIAL[dtype], 7, 8], dtype)
    many = In(Column("x"), tuple(map(Literal, values)))
    each = Logical("||", tuple(Compare((Column("x"), Literal(v)), ("==",)) for v in values))
    found = evaluate(many, {"x": array}, len(array))
    assert found.tolist() == evaluate(each, {"x": array}, len(array)).tolist()
    lists = {"x": Lists(np.array([0, len(array), len(array)]), array)}
    assert evaluate(many, lists, 2).to_list() == evaluate(each, lists, 2).to_list()


REFUSED = {
    "sqrt(text)": "string",
    "x[n > 1]": "where",
    "any(n)": "lists",
    "n[0]": "lists",
    "~x": "not defined",
    'text < "a"': "==",
    "text == 5": "string",
    "(n > 1) + (n > 2)": "'or' in NumPy",
    "-(n > 1)": "bool",
    "count(x > 1)": "sum",
    "record + 1": "not defined",
    "fill(n, x)": "literal",
    "where(n, 1, 2)": "condition",
    "any(text)": "lists",
    "fixed[3]": "no element",
    "text && n": "string",
    "x[n]": "condition",
    "max(texts)": "numbers",
}
COLUMNS = {
    "n": ak.Array([1, 2]),
    "x": ak.Array([[1.0], []]),
    "text": ak.Array(["a", "b"]),
    "texts": ak.Array([["a"], []]),
    "record": ak.Array([{"a": 1, "b": [1]}] * 2),
    "fixed": ak.Array(np.ones((2, 3))),
    "small": ak.Array(np.array([1, 2], np.uint8)),
}


@pytest.mark.parametrize("text", REFUSED)
def test_operations_that_are_refused(text):
    with pytest.raises(QueryTypeError, match=REFUSED[text]) as caught:
        bind(parse(text), forms(COLUMNS))
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("text", ["10 ** 18", "3 ** 40", "2 ** 63", "(-2) ** 63", "1 ** 99"])
def test_powers_of_integers_have_up_to_64_bits(text):
    assert evaluate(parse(text), {}, 1).tolist() == [eval(text)]


@pytest.mark.parametrize("text", ["small + 300", "2 ** 100", "1 / 0", "2 ** -1", "int64(nan)"])
def test_numbers_that_are_refused(text):
    with pytest.raises(QueryError):
        bind(parse(text), forms(COLUMNS))


@pytest.mark.parametrize(
    ("text", "noun"), [("x > 1", "any"), ("n", "!= 0"), ("text", "true or false")]
)
def test_what_is_no_condition(text, noun):
    with pytest.raises(QueryTypeError, match=noun):
        bind_condition(parse(text), forms(COLUMNS))
    with pytest.raises(QueryTypeError):
        evaluate_mask(parse(text), COLUMNS, 2)


@pytest.mark.parametrize("name", ["Muon_Pt", "Muonpt", "muon_pt"])
def test_nearest_columns_are_told(name):
    with pytest.raises(UnknownNameError, match="'Muon_pt'"):
        bind(parse(f"{name} > 5"), {"Muon_pt": "float32", "MET_pt": "float32"})


def test_lists_of_other_lengths_are_refused():
    arrays = {"x": ak.Array([[1], [2]]), "y": ak.Array([[1], [2, 3]])}
    with pytest.raises(QueryError, match="1 and 2 elements"):
        evaluate(parse("x + y"), arrays, 2)


WRITTEN_DOWN = {
    "small * 200": [200, 144],
    "small / 0 == inf": [True, True],
    "small // 0": [0, 0],
    "small < 300 && small > -1": [True, True],
    "n == 1.0 || text == 'b'": [True, True],
    "texts == 'a'": [[True], []],
    "count(texts)": [1, 0],
    "record.a + 1": [2, 2],
    "record.b[0]": [1, 1],
    "fixed[1] + n": [2.0, 3.0],
    "fixed * n": [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]],
    "fixed[fixed > n]": [[], []],
    "sum(fixed)": [3.0, 3.0],
    "x[0]": [1.0, None],
    "x[-1] > 0": [True, None],
    "ismissing(x[0])": [False, True],
    "max(x)": [1.0, None],
    "min(n, 1.5)": [1.0, 1.5],
    "5": [5, 5],
    "'a'": ["a", "a"],
    "text": ["a", "b"],
    "where(n > 1, x[0], 7)": [7.0, None],
    "int64(small) * 200": [200, 400],
    "abs(deltaphi(3.1, -3.1)) < 0.1": [True, True],
    "deltar(0, n, 0, n) == 0": [True, True],
}


@pytest.mark.parametrize("text", WRITTEN_DOWN)
def test_what_is_written_down(text):
    found = ak.Array(evaluate(parse(text), COLUMNS, 2))
    assert found.to_list() == WRITTEN_DOWN[text]
    bind(parse(text), forms(COLUMNS))


def test_awkward_differs_for_integers_beyond_the_dtype():
    # NumPy says that no uint8 is above 300, and Awkward raises.
    with pytest.raises(OverflowError):
        COLUMNS["small"] > 300  # noqa: B015
    assert evaluate(parse("small > 300"), COLUMNS, 2).tolist() == [False, False]


def test_projection_is_bound():
    outputs = parse_projection(["n", "t*", "m = n * 2", "n*small"])
    bound = bind_projection(outputs, forms(COLUMNS))
    assert [one.name for one in bound] == ["n", "text", "texts", "m", "n * small"]
    for wrong in ("none", "q*", "n = 5, n"):
        with pytest.raises(QueryError):
            bind_projection(parse_projection(wrong), forms(COLUMNS))
    with pytest.raises(QueryError, match="two columns"):
        bind_projection(parse_projection(["text = n", "t*"]), forms(COLUMNS))


def test_columns_in_all_forms():
    offsets, content = np.array([0, 2, 2]), np.array([1.0, 2.0])
    for column in (Lists(offsets, content), ak.Array([[1.0, 2.0], []])):
        assert evaluate(parse("sum(x)"), {"x": column}, 2).tolist() == [3.0, 0.0]
    masked = Masked(np.array([1, 2]), np.array([True, False]))
    assert evaluate(parse("x + 1"), {"x": masked}, 2).to_list() == [2, None]
    behind = ak.Array([[0.0], [1.0, 2.0], []])[1:]
    assert evaluate(parse("sum(x)"), {"x": behind}, 2).tolist() == [3.0, 0.0]
    for form in ("float32", np.dtype("f4"), np.dtype(("f4", (3,))), COLUMNS["x"].layout.form):
        assert bind(parse("x"), {"x": form}).dtype.kind == "f"


@pytest.mark.parametrize("dtype", ["i1", "u8", "i8", "f2"])
@pytest.mark.parametrize("literal", [-1, 200, 2**63 - 1, 2**63, 2**64 - 1])
def test_literals_beyond_the_dtype_of_nested_lists(dtype, literal):
    values = np.array([1, 100, 0, 127], dtype)
    lists = ak.unflatten(values, [1, 2, 1])
    arrays = {
        "optional": ak.mask(lists, [[True], [False, True], [True]]),
        "nested": ak.unflatten(lists, [2, 1]),
    }
    for op, function in {"<": np.less, "==": np.equal, ">=": np.greater_equal}.items():
        with np.errstate(over="ignore"):
            expected = function(values, literal)
        found = evaluate(parse(f"nested {op} {literal}"), arrays, 2)
        assert ak.flatten(found, axis=None).to_list() == expected.tolist()
        found = evaluate(parse(f"optional {op} {literal}"), arrays, 3)
        assert ak.flatten(found).to_list() == [expected[0], None, *expected[2:]]
