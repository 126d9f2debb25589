"""Forms of branches that take arrays of several forms."""

from __future__ import annotations

from typing import Any

import awkward as ak

from dosna.columns.layout import fixed_numbers, text_of
from dosna.errors import FormatError

__all__ = ["grows", "widened"]


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
    if text_of(form) == text_of(other):
        fixed = fixed_numbers(form), fixed_numbers(other)
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
