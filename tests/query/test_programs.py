"""Predicates for stores, and what is sent to an object class, without a store."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosna.query import programs, remote
from dosna.query.ceph_class import protocol
from dosna.query.expressions import evaluate_mask, parse

DTYPES = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
OPERATORS = {
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
EDGES = [0, 1, -1, 2, 127, 128, 255, 256, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30]
CONSTANTS = [
    *EDGES,
    *(0.0, -0.0, 0.1, 0.5, -0.5, 2.0, 2.5, 254.5, 1e300, -1e300),
    *(math.nan, math.inf, -math.inf, True, False),
]


def edges(dtype):
    """Give values of a dtype beside the constants."""
    if dtype.kind == "b":
        return np.array([True, False])
    if dtype.kind == "f":
        some = np.array([c for c in CONSTANTS if type(c) is float], dtype)
        return np.concatenate([some, np.nextafter(some, dtype.type(math.inf))])
    limits = np.iinfo(dtype)
    inside = {limits.min, limits.max, limits.max - 1}
    inside |= {n for edge in EDGES for n in (edge - 1, edge) if limits.min <= n <= limits.max}
    return np.array(sorted(inside), dtype)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [*map(np.dtype, DTYPES)], ids=str)
def test_a_comparison_is_numpys(dtype):
    values, made = edges(dtype), 0
    for operator, function in OPERATORS.items():
        for constant in CONSTANTS:
            program = programs.comparison(dtype, operator, constant)
            if program is not None:
                expected = function(values, constant)
                assert program.evaluate(values).tolist() == expected.tolist(), (operator, constant)
                made += 1
    assert made > 100


def test_what_a_store_cannot_compare_exactly_is_no_program():
    # NumPy rounds the column, or raises an error.
    assert programs.comparison(np.dtype("i8"), "<", 0.5) is None
    assert programs.comparison(np.dtype("f8"), "<", 2**53 + 1) is None
    assert programs.comparison(np.dtype("i4"), "<", 1, absolute=True) is None
    assert programs.comparison(np.dtype("c8"), "==", 1) is None
    assert programs.comparison(np.dtype("i4"), "==", "1") is None
    assert programs.comparison(np.dtype("f4"), "<", np.float64(1)) is None


def test_programs_are_combined():
    dtype = np.dtype("f4")
    values = np.array([-3, -1, 0, 1, 3, np.nan], dtype)
    low, high = programs.comparison(dtype, ">", -2), programs.comparison(dtype, "<", 2)
    assert low.both(high).evaluate(values).tolist() == [False, True, True, True, False, False]
    assert low.either(high).evaluate(values).tolist() == [True] * 5 + [False]
    assert low.negated().evaluate(values).tolist() == [True, False, False, False, False, True]
    far = programs.comparison(dtype, ">=", 3, absolute=True)
    assert far.evaluate(values).tolist() == [True, False, False, False, True, False]


COMPUTED = [
    "x > 0.1",
    "0.1 < x",
    "x == 2",
    "!(x >= 1)",
    "-1 < x <= 2.5",
    "abs(x) < 1.5",
    "3 > abs(x)",
    "x > 1 || x < -1 || x == 0",
    "x > -inf && x != nan",
    "x in (1, 2.5, -1)",
    "x in (0.1, 3, 0.3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)",
    "x == true",
    "!(x < 1 || !(x < 2)) && x > -(0.5)",
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [*map(np.dtype, DTYPES)], ids=str)
@pytest.mark.parametrize("text", COMPUTED)
def test_a_condition_means_the_same_as_here(text, dtype):
    values = edges(dtype)
    program = programs.program_of(parse(text), "x", dtype)
    if program is None:
        assert dtype.itemsize == 8 or "abs" in text
        return
    expected = evaluate_mask(parse(text), {"x": values}, len(values))
    assert program.evaluate(values).tolist() == expected.tolist()
    assert program.dtype == dtype


def test_bool_is_a_condition():
    program = programs.program_of(parse("!x"), "x", np.dtype(bool))
    assert program.evaluate(np.array([True, False])).tolist() == [False, True]
    assert programs.program_of(parse("x"), "x", np.dtype("u1")) is None


@pytest.mark.parametrize(
    "text",
    ["x + 1 > 2", "sqrt(x) > 2", "x > y", "x > x", "y > 1", "1 < 2", "x == 'a'", "any(x > 1)"],
)
def test_other_conditions_are_no_program(text):
    assert programs.program_of(parse(text), "x", np.dtype("f4")) is None


def test_a_program_has_limits():
    one = programs.comparison(np.dtype("u1"), "==", 1)
    chain, deep = one, one
    for _ in range(31):
        chain = chain.either(one)
    assert chain is not None
    assert chain.negated() is not None  # 64 steps
    assert chain.either(one) is None
    for _ in range(7):
        deep = one.both(deep)
    assert one.both(deep) is None


@given(st.integers(0, 300_000), st.floats(0, 1), st.integers(0, 2**32))
def test_sets_of_rows_come_back(count, share, seed):
    rows = np.flatnonzero(np.random.default_rng(seed).random(count) < share**8)
    packed = protocol.pack_rows(rows, count)
    assert len(packed) <= protocol.rows_size(count)
    again, length = protocol.unpack_rows(packed + b"values", count)
    assert length == len(packed)
    assert np.array_equal(again, rows)


@given(st.binary(max_size=64), st.integers(0, 200))
def test_broken_sets_of_rows_are_errors(answer, count):
    try:
        rows, length = protocol.unpack_rows(answer, count)
    except ValueError:
        return
    assert len(rows) <= count
    assert set(rows.tolist()) <= set(range(count))
    assert length <= len(answer)


def test_rows_that_are_far_apart_are_read():
    gaps = np.array([65535, 65535, 0, 65535, 10], "<u2").tobytes()
    answer = bytes([1, 0, 0, 0, 0, 0, 0, 0]) + (2).to_bytes(8, "little") + gaps
    rows, length = protocol.unpack_rows(answer, 300_000)
    assert rows.tolist() == [131070, 196615]
    assert length == len(answer)
    assert protocol.pack_rows(rows, 300_000) == answer


def test_statistics_are_those_of_values_but_nan():
    values = np.array([3, np.nan, -1, np.nan, np.nan, 7], "f4")
    least, largest, nans = remote.statistics(values, 2)
    assert nans.tolist() == [1, 1, 1]
    assert least.tolist() == [3, -1, 7]
    assert largest.tolist() == [3, -1, 7]
    assert np.isnan(remote.statistics(values[3:5], 9)[0]).all()


def test_a_class_that_cannot_be_built_is_an_error(tmp_path):
    command = [sys.executable, "-m", "dosna.query.ceph_class", "build", "--to", str(tmp_path)]
    for compiler in ("false", str(tmp_path / "none")):
        done = subprocess.run([*command, "--compiler", compiler], capture_output=True, text=True)
        assert done.returncode == 1
        assert "rados-objclass-dev" in done.stderr
    assert list(tmp_path.iterdir()) == []
