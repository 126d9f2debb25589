"""Reading of documents of Zarr as JSON, with the checks that all of them have."""

from __future__ import annotations

import json
from typing import Any

from dosna.core.types import Json, Shape
from dosna.errors import FormatError

__all__ = ["DOCUMENT", "OWN", "VERSION_2", "extents", "indented", "parse"]

DOCUMENT = "zarr.json"
"""The name of the object that describes an array or a group."""

VERSION_2 = (".zarray", ".zgroup")
"""The names of the objects that describe arrays and groups of Zarr version 2."""

OWN = "dosna"
"""The field of dosna's own object in the document of an array."""

_quoted = json.encoder.encode_basestring_ascii

_DEEPEST = 100
"""The largest depth to which objects and lists may be nested in a document."""


def parse(data: bytes | memoryview, where: str) -> Json:
    """Read a document.

    Raises
    ------
    FormatError
        The bytes are not JSON of Zarr v3.
    """
    text = bytes(data)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise _too_deep(where) from None
    if not isinstance(document, dict):
        raise FormatError(f"{where} is not a JSON object")
    if text.count(b"{") + text.count(b"[") > _DEEPEST:  # hardly any document has so many
        _check_depth(document, _DEEPEST, where)
    found = document.get("zarr_format")
    if found != 3:
        raise FormatError(f"{where} has zarr_format {found!r}, and dosna reads version 3")
    return document


def _check_depth(value: Any, left: int, where: str) -> None:
    if isinstance(value, (dict, list)):
        if not left:
            raise _too_deep(where)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                _check_depth(inner, left - 1, where)


def _too_deep(where: str) -> FormatError:
    return FormatError(f"{where} has objects that are nested more than {_DEEPEST} deep")


def extents(value: Any, least: int, what: str) -> Shape:
    """Return a list of integers of a document as a tuple, or raise FormatError."""
    if not isinstance(value, list) or any(type(n) is not int or n < least for n in value):
        raise FormatError(f"{what} is {value!r}, and should be integers from {least} on")
    return tuple(value)


def indented(value: Any, start: str = "\n") -> str:
    """Return what ``json.dumps(value, indent=2)`` returns, in a third of its time.

    With an indent, the module json encodes in Python, step by step.

    Parameters
    ----------
    value : JSON value
        The value.
    start : str
        The beginning of the line that `value` ends on.
    """
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int:
        return int.__repr__(value)
    inner = start + "  "
    if value and isinstance(value, dict) and {*map(type, value)} == {str}:
        parts = [f"{_quoted(key)}: {indented(each, inner)}" for key, each in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{start}}}"
    if value and isinstance(value, (list, tuple)):
        return f"[{inner}{f',{inner}'.join([indented(each, inner) for each in value])}{start}]"
    return json.dumps(value)
