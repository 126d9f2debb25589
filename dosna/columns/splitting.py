"""Awkward arrays, split into the rows of a branch's datasets."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from dosna.columns.layout import OFFSETS, below, fields_of, fixed_numbers, text_of
from dosna.core.types import Array
from dosna.errors import FormatError

__all__ = ["decompose"]


def decompose(array: Any, form: Any) -> dict[str, Array]:
    """Split an array into the rows of the branch's columns.

    Parameters
    ----------
    array : awkward.Array or its layout
        The entries.
    form : awkward.forms.Form
        The form of the branch. The array may hold the same type in another of awkward's forms.

    Returns
    -------
    dict of str to ndarray
        The rows of each column, by its path. Offsets count from the beginning of the array.

    Raises
    ------
    FormatError
        If the array has another type than the form.
    """
    out: dict[str, Array] = {}
    layout = ak.to_layout(array)
    _decompose(layout, layout.length, form, "", out)
    return out


def _decompose(layout: Any, length: int, form: Any, path: str, out: dict[str, Array]) -> None:
    layout = _projected(layout)
    if layout.length != length:
        raise FormatError(f"{path!r} has {layout.length} elements where {length} are counted")
    fixed = fixed_numbers(form)
    if layout.is_option and not form.is_option and not layout.mask_as_bool(valid_when=False).any():
        layout = _projected(layout.project())
    if layout.is_unknown and not form.is_unknown:
        layout = form.length_zero_array(highlevel=False) if layout.length == 0 else layout
    if form.is_list and text_of(layout) != text_of(form):
        pass  # The same bytes, but another type.
    elif fixed is not None:
        if layout.is_list or layout.is_numpy:
            if text_of(layout):
                layout = ak.without_parameters(layout, highlevel=False)
            found = layout.to_backend_array(allow_missing=False)
            if found.shape[1:] == fixed[1] and np.can_cast(found.dtype, fixed[0], "equiv"):
                out[path] = np.ascontiguousarray(found, fixed[0])
                return
    elif form.is_list and not form.is_regular and layout.is_list:
        lists = layout.to_ListOffsetArray64(True)
        counted = np.asarray(lists.offsets.data)
        out[below(path, "offsets")] = counted
        content = lists.content[: counted[-1]]
        _decompose(content, int(counted[-1]), form.content, below(path, "content"), out)
        return
    elif form.is_regular and layout.is_list:
        lists = layout.to_RegularArray()
        if lists.size == form.size:
            count = lists.size * lists.length
            _decompose(lists.content[:count], count, form.content, below(path, "content"), out)
            return
    elif form.is_record and layout.is_record and layout.is_tuple == form.is_tuple:
        if layout.fields == form.fields:
            for number, (name, content) in enumerate(fields_of(form)):
                part = layout.contents[number][: layout.length]
                _decompose(part, length, content, below(path, name), out)
            return
    elif form.is_option:
        there = ~np.asarray(layout.mask_as_bool(valid_when=False)) if layout.is_option else None
        content = layout.project() if there is not None else layout
        _chosen(there, length, content, form.content, path, out)
        return
    elif form.is_union and layout.is_union and len(layout.contents) == len(form.contents):
        tags = np.asarray(layout.tags.data)[: layout.length]
        for number, content in enumerate(form.contents):
            part = layout.project(number)
            inner = below(path, str(number))
            _chosen(tags == number, length, part, content, inner, out)
        return
    elif form.is_unknown and layout.length == 0:
        return
    raise FormatError(
        f"an array of {layout.form.type} was given where a branch has {form.type}"
        + (f" at {path!r}" if path else "")
    )


def _projected(layout: Any) -> Any:
    return _projected(layout.project()) if layout.is_indexed and not layout.is_option else layout


def _chosen(
    there: Array | None, length: int, content: Any, form: Any, path: str, out: dict[str, Array]
) -> None:
    """Split an array whose entries are one element or none. `there`: None if all are there."""
    counted = np.zeros(length + 1, OFFSETS)
    counted[1:] = np.arange(1, length + 1) if there is None else np.cumsum(there)
    out[below(path, "offsets")] = counted
    _decompose(content, int(counted[-1]), form, below(path, "content"), out)
