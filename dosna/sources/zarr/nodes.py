"""The arrays and groups of a Zarr store, found by their documents."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from dosna.codecs import zarr as zarr3
from dosna.errors import DosnaError
from dosna.sources.base import ArrayDescription

__all__ = [
    "DOCUMENTS",
    "Node",
    "described",
    "documents_below",
    "documents_of_members",
    "documents_on_disk",
    "first_document",
    "open_node",
]


DOCUMENTS = (zarr3.DOCUMENT, *zarr3.VERSION_2)
"""Names of documents that make a folder an array or a group, in the order of preference."""

_UNFINISHED = re.compile(r"\.(creating|deleting|replacing)-|\..*\.part(\.old)?$", re.DOTALL)
"""The beginning or all of the names of folders that dosna has not finished, or not deleted yet."""


@dataclass(frozen=True)
class Node:
    """An array or a group.

    Parameters
    ----------
    document : dict
        The ``zarr.json``; for version 2 only the attributes, in the form of a ``zarr.json``.
    is_group : bool
    array : zarr.Array, optional
        The open array.
    refused : str
        The reason why there is no `array`.
    """

    document: Mapping[str, Any]
    is_group: bool = False
    array: Any = None
    refused: str = ""

    def attributes(self, where: str, dtype: np.dtype[Any] | None = None) -> dict[str, Any]:
        """Return the attributes in the form that `dosna.core.values.decode_value` reads."""
        return zarr3.attributes_in(self.document, where, dtype)

    def refusal(self, name: str) -> ArrayDescription | None:
        """Return the description of an array that cannot be opened; None if it can."""
        return ArrayDescription(name, refused=self.refused) if self.refused else None


def open_node(store: Any, path: str, name: str) -> Node | None:
    """Open the array or group of a document; None if it is neither."""
    try:
        document = _json(store, f"{path}/{name}" if path else name)
        if name == zarr3.DOCUMENT:
            kind = document.get("node_type")
            if kind not in ("array", "group"):
                return None  # a dataset that is being deleted
        else:
            kind = "array" if name == ".zarray" else "group"
            attributes = _json(store, f"{path}/.zattrs" if path else ".zattrs", missing={})
            document = {"attributes": attributes}
        if kind == "group":
            return Node(document, is_group=True)
        if name == zarr3.DOCUMENT:
            array = zarr.open_array(store=store, path=path, mode="r", zarr_format=3)
        else:
            array = _array_of_version_2(store, path, document["attributes"])
        return Node(document, array=array)
    except DosnaError:
        raise
    except Exception as error:
        return Node({}, refused=f"it cannot be opened ({described(error)})")


def _array_of_version_2(store: Any, path: str, attributes: Mapping[str, Any]) -> zarr.Array[Any]:
    """Open an array of version 2, also one that the netCDF library wrote as NCZarr.

    NCZarr leaves the size of the elements that were shuffled to the reader (0), which numcodecs
    takes for bytes that were not shuffled, and gives single bytes an order (``<u1``), which
    zarr-python refuses.
    """
    document = _json(store, f"{path}/.zarray" if path else ".zarray")
    dtype, filters = document.get("dtype"), document.get("filters") or []
    mended = dict(document)
    if isinstance(dtype, str) and re.fullmatch("[<>][iuS]1", dtype):
        mended["dtype"] = "|" + dtype[1:]
    if any(_is_unsized_shuffle(codec) for codec in filters):
        size = np.dtype(mended["dtype"]).itemsize
        mended["filters"] = [
            {**codec, "elementsize": size} if _is_unsized_shuffle(codec) else codec
            for codec in filters
        ]
    if mended == document:
        return zarr.open_array(store=store, path=path, mode="r", zarr_format=2)
    data = {**mended, "attributes": dict(attributes)}
    return zarr.Array(zarr.AsyncArray.from_dict(StorePath(store, path), data))


def _is_unsized_shuffle(codec: Any) -> bool:
    return (
        isinstance(codec, dict) and codec.get("id") == "shuffle" and codec.get("elementsize") == 0
    )


def _json(store: Any, key: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    found = sync(store.get(key, default_buffer_prototype()))
    if found is None and missing is not None:
        return missing
    if found is None:
        raise KeyError(key)
    document = json.loads(found.to_bytes())
    if not isinstance(document, dict):
        raise ValueError(f"{key} is not a JSON object")
    return document


async def documents_below(store: Any, top: str) -> list[str]:
    """List the documents in a folder of a store, and below it."""
    return [key async for key in store.list_prefix(top) if key.endswith(DOCUMENTS)]


def documents_on_disk(root: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the documents in a folder, and below it unless it is an array."""
    waiting: list[tuple[str, frozenset[str]]] = [(path, frozenset())]
    while waiting:
        path, above = waiting.pop()
        here = os.path.join(root, path) if path else root
        real = os.path.realpath(here)
        if real in above:
            continue  # a link to a folder that contains it
        try:
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except NotADirectoryError:
            continue
        except OSError:
            yield path, zarr3.DOCUMENT  # opening it tells what is wrong
            continue
        name = first_document({entry.name for entry in listed})
        if name:
            yield path, name
        if name == ".zarray" or (
            name == zarr3.DOCUMENT and not _is_group(os.path.join(here, name))
        ):
            continue
        for entry in listed:
            if entry.is_dir() and not _is_passed_over(entry):
                inner = f"{path}/{entry.name}" if path else entry.name
                waiting.append((inner, above | {real}))


def _is_passed_over(entry: os.DirEntry[str]) -> bool:
    """Return True for a hidden folder that is no node of Zarr, or an unfinished one of dosna."""
    if not entry.name.startswith("."):
        return False
    try:
        return bool(_UNFINISHED.match(entry.name)) or not first_document(os.listdir(entry.path))
    except OSError:
        return True


def _is_group(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(json.load(file)["node_type"] == "group")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def documents_of_members(node: Any) -> list[str]:
    """List the documents of a store that cannot be listed, by the members of an open object."""
    if isinstance(node, zarr.Array):
        members = [node]
    else:
        members = [node, *(found for _, found in node.members(max_depth=None))]
    keys = []
    for found in members:
        old = ".zarray" if isinstance(found, zarr.Array) else ".zgroup"
        name = zarr3.DOCUMENT if found.metadata.zarr_format == 3 else old
        keys.append(f"{found.path}/{name}" if found.path else name)
    return keys


def first_document(names: Iterable[str]) -> str:
    """Return the name of a folder's document among those of its files; '' if there is none."""
    return next((name for name in DOCUMENTS if name in names), "")


def described(error: BaseException) -> str:
    """Return the type of an error and the beginning of its text."""
    return f"{type(error).__name__}: {str(error)[:300]}"
