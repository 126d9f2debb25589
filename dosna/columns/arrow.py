"""Awkward arrays in the form in which Arrow takes them."""

from __future__ import annotations

from typing import Any

import awkward as ak

from dosna.core.casting import times_for_arrow

__all__ = ["for_arrow"]


def for_arrow(array: Any) -> Any:
    """Return an array that `awkward.to_arrow` and `awkward.to_arrow_table` take.

    They fail for lists, strings and lists of fixed size that are all missing. Such have an element
    here, which nothing refers to. Of dates and time spans they take no factor of the unit.

    Parameters
    ----------
    array : awkward.Array
        The array.

    Returns
    -------
    awkward.Array
        An array of the same values; its type differs at most in the units of dates.
    """
    return ak.transform(_taken, array)


def _taken(layout: Any, **_: Any) -> Any:
    if layout.is_numpy and layout.dtype.kind in "mM":
        return ak.contents.NumpyArray(times_for_arrow(layout.data), parameters=layout.parameters)
    if not (layout.is_option and layout.is_indexed) or layout.content.length:
        return None
    if not layout.length or layout.content.is_unknown:
        return None
    content = layout.content.form.length_one_array(highlevel=False)
    return ak.contents.IndexedOptionArray(layout.index, content, parameters=layout.parameters)
