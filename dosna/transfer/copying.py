"""Copies of the contents of an HDF5 file in a domain: all but the elements of its datasets.

Types are kept as they are, including strings of variable length, enumerations and references.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from dosna.core.types import Array, Json, Shape
from dosna.hsds.domain import NewDomain
from dosna.hsds.types import attribute, packed, type_of
from dosna.sources.hdf5.tree import place_of
from dosna.sources.hdf5.types import (
    dtype_of,
    is_stored_as,
    read_attribute,
    stored_fill,
    stored_filters,
)

__all__ = ["Copied", "H5Copy", "filters_of", "is_stored_so"]


_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
_COLLECTIONS = {"g": "groups", "d": "datasets", "t": "datatypes"}


@dataclass(frozen=True)
class Copied:
    """A dataset of a file, and its description in the domain.

    Parameters
    ----------
    name : str
        The path of the dataset in the file.
    dataset : h5py.Dataset
    type_json : dict
        The type in HSDS's JSON.
    parent : str
        The id of the group in the domain that gets the dataset.
    """

    name: str
    dataset: Any
    type_json: Json
    parent: str

    @property
    def shape(self) -> Shape | None:
        """Extent of each axis; None for a null dataspace."""
        return None if self.dataset.shape is None else tuple(map(int, self.dataset.shape))

    @property
    def fill(self) -> dict[str, Any]:
        """Fill value as a creation property; empty if JSON cannot express it."""
        if self.dataset.dtype.kind not in "iuf" or self.dataset.shape is None:
            return {}
        value = stored_fill(self.dataset, self.dataset.dtype)
        return {"fillValue": value.item()} if value else {}


@dataclass
class H5Copy:
    """A copy of the groups, links, types and attributes of a file into a domain.

    Parameters
    ----------
    file : h5py.File
    domain : NewDomain
    left_out : dict of str to str
        The names of what could not be kept, and the reasons.
    """

    file: Any
    domain: NewDomain
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids: dict[Hashable, str] = {}
        self._owners: list[tuple[str, Any]] = [(self.domain.root, self.file)]

    def walk(self) -> Iterator[Copied]:
        """Add groups, types and links, and yield each dataset once.

        The caller creates the dataset and reports it to `made`.
        """
        self._ids[place_of(self.file)] = self.domain.root
        ahead = [("", self.file, self.domain.root)]
        while ahead:
            above, group, parent = ahead.pop()
            for key in group:
                name = f"{above}/{key}" if above else key
                link = group.get(key, getlink=True)
                if isinstance(link, h5py.SoftLink):
                    self.domain.link(parent, key, h5path=link.path)
                elif isinstance(link, h5py.ExternalLink):
                    self.domain.link(parent, key, h5path=link.path, h5domain=link.filename)
                else:
                    yield from self._object(name, key, group, parent, ahead)

    def _object(
        self, name: str, key: str, group: Any, parent: str, ahead: list[tuple[str, Any, str]]
    ) -> Iterator[Copied]:
        try:
            found = group[key]
        except (KeyError, OSError, RuntimeError) as error:
            self.left_out[name] = f"it cannot be opened: {error}"
            return
        known = self._ids.get(place_of(found))
        if known is not None:
            self.domain.link(parent, key, id=known)
        elif isinstance(found, h5py.Group):
            made = self.domain.group(parent, key)
            self.made(found, made)
            ahead.append((name, found, made))
        elif isinstance(found, h5py.Datatype):
            try:
                self.made(found, self.domain.named_type(parent, key, type_of(found.dtype)))
            except TypeError as error:
                self.left_out[name] = f"HSDS has no such type: {error}"
        else:
            try:
                yield Copied(name, found, type_of(_checked(found)), parent)
            except TypeError as error:
                self.left_out[name] = f"HSDS has no such type: {error}"

    def made(self, source: Any, made: str) -> None:
        """Record the id that an object of the file has in the domain."""
        self._ids[place_of(source)] = made
        self._owners.append((made, source))

    def attributes(self) -> dict[str, dict[str, Json]]:
        """Return the attributes of all objects that were made. Call this when all are known."""
        found: dict[str, dict[str, Json]] = {}
        for made, owner in self._owners:
            for name in owner.attrs:
                try:
                    found.setdefault(made, {})[name] = self._attribute(owner, name)
                except (TypeError, ValueError, OSError, RuntimeError, KeyError) as error:
                    self.left_out[f"{owner.name}@{name}"] = str(error)
        return found

    def _attribute(self, owner: Any, name: str) -> Json:
        stored = owner.attrs.get_id(name)
        dtype = stored.dtype
        value = read_attribute(owner, name)
        if isinstance(value, h5py.Empty):
            return attribute(None, dtype)
        kind = type_of(dtype)
        if _has_references(dtype):
            array = np.asarray(value, dtype)
            made: Json = {"type": kind, "value": self._referring(array, dtype)}
            made["shape"] = list(array.shape) if array.shape else "H5S_SCALAR"
            return made
        if h5py.check_string_dtype(dtype) is not None and dtype.hasobject:
            return attribute(np.asarray(value, object), dtype)
        return attribute(np.asarray(value).astype(packed(dtype), copy=False), dtype)

    def _referring(self, value: Any, dtype: np.dtype[Any]) -> Any:
        """Convert the references anywhere in a value into ids of objects in the domain."""
        if isinstance(value, np.ndarray) and value.shape:
            return [self._referring(v, dtype) for v in value]
        if isinstance(value, np.ndarray):
            value = value[()]
        if dtype.names is not None:
            return [self._referring(value[n], dtype[n]) for n in dtype.names]
        if isinstance(value, np.ndarray):
            inner = h5py.check_vlen_dtype(dtype)
            return [self._referring(v, inner) for v in value]
        if isinstance(value, h5py.RegionReference):
            raise TypeError("it refers to a region of a dataset")
        if isinstance(value, h5py.Reference):
            return self.reference(value)
        return value.item() if isinstance(value, np.generic) else value

    def reference(self, reference: Any) -> str:
        """Return what a reference becomes; '' if it refers to nothing that was made."""
        if not reference:
            return ""
        made = self._ids.get(place_of(self.file[reference]))
        return f"{_COLLECTIONS[made[0]]}/{made}" if made else ""

    def referring(self, block: Array) -> Array:
        """Convert an array of references into the form in which HSDS keeps them."""
        names = [self.reference(r).encode() for r in block.flat]
        return np.array(names, "S48").reshape(block.shape)


def _checked(dataset: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = dataset.dtype
    if h5py.check_ref_dtype(dtype) is h5py.RegionReference or (
        _has_references(dtype) and h5py.check_ref_dtype(dtype) is None
    ):
        raise TypeError("its elements refer to regions, or have references in them")
    if dtype_of(dataset) != dtype:
        raise TypeError("it has fields of types that NumPy does not have")
    return dtype


def _has_references(dtype: Any) -> bool:
    if not isinstance(dtype, np.dtype) or not dtype.hasobject:
        return False
    if h5py.check_ref_dtype(dtype) is not None:
        return True
    if dtype.names is not None:
        return any(_has_references(dtype[name]) for name in dtype.names)
    if dtype.subdtype is not None:
        return _has_references(dtype.base)
    return _has_references(h5py.check_vlen_dtype(dtype))


def filters_of(dataset: Any) -> tuple[list[Json], list[str]]:
    """Return the filters of a dataset that HSDS has too, in its JSON, and the others' names."""
    known: list[Json] = []
    others: list[str] = []
    for code, values, label in stored_filters(dataset):
        name = _FILTERS.get(code)
        if name is None:
            others.append(label or str(code))
            continue
        found = {"name": name, "class": f"H5Z_FILTER_{name.upper()}", "id": code}
        if name == "deflate":
            found["level"] = int(values[0]) if values else 4
        known.append(found)
    return known, others


def is_stored_so(dataset: Any) -> bool:
    """Return True if the elements have the same bytes in the file as in HSDS."""
    dtype = dataset.dtype
    return not dtype.hasobject and packed(dtype) == dtype and is_stored_as(dataset, dtype)
