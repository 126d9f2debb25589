"""What follows from least and greatest values: never more than is true."""

from __future__ import annotations

import random

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from random_expressions import FLOATS, INTS, SPECIAL, columns, conditions
from test_evaluation import bound_or_not

from dosna.errors import QueryError
from dosna.query.expressions import Zone, bind, bounds, evaluate_mask, parse
from dosna.query.expressions.nodes import Column, Compare, In, Literal, Logical


def zone_of(array):
    """Return what is known of a column: a loop over its elements, as plain as can be."""
    lists = array.ndim > 1
    rows = array.to_list()
    values = rows
    while values and any(isinstance(value, list) for value in values):
        values = [value for one in values for value in one]
    nulls = sum(value is None for value in values)
    nans = sum(value != value for value in values)
    real = [value for value in values if value is not None and value == value]
    lengths = [len(row) for row in rows] if lists else []
    return Zone(
        count=len(values),
        min=min(real, default=None),
        max=max(real, default=None),
        nans=nans,
        nulls=nulls,
        min_length=min(lengths, default=0) if lists else None,
        max_length=max(lengths, default=0) if lists else None,
        empty_lists=lengths.count(0),
    )


def holds(expr, tree):
    """Check what follows from zones against the entries, and return it."""
    length, arrays = tree
    bound = bound_or_not(expr, arrays)
    zones = {name: zone_of(arrays[name]) for name in bound.columns}
    try:
        mask = evaluate_mask(expr, arrays, length)
    except QueryError:
        return "some"
    found = bounds(bound, zones)
    if found == "all":
        assert mask.all()
    elif found == "none":
        assert not mask.any()
    return found


@pytest.mark.slow
@given(conditions(), columns())
@settings(max_examples=500)
def test_nothing_is_said_that_is_not_true(expr, tree):
    holds(expr, tree)


ARRAYS = {
    "run": ak.Array(np.arange(100, 200)),
    "big": ak.Array(np.array([2**53 + 1, 2**53 + 2])),
    "huge": ak.Array(np.array([2**63, 2**64 - 1], np.uint64)),
    "met": ak.Array(np.array([5, 10, np.nan], np.float32)),
    "pt": ak.Array(np.array([5, 10], np.float32)),
    "tenth": ak.Array(np.array([0.1, 0.1], np.float32)),
    "zero": ak.Array(np.array([-0.0, 0.0])),
    "infs": ak.Array(np.array([1.0, np.inf])),
    "nans": ak.Array(np.array([np.nan, np.nan])),
    "opt": ak.Array([3, None, 5]),
    "there": ak.Array(np.ma.masked_array([3, 4], [False, False])),
    "flags": ak.Array(np.ma.masked_array([True, True], [False, False])),
    "none": ak.Array(np.ma.masked_array([1, 2], [True, True])),
    "small": ak.Array(np.array([100, 120], np.int8)),
    "flag": ak.Array([True, True]),
    "lists": ak.Array([[1.0, 2.0], [3.0]]),
    "some": ak.Array([[1.0, 2.0], []]),
    "empties": ak.Array([[], []]),
    "deep": ak.Array([[[1], [2]], [[3]]]),
    "text": ak.Array(["b", "d"]),
}
FORMS = {name: array.layout.form for name, array in ARRAYS.items()}
ZONES = {name: zone_of(array) for name, array in ARRAYS.items()}
PROVED = {
    "run >= 100": "all",
    "run >= 101": "some",
    "run > 199": "none",
    "99 < run < 200": "all",
    "150 < run < 160": "some",
    "run == 300 || run in (5, 6)": "none",
    "run in (5, 150)": "some",
    "run - 100 >= 0 && run * 2 < 400": "all",
    "run / 100 >= 1 && run // 100 == 1": "all",
    "-run <= -100": "all",
    "!(run >= 100)": "none",
    "run != 99": "all",
    "big > 9007199254740992": "all",
    "big == 9007199254740992": "none",
    "big > 9007199254740992.0": "some",
    "huge >= 9223372036854775808": "all",
    "huge < 0": "none",
    "met < 20": "some",
    "met > 20": "none",
    "met != 20": "all",
    "isnan(met)": "some",
    "pt < 20": "all",
    "isfinite(pt) && !isnan(pt)": "all",
    "sqrt(pt) > 2 && abs(-pt) >= 5": "all",
    "tenth == 0.1": "all",
    "tenth > 0.1": "none",
    "float64(tenth) > 0.1": "all",
    "zero == 0": "all",
    "zero < 0": "none",
    "1 / zero > 0": "some",
    "infs > 0": "all",
    "isfinite(infs)": "some",
    "infs - infs == 0": "some",
    "nans == nans": "none",
    "nans != 0": "all",
    "isnan(nans)": "all",
    "opt > 0": "some",
    "opt > 5": "none",
    "!(opt > 5)": "some",
    "opt > 5 || run >= 100": "some",
    "ismissing(opt)": "some",
    "fill(opt, 7) > 2": "all",
    "fill(there, 7) > 2": "all",
    "fill(there, 0.5) > 2": "some",
    "~fill(flags, 5) < 0": "some",
    "18446744073709551615 <= fill(flags, 5)": "some",
    "none > 0": "none",
    "none > 0 || run > 0": "none",
    "ismissing(none)": "all",
    "small + small < 0": "some",
    "small >= 100": "all",
    "(small & 1) <= 1": "all",
    "flag": "all",
    "!flag": "none",
    "any(lists > 5)": "none",
    "any(lists > 0)": "all",
    "any(some > 0)": "some",
    "any(empties > 0)": "none",
    "all(lists > 0)": "all",
    "all(empties > 0)": "all",
    "all(lists > 5)": "none",
    "count(lists) >= 1": "all",
    "count(empties) > 0": "none",
    "count(some) == 0": "some",
    "max(lists) > 3": "none",
    "max(lists) >= 1": "all",
    "max(some) >= 1": "some",
    "lists[0] >= 1": "all",
    "lists[1] >= 1": "some",
    "lists[2] >= 1": "none",
    "any(lists[lists > 5] > 0)": "none",
    "any(any(deep > 0))": "some",
    "true": "all",
    "1 > 2": "none",
    'text == "a"': "none",
    'text == "c"': "some",
}


@pytest.mark.parametrize("text", PROVED)
def test_what_is_proved(text):
    assert bounds(bind(parse(text), FORMS), ZONES) == PROVED[text]


@pytest.mark.parametrize("text", ["run > 5", "any(lists > 5)", "run > 5 && pt > 100"])
def test_nothing_is_known_without_zones(text):
    assert bounds(bind(parse(text), FORMS), {}) == "some"


def test_a_column_that_is_known_suffices():
    assert bounds(bind(parse("run > 5 && pt > 100"), FORMS), {"pt": ZONES["pt"]}) == "none"


MANY = tuple(map(Literal, [*range(0, 40, 2), 100, 0.1, 2.0**53, float("nan"), 2**64 - 1]))


@pytest.mark.parametrize("dtype", [*INTS, *FLOATS])
@pytest.mark.parametrize("values", [MANY, MANY[:20], MANY[:21] + MANY[-1:]])
def test_many_values_are_as_a_few(dtype, values):
    rng = random.Random(0)
    pools = [SPECIAL[dtype], [2, 100], [3, 5, 41], [100], [0.1, 50]]
    for _ in range(60):
        array = np.array(rng.choices(rng.choice(pools), k=2), dtype)
        zones = {"x": zone_of(ak.Array(array))}
        each = Logical("||", tuple(Compare((Column("x"), v), ("==",)) for v in values))
        many, few = (bind(e, {"x": dtype}) for e in (In(Column("x"), values), each))
        assert bounds(many, zones) == bounds(few, zones)


@pytest.mark.parametrize("end", [1e3, None, "1000", 2**70])
def test_ends_that_are_not_of_the_dtype_are_not_believed(end):
    zone = Zone(count=3, min=end, max=end)
    assert bounds(bind(parse("run > 5"), {"run": "int64"}), {"run": zone}) == "some"


@pytest.mark.parametrize("dtype", FLOATS)
def test_magnitudes_between_infinities_may_be_any(dtype):
    tree = 5, {"x": ak.Array(np.array([-np.inf, 0.0, 1.0, -2.0, np.inf], dtype))}
    for text in ("abs(x) == 1", "abs(x) > 1.5", "abs(x + 1) == 2", "hypot(x, 0) == 1"):
        assert holds(parse(text), tree) == "some", text
    assert holds(parse("abs(x) < 0"), tree) == "none"


def test_no_entries_are_none():
    zone = Zone(count=0, min=None, max=None)
    assert bounds(bind(parse("run > 5"), {"run": "int64"}), {"run": zone}) == "none"


def test_numbers_that_a_dtype_does_not_hold_raise_no_warning():
    x = {"x": ak.Array(np.array([1, 3e38], np.float32))}
    zones = {"x": zone_of(x["x"])}
    for text, expected in (
        ("x > 1e39", "none"),
        ("x in (1e39, -1e39)", "none"),
        ("x < 1e39", "all"),
    ):
        assert bounds(bind(parse(text), {"x": "float32"}), zones) == expected
