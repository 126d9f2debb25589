"""Expressions computed: equal to Awkward over random trees, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from support import require

from dosna.errors import QueryError
from dosna.query.expressions import bind, evaluate, evaluate_mask, parse
from dosna.query.expressions.nodes import Call

ak = require("awkward")

from trees import by_awkward, columns, conditions, numeric  # noqa: E402


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


@given(conditions(), columns())
@settings(max_examples=300)
def test_conditions_are_those_of_awkward(expr, tree):
    bound, found = agree(expr, tree)
    assert bound.is_condition
    mask = evaluate_mask(expr, tree[1], tree[0])
    assert mask.dtype == bool
    assert mask.tolist() == [value is True for value in ak.Array(found).to_list()]
