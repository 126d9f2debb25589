"""The datasets of a branch, by its awkward form. Both ways of the conversion, without I/O.

==========================  ===============================================================
form                        datasets, by their paths in the branch
==========================  ===============================================================
numbers, also of fixed      one, with a row for each element and an axis for each fixed
size                        extent; it is the branch itself if there is nothing else
list, string                ``offsets`` (int64, one row more than there are lists), and the
                            datasets for the form of the elements, in ``content``
option                      as a list of at most one element
list of fixed size, of      the datasets for the form of the elements, in ``content``
anything but numbers
record, tuple               for each field the datasets for its form, by its name
union                       for each alternative the same as for an option, by its number
==========================  ===============================================================

Offsets count from the beginning of the tree. Strings are lists of UTF-8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import awkward as ak
import numpy as np

from dosna.columns.description import escape
from dosna.core.types import Array, Shape
from dosna.errors import FormatError, RefusedError

__all__ = [
    "OFFSETS",
    "Column",
    "columns",
    "compose",
    "counted_contents",
    "decompose",
    "form_of",
    "grows",
    "plain_form",
    "widened",
]

OFFSETS = np.dtype(np.int64)

Read = Callable[[str, int, int], Array]
"""A function that returns rows ``start`` to ``stop`` of a column, by its path."""


@dataclass(frozen=True)
class Column:
    """A dataset of a branch.

    Parameters
    ----------
    path : str
        The path of the dataset in the branch; empty for the branch itself.
    dtype : numpy.dtype
        The dtype, in the machine's byte order.
    inner : tuple of int
        The extents of the axes after the first.
    counted_by : str or None
        The path of the offsets whose last one counts the rows; None if the entries of the tree
        count them.
    factor : int
        The number of rows for each one that is counted.
    is_offsets : bool
        Whether the column holds offsets, and so has one row more.
    """

    path: str
    dtype: np.dtype[Any]
    inner: Shape = ()
    counted_by: str | None = None
    factor: int = 1
    is_offsets: bool = False

    def rows(self, count: int) -> int:
        """Return the number of rows for a count of entries, or of what `counted_by` counts."""
        return count * self.factor + self.is_offsets


def plain_form(form: Any) -> dict[str, Any] | str:
    """Return the JSON of an awkward form as it is kept: without the keys of its nodes."""
    plain: dict[str, Any] | str = _without_keys(form.to_dict(verbose=False))
    return plain


def _without_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_keys(v) for k, v in value.items() if k != "form_key"}
    if isinstance(value, (list, tuple)):
        return [_without_keys(v) for v in value]
    return value


def form_of(plain: Mapping[str, Any] | str) -> Any:
    """Return the awkward form of JSON that `plain_form` returned."""
    return ak.forms.from_dict(plain)


def columns(form: Any) -> tuple[Column, ...]:
    """Return the columns of a branch.

    Parameters
    ----------
    form : awkward.forms.Form
        The form of the branch.

    Returns
    -------
    tuple of Column
        The columns. A column comes before the offsets that count it.

    Raises
    ------
    RefusedError
        If the form has no layout. The message says why.
    """
    return tuple(_columns(form, "", None, 1))


def _columns(form: Any, path: str, counted_by: str | None, factor: int) -> Iterator[Column]:
    fixed = _fixed(form)
    if fixed is not None:
        yield Column(path, fixed[0], fixed[1], counted_by, factor)
    elif form.is_list and not form.is_regular:
        offsets = _below(path, "offsets")
        yield from _columns(form.content, _below(path, "content"), offsets, 1)
        yield Column(offsets, OFFSETS, (), counted_by, factor, True)
    elif form.is_regular:
        yield from _columns(form.content, _below(path, "content"), counted_by, factor * form.size)
    elif form.is_record:
        for name, content in _fields(form):
            yield from _columns(content, _below(path, name), counted_by, factor)
    elif form.is_option:
        yield from _columns(_as_list(form.content), path, counted_by, factor)
    elif form.is_union:
        for number, content in enumerate(form.contents):
            yield from _columns(_as_list(content), _below(path, str(number)), counted_by, factor)
    elif not form.is_unknown:
        raise RefusedError(f"there is no layout for awkward's {type(form).__name__}")


def counted_contents(form: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of each offsets column of a branch, and the form of what it counts."""
    if _fixed(form) is not None or form.is_unknown:
        return
    if form.is_record:
        for name, content in _fields(form):
            yield from counted_contents(content, _below(path, name))
    elif form.is_union:
        for number, content in enumerate(form.contents):
            yield from counted_contents(_as_list(content), _below(path, str(number)))
    else:
        if not form.is_regular:
            yield _below(path, "offsets"), form.content
        yield from counted_contents(form.content, _below(path, "content"))


def _as_list(content: Any) -> Any:
    return ak.forms.ListOffsetForm("i64", content)


def _fields(form: Any) -> Iterator[tuple[str, Any]]:
    names = [str(i) if form.is_tuple else escape(f) for i, f in enumerate(form.fields)]
    yield from zip(names, form.contents, strict=True)


def _fixed(form: Any) -> tuple[np.dtype[Any], Shape] | None:
    """Return dtype and extents of numbers, alone or in lists of fixed sizes; None for others."""
    inner: list[int] = []
    while form.is_regular and not form.is_numpy:
        inner.append(form.size)
        form = form.content
    if not form.is_numpy:
        return None
    dtype = np.dtype(form.primitive)
    return dtype.newbyteorder("="), (*inner, *form.inner_shape)


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


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
    fixed = _fixed(form)
    if layout.is_option and not form.is_option and not layout.mask_as_bool(valid_when=False).any():
        layout = _projected(layout.project())
    if layout.is_unknown and not form.is_unknown:
        layout = form.length_zero_array(highlevel=False) if layout.length == 0 else layout
    if form.is_list and _text_of(layout) != _text_of(form):
        pass  # The same bytes, but another type.
    elif fixed is not None:
        if layout.is_list or layout.is_numpy:
            if _text_of(layout):
                layout = ak.without_parameters(layout, highlevel=False)
            found = layout.to_backend_array(allow_missing=False)
            if found.shape[1:] == fixed[1] and np.can_cast(found.dtype, fixed[0], "equiv"):
                out[path] = np.ascontiguousarray(found, fixed[0])
                return
    elif form.is_list and not form.is_regular and layout.is_list:
        lists = layout.to_ListOffsetArray64(True)
        counted = np.asarray(lists.offsets.data)
        out[_below(path, "offsets")] = counted
        content = lists.content[: counted[-1]]
        _decompose(content, int(counted[-1]), form.content, _below(path, "content"), out)
        return
    elif form.is_regular and layout.is_list:
        lists = layout.to_RegularArray()
        if lists.size == form.size:
            count = lists.size * lists.length
            _decompose(lists.content[:count], count, form.content, _below(path, "content"), out)
            return
    elif form.is_record and layout.is_record and layout.is_tuple == form.is_tuple:
        if layout.fields == form.fields:
            for number, (name, content) in enumerate(_fields(form)):
                part = layout.contents[number][: layout.length]
                _decompose(part, length, content, _below(path, name), out)
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
            inner = _below(path, str(number))
            _chosen(tags == number, length, part, content, inner, out)
        return
    elif form.is_unknown and layout.length == 0:
        return
    raise FormatError(
        f"an array of {layout.form.type} was given where a branch has {form.type}"
        + (f" at {path!r}" if path else "")
    )


def widened(form: Any, other: Any) -> Any:
    """Return the form of a branch that takes arrays of two forms.

    Where one of them has no type, because it has no elements, the result has the type of the
    other. Where one is an option, the result is an option. `form` itself is returned if it
    already takes arrays of the other form.

    Raises
    ------
    FormatError
        If there is no such form.
    """
    if other.is_unknown:
        return form
    if form.is_unknown:
        return other
    if form.is_option or other.is_option:
        content = widened(
            form.content if form.is_option else form, other.content if other.is_option else other
        )
        if form.is_option:
            return form.copy(content=content)
        return ak.forms.IndexedOptionForm("i64", content, parameters=other.parameters)
    if form.is_indexed or other.is_indexed:
        return widened(
            form.content if form.is_indexed else form, other.content if other.is_indexed else other
        )
    if _text_of(form) == _text_of(other):
        fixed = _fixed(form), _fixed(other)
        if fixed[0] is not None and fixed[0] == fixed[1]:
            return form
        if form.is_list and other.is_list and _size_of(form) == _size_of(other):
            return form.copy(content=widened(form.content, other.content))
        alike = form.is_record and other.is_record and form.is_tuple == other.is_tuple
        if alike and form.fields == other.fields:
            return form.copy(contents=_each_widened(form, other))
        if form.is_union and other.is_union and len(form.contents) == len(other.contents):
            return form.copy(contents=_each_widened(form, other))
    raise FormatError(f"there is no type for both {form.type} and {other.type}")


def grows(form: Any, wide: Any) -> bool:
    """Return True if a wider form differs only where the other has no type.

    The stored data of the branch can stay then: there are only further columns, without rows.
    """
    if form.is_unknown:
        return True
    if form.is_option != wide.is_option:
        return False
    if form.is_record or form.is_union:
        return all(map(grows, form.contents, wide.contents))
    return form.is_numpy or bool(grows(form.content, wide.content))


def _size_of(form: Any) -> int | None:
    return int(form.size) if form.is_regular else None


def _each_widened(form: Any, other: Any) -> list[Any]:
    return [widened(a, b) for a, b in zip(form.contents, other.contents, strict=True)]


def _text_of(form: Any) -> str | None:
    """Return ``string`` or ``bytestring`` for texts and bytes; None for lists of numbers."""
    kind = form.parameter("__array__")
    return str(kind) if kind in ("string", "bytestring") else None


def _projected(layout: Any) -> Any:
    return _projected(layout.project()) if layout.is_indexed and not layout.is_option else layout


def _chosen(
    there: Array | None, length: int, content: Any, form: Any, path: str, out: dict[str, Array]
) -> None:
    """Split an array whose entries are one element or none. `there`: None if all are there."""
    counted = np.zeros(length + 1, OFFSETS)
    counted[1:] = np.arange(1, length + 1) if there is None else np.cumsum(there)
    out[_below(path, "offsets")] = counted
    _decompose(content, int(counted[-1]), form, _below(path, "content"), out)


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
    fixed = _fixed(form)
    if fixed is not None:
        return _numbers(form, read(path, start, stop), stop - start)
    if form.is_list and not form.is_regular:
        counted = _offsets(read, _below(path, "offsets"), start, stop)
        content = _compose(
            form.content, _below(path, "content"), int(counted[0]), int(counted[-1]), read
        )
        index = ak.index.Index64(counted - counted[0])
        return ak.contents.ListOffsetArray(index, content, parameters=parameters)
    if form.is_regular:
        content = _compose(
            form.content, _below(path, "content"), start * form.size, stop * form.size, read
        )
        return ak.contents.RegularArray(
            content, form.size, zeros_length=stop - start, parameters=parameters
        )
    if form.is_record:
        contents = [
            _compose(content, _below(path, name), start, stop, read)
            for name, content in _fields(form)
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
    if counted[0] < 0 or (np.diff(counted) < 0).any():
        raise FormatError(
            f"{path!r} has offsets that go back between {start} and {stop}: the dataset is damaged"
        )
    return counted


def _optional(
    form: Any, path: str, start: int, stop: int, read: Read
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Any]:
    counted = _offsets(read, _below(path, "offsets"), start, stop)
    content = _compose(form, _below(path, "content"), int(counted[0]), int(counted[-1]), read)
    return np.diff(counted) > 0, content


def _union(form: Any, path: str, start: int, stop: int, read: Read) -> Any:
    tags = np.full(stop - start, -1, np.int8)
    index = np.zeros(stop - start, OFFSETS)
    contents = []
    for number, content in enumerate(form.contents):
        there, part = _optional(content, _below(path, str(number)), start, stop, read)
        tags[there] = number
        index[there] = np.arange(prod(there[there].shape))
        contents.append(part)
    if (tags < 0).any():
        raise FormatError(f"{path!r} has an element that is none of the union's alternatives")
    return ak.contents.UnionArray(
        ak.index.Index8(tags), ak.index.Index64(index), contents, parameters=form.parameters
    )
