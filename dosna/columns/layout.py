"""The datasets of a branch, by its awkward form.

`dosna.columns.splitting` and `dosna.columns.joining` convert elements, without I/O.

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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np

from dosna.columns.description import escape
from dosna.core.types import Shape
from dosna.errors import RefusedError

__all__ = [
    "OFFSETS",
    "Column",
    "below",
    "columns",
    "counted_contents",
    "fields_of",
    "fixed_numbers",
    "form_of",
    "plain_form",
    "text_of",
]

OFFSETS = np.dtype(np.int64)


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
    fixed = fixed_numbers(form)
    if fixed is not None:
        yield Column(path, fixed[0], fixed[1], counted_by, factor)
    elif form.is_list and not form.is_regular:
        offsets = below(path, "offsets")
        yield from _columns(form.content, below(path, "content"), offsets, 1)
        yield Column(offsets, OFFSETS, (), counted_by, factor, True)
    elif form.is_regular:
        yield from _columns(form.content, below(path, "content"), counted_by, factor * form.size)
    elif form.is_record:
        for name, content in fields_of(form):
            yield from _columns(content, below(path, name), counted_by, factor)
    elif form.is_option:
        yield from _columns(as_list(form.content), path, counted_by, factor)
    elif form.is_union:
        for number, content in enumerate(form.contents):
            yield from _columns(as_list(content), below(path, str(number)), counted_by, factor)
    elif not form.is_unknown:
        raise RefusedError(f"awkward's {type(form).__name__} cannot be kept in datasets")


def counted_contents(form: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of each offsets column of a branch, and the form of what it counts."""
    if fixed_numbers(form) is not None or form.is_unknown:
        return
    if form.is_record:
        for name, content in fields_of(form):
            yield from counted_contents(content, below(path, name))
    elif form.is_union:
        for number, content in enumerate(form.contents):
            yield from counted_contents(as_list(content), below(path, str(number)))
    else:
        if not form.is_regular:
            yield below(path, "offsets"), form.content
        yield from counted_contents(form.content, below(path, "content"))


def as_list(content: Any) -> Any:
    return ak.forms.ListOffsetForm("i64", content)


def fields_of(form: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of each field of a record or a tuple, and its form."""
    names = [str(i) if form.is_tuple else escape(f) for i, f in enumerate(form.fields)]
    yield from zip(names, form.contents, strict=True)


def fixed_numbers(form: Any) -> tuple[np.dtype[Any], Shape] | None:
    """Return dtype and extents of numbers, alone or in lists of fixed sizes; None for others."""
    inner: list[int] = []
    while form.is_regular and not form.is_numpy:
        inner.append(form.size)
        form = form.content
    if not form.is_numpy:
        return None
    dtype = np.dtype(form.primitive)
    return dtype.newbyteorder("="), (*inner, *form.inner_shape)


def below(path: str, name: str) -> str:
    """Return the path of something in a branch, or in the branch itself for an empty path."""
    return f"{path}/{name}" if path else name


def text_of(form: Any) -> str | None:
    """Return ``string`` or ``bytestring`` for texts and bytes; None for lists of numbers."""
    kind = form.parameter("__array__")
    return str(kind) if kind in ("string", "bytestring") else None
