"""Rows of a branch's datasets, joined into awkward arrays."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import awkward as ak
import numpy as np

from dosna.columns.layout import OFFSETS, below, fields_of, fixed_numbers
from dosna.core.types import Array
from dosna.errors import FormatError

__all__ = ["Read", "check_offsets", "compose"]


Read = Callable[[str, int, int], Array]
"""A function that returns rows ``start`` to ``stop`` of a column, by its path."""


def compose(form: Any, start: int, stop: int, read: Read) -> Any:
    """Join the rows of columns into entries of a branch.

    Parameters
    ----------
    form : awkward.forms.Form
        The form of the branch.
    start, stop : int
        The range of entries.
    read : callable ``(path, start, stop)``
        A function that returns rows of a column as an ndarray.

    Returns
    -------
    awkward.contents.Content

    Raises
    ------
    FormatError
        If the columns are damaged: offsets decrease, or an element has no type.
    """
    return _compose(form, "", start, stop, read)


def _compose(form: Any, path: str, start: int, stop: int, read: Read) -> Any:
    parameters = form.parameters
    fixed = fixed_numbers(form)
    if fixed is not None:
        return _numbers(form, read(path, start, stop), stop - start)
    if form.is_list and not form.is_regular:
        counted = _offsets(read, below(path, "offsets"), start, stop)
        content = _compose(
            form.content, below(path, "content"), int(counted[0]), int(counted[-1]), read
        )
        index = ak.index.Index64(counted - counted[0])
        return ak.contents.ListOffsetArray(index, content, parameters=parameters)
    if form.is_regular:
        content = _compose(
            form.content, below(path, "content"), start * form.size, stop * form.size, read
        )
        return ak.contents.RegularArray(
            content, form.size, zeros_length=stop - start, parameters=parameters
        )
    if form.is_record:
        contents = [
            _compose(content, below(path, name), start, stop, read)
            for name, content in fields_of(form)
        ]
        fields = None if form.is_tuple else form.fields
        return ak.contents.RecordArray(
            contents, fields, length=stop - start, parameters=parameters
        )
    if form.is_option:
        there, content = _optional(form.content, path, start, stop, read)
        index = np.where(there, np.cumsum(there, dtype=OFFSETS) - 1, -1)
        return ak.contents.IndexedOptionArray(
            ak.index.Index64(index), content, parameters=parameters
        )
    if form.is_union:
        return _union(form, path, start, stop, read)
    if start != stop:
        raise FormatError(f"{path!r} has {stop - start} elements of no type")
    return ak.contents.EmptyArray()


def _numbers(form: Any, data: Array, length: int) -> Any:
    """Join numbers into lists of fixed sizes, as the form says."""
    sizes = []
    inner = form
    while inner.is_regular and not inner.is_numpy:
        sizes.append((inner.size, inner.parameters))
        inner = inner.content
    lengths = [length]
    for size, _ in sizes:
        lengths.append(lengths[-1] * size)
    flat = data.reshape((lengths[-1], *inner.inner_shape))
    layout: Any = ak.contents.NumpyArray(flat, parameters=inner.parameters)
    for (size, parameters), count in zip(reversed(sizes), reversed(lengths[:-1]), strict=True):
        layout = ak.contents.RegularArray(layout, size, zeros_length=count, parameters=parameters)
    return layout


def _offsets(read: Read, path: str, start: int, stop: int) -> Array:
    counted = read(path, start, stop + 1)
    check_offsets(counted, path, start)
    return counted


def check_offsets(counted: Array, path: str, start: int) -> None:
    """Raise FormatError if offsets, which were read from the entry `start` on, decrease."""
    if counted[0] < 0 or (counted[1:] < counted[:-1]).any():
        raise FormatError(
            f"{path!r} has decreasing offsets between {start} and {start + len(counted) - 1}: the "
            "dataset is damaged"
        )


def _optional(
    form: Any, path: str, start: int, stop: int, read: Read
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Any]:
    counted = _offsets(read, below(path, "offsets"), start, stop)
    content = _compose(form, below(path, "content"), int(counted[0]), int(counted[-1]), read)
    return np.diff(counted) > 0, content


def _union(form: Any, path: str, start: int, stop: int, read: Read) -> Any:
    tags = np.full(stop - start, -1, np.int8)
    index = np.zeros(stop - start, OFFSETS)
    contents = []
    for number, content in enumerate(form.contents):
        there, part = _optional(content, below(path, str(number)), start, stop, read)
        tags[there] = number
        index[there] = np.arange(prod(there[there].shape))
        contents.append(part)
    if (tags < 0).any():
        raise FormatError(
            f"{path!r} has an element without a type of the union: the dataset is damaged"
        )
    return ak.contents.UnionArray(
        ak.index.Index8(tags), ak.index.Index64(index), contents, parameters=form.parameters
    )
