"""Sizes in bytes, as people write them."""

from __future__ import annotations

import math

import pytest

from dosna.core.sizes import parse_size


@pytest.mark.parametrize(
    ("given", "nbytes"),
    [(7, 7), ("7", 7), ("1.5 KiB", 1536), ("2m", 2 << 20), (" 3GB ", 3 << 30), ("1t", 1 << 40)],
)
def test_sizes(given, nbytes):
    assert parse_size(given) == nbytes


@pytest.mark.parametrize(
    "given", [0, -1, "", "0.4", "-1", "1.2.3", "1e6", "many", "9" * 400, math.inf, math.nan]
)
def test_what_is_no_size_is_refused(given):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(given)
