"""Awkward arrays in the form in which Arrow takes them."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from dosna.core.casting import times_for_arrow

__all__ = ["for_arrow"]


def for_arrow(array: Any) -> Any:
    """Return an array that `awkward.to_arrow` and `awkward.to_arrow_table` take.

    They fail for lists, strings and lists of fixed size that are all missing. Such have an element
    here, which nothing refers to. Of dates and time spans they take no factor of the unit, and
    NaT for a number; those are optional here, and NaT is missing, as it is for pyarrow.

    Parameters
    ----------
    array : awkward.Array
        The array.

    Returns
    -------
    awkward.Array
        An array of the same values; its type differs at most for dates and time spans.
    """
    return ak.transform(_taken, array, numpy_to_regular=True)


def _taken(layout: Any, **_: Any) -> Any:
    if layout.is_numpy and layout.dtype.kind in "mM":
        times = times_for_arrow(layout.data)
        missing = ak.index.Index8(np.isnat(times).view(np.int8))
        content = ak.contents.NumpyArray(times, parameters=layout.parameters)
        return ak.contents.ByteMaskedArray.simplified(missing, content, valid_when=False)
    if not (layout.is_option and layout.is_indexed) or layout.content.length:
        return None
    if not layout.length or layout.content.is_unknown:
        return None
    # In which optional fields are missing, and may be such lists themselves.
    content = for_arrow(layout.content.form.length_one_array(highlevel=False)).layout
    return ak.contents.IndexedOptionArray.simplified(
        layout.index, content, parameters=layout.parameters
    )
