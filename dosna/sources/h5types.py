"""What an HDF5 dataset becomes: its NumPy dtype and shape, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from dosna.metadata import Shape, check_dtype, encode_value

__all__ = [
    "Representation",
    "attributes",
    "is_stored_as",
    "kept",
    "name_of",
    "represent",
    "represent_as",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Representation:
    """How the elements of an HDF5 dataset are represented.

    Parameters
    ----------
    dtype : numpy.dtype
    shape : tuple of int
        Of the dataset, and then of the array that each element is, if it is one.
    strings : bool
        Whether elements are strings of variable length, whose `dtype` is not known yet.
    empty : bool
        Whether the dataset is a null dataspace.
    attrs : mapping
        What is to be kept beside the dataset's own attributes.
    notes : tuple of str
    refused : str
    """

    dtype: np.dtype[Any]
    shape: Shape
    strings: bool = False
    empty: bool = False
    attrs: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""


def represent(dataset: Any) -> Representation:
    """Say how a dataset is represented; what is not, by `Representation.refused`."""
    shape = dataset.shape
    try:
        found = dataset.dtype
    except TypeError as error:
        refused = f"its HDF5 type has no NumPy dtype: {error}"
        return Representation(np.dtype("V1"), shape or (0,), refused=refused)
    return represent_as(found, None if shape is None else tuple(map(int, shape)))


def represent_as(found: np.dtype[Any], extent: Shape | None) -> Representation:
    """Say how elements are represented whose dtype has h5py's notes.

    Parameters
    ----------
    found : numpy.dtype
    extent : tuple of int, or None
        The shape; None for a null dataspace.
    """
    unknown = np.dtype("V1")
    empty = extent is None
    shape: Shape = extent if extent is not None else (0,)
    notes: tuple[str, ...] = ()
    attrs: dict[str, Any] = {}
    refused = _refusal(found)
    if refused:
        return Representation(unknown, shape, refused=refused)
    if empty:
        notes = ("it is an empty dataset (a null dataspace), kept as an array of shape (0,)",)
        attrs["hdf5_empty"] = True
    if h5py.check_string_dtype(found) is not None and found.hasobject:
        return Representation(np.dtype("U1"), shape, True, empty, attrs, notes)
    names = h5py.check_enum_dtype(found)
    if names is not None:
        attrs["hdf5_enum"] = {str(name): int(value) for name, value in names.items()}
        notes += ("it is an enumeration: integers, whose names are in its attribute hdf5_enum",)
    if found.subdtype is not None:
        found, inner = found.subdtype
        shape += tuple(inner)
        notes += (f"its elements are arrays of shape {tuple(inner)}, kept as further axes",)
    made = Representation(_plain(found), shape, False, empty, attrs, notes)
    try:
        check_dtype(made.dtype)
    except TypeError as error:
        return replace(made, dtype=unknown, refused=str(error))
    return made


def _refusal(dtype: np.dtype[Any], within: str = "") -> str:
    where = f"in its field {within!r} " if within else ""
    if h5py.check_ref_dtype(dtype) is not None:
        return f"{where}its elements are references to other objects"
    if h5py.check_string_dtype(dtype) is not None and dtype.hasobject:
        return f"{where}its elements are strings of variable length" if within else ""
    if h5py.check_vlen_dtype(dtype) is not None:
        return f"{where}its elements are sequences of variable length"
    if dtype.names is not None:
        assert dtype.fields is not None
        for name in dtype.names:
            found = _refusal(dtype.fields[name][0], f"{within}.{name}" if within else name)
            if found:
                return found
    elif dtype.subdtype is not None:
        return _refusal(dtype.base, within)
    elif dtype.hasobject:
        return f"{where}its elements are Python objects"
    return ""


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Drop what h5py notes in a dtype and NumPy does not compare."""
    if dtype.names is not None:
        assert dtype.fields is not None
        fields = [dtype.fields[name] for name in dtype.names]
        return np.dtype(
            {
                "names": list(dtype.names),
                "formats": [_plain(field[0]) for field in fields],
                "offsets": [field[1] for field in fields],
                "itemsize": dtype.itemsize,
            }
        )
    if dtype.subdtype is not None:
        return np.dtype((_plain(dtype.base), dtype.shape))
    return np.dtype(dtype.str)


def is_stored_as(dataset: Any, dtype: np.dtype[Any]) -> bool:
    """Whether the file's bytes of the elements are those of the dtype."""
    stored = dataset.id.get_type()
    if stored.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.COMPOUND):
        return False
    try:
        return bool(
            stored.get_size() == dtype.itemsize
            and stored.equal(h5t.py_create(dataset.dtype, logical=True))
        )
    except (TypeError, ValueError):
        return False


# What HDF5's dimension scales note about each other, see `dosna.sources.h5scales`.
_OF_SCALES = {"DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"}


def attributes(owner: Any) -> dict[str, Any]:
    """Read the attributes of a group or a dataset, as far as they can be kept.

    References become the names of what they refer to; what cannot be kept, a text that says so.
    """
    readers = {name: partial(owner.attrs.__getitem__, name) for name in owner.attrs}
    return kept(readers, lambda reference: name_of(owner.file[reference]))


def name_of(opened: Any) -> str | None:
    """Return the name of an open object: of what is no UTF-8, the bytes as Python escapes them."""
    found = opened.name
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found


def kept(
    readers: Mapping[str | bytes, Callable[[], Any]], named: Callable[[Any], str | None]
) -> dict[str, Any]:
    """Read attributes as `attributes` does.

    Parameters
    ----------
    readers : mapping of str, or bytes that are not of UTF-8, to callable
        Each gives a value as h5py would.
    named : callable
        Gives the name of what a reference leads to.
    """
    found: dict[str, Any] = {}
    for key, read in readers.items():
        # HDF5 does not say that names are of UTF-8; most of the others are of Latin-1.
        name = key if isinstance(key, str) else key.decode("latin-1")
        if name in _OF_SCALES:
            continue
        try:
            value = _attribute(named, read())
            encode_value(value)
        except (TypeError, OSError, RuntimeError, KeyError, ValueError) as error:
            value = f"<not kept: {error}>"
        found[name] = value
    return found


def _attribute(named: Callable[[Any], str | None], value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, h5py.Reference):
        return named(value) if value else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        if value.dtype.names is not None:
            raise TypeError(f"an attribute of {value.dtype}")
        return [_attribute(named, v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.astype(_plain(value.dtype)) if value.dtype.names is None else value
    return value
