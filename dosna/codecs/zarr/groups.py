"""Documents of groups: their kind, their attributes, and copies of the documents below them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dosna.codecs.zarr.attributes import attributes_in, to_group
from dosna.codecs.zarr.parsing import indented, parse
from dosna.errors import FormatError

__all__ = [
    "GROUP",
    "group_attributes",
    "node_type",
    "with_attributes",
    "without_consolidated",
]

GROUP = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}, indent=2).encode()
"""The description of a new group."""

_CONSOLIDATED = "consolidated_metadata"


def node_type(data: bytes | memoryview, where: str) -> Any:
    """Return the ``node_type`` of a document: 'array' or 'group'.

    Raises
    ------
    FormatError
        The document is not JSON of Zarr v3.
    """
    return parse(data, where).get("node_type")


def group_attributes(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """Return the attributes in the description of a group.

    They are empty for a document that is broken, or of something else.
    """
    try:
        document = parse(data, where)
    except FormatError:
        return {}
    return attributes_in(document, where) if document.get("node_type") == "group" else {}


def with_attributes(data: bytes | memoryview, attrs: Mapping[str, Any], where: str) -> bytes:
    """Return the description of a group with its attributes replaced by `attrs`."""
    document = {**parse(data, where), "attributes": to_group(attrs)}
    document.pop(_CONSOLIDATED, None)
    return indented(document).encode()


def without_consolidated(data: bytes | memoryview, where: str) -> bytes | None:
    """Return the description of a group without the copies of the documents below it.

    None is returned if there are no copies. Other programs rely on the copies, which become wrong
    when the documents below change.
    """
    if f'"{_CONSOLIDATED}"'.encode() not in bytes(data):
        return None
    document = parse(data, where)
    if document.get("node_type") != "group" or _CONSOLIDATED not in document:
        return None
    del document[_CONSOLIDATED]
    return indented(document).encode()
