"""Places of true elements and other indices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosna.core.indices import true_places


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=12))
def test_places_are_those_of_numpy(runs):
    mask = np.repeat([value for value, _ in runs], [count for _, count in runs]).astype(bool)
    found, expected = true_places(mask), np.flatnonzero(mask)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("step", [1, 2, 11, 15, 50])
def test_places_of_few_and_many(step):
    mask = np.zeros(1000, bool)
    mask[::step] = True
    np.testing.assert_array_equal(true_places(mask), np.arange(0, 1000, step))
