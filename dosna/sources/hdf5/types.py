"""What an HDF5 dataset becomes: its NumPy dtype and shape, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5t

from dosna.core.types import Shape
from dosna.core.values import check_dtype, encode_value

__all__ = [
    "Representation",
    "attributes",
    "decoded",
    "is_never_written",
    "is_partly_undefined",
    "is_stored_as",
    "kept",
    "name_of",
    "represent",
    "represent_as",
    "stored_fill",
    "stored_text",
]


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
    except (TypeError, ValueError) as error:
        refused = f"its HDF5 type has no NumPy dtype: {error}"
        return Representation(np.dtype("V1"), shape or (0,), refused=refused)
    made = represent_as(found, None if shape is None else tuple(map(int, shape)))
    tag = _tag(dataset.id.get_type())
    if tag and not made.refused:
        attrs, notes = {**(made.attrs or {}), "hdf5_tag": tag}, f"it is opaque, tagged {tag!r}"
        made = replace(made, attrs=attrs, notes=(*made.notes, notes))
    return made


def _tag(stored: Any) -> str:
    """Return what an opaque type is tagged as, but by h5py."""
    if stored.get_class() != h5t.OPAQUE:
        return ""
    tag = decoded(stored.get_tag())
    return "" if tag.startswith("NUMPY:") else tag


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
    names = _enumerations(found)
    if names:
        attrs["hdf5_enum"] = names
        what = "it is an enumeration" if found.names is None else "it has fields of enumerations"
        notes += (f"{what}: integers, whose names are in its attribute hdf5_enum",)
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


def _enumerations(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the names of an enumeration's values, and of those of fields by field."""
    if dtype.names is not None and dtype.fields is not None:
        fields = {name: _enumerations(dtype.fields[name][0]) for name in dtype.names}
        return {name: found for name, found in fields.items() if found}
    names = h5py.check_enum_dtype(dtype.base)
    return {str(name): int(value) for name, value in (names or {}).items()}


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
        if h5py.check_string_dtype(dtype.base) is not None and dtype.hasobject:
            return f"{where}its elements are arrays of strings of variable length"
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


def stored_fill(dataset: Any, dtype: np.dtype[Any]) -> Any:
    """Return what elements of a dataset read as that nobody wrote: a scalar of a dtype.

    Zero where the file defines none, or defines it as undefined.
    """
    if dataset.id.get_create_plist().fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return np.zeros((), dtype)[()]
    return np.asarray(dataset.fillvalue).astype(dtype)[()]


def stored_text(dataset: Any) -> bytes:
    """Return what strings of variable length read as that nobody wrote."""
    if dataset.id.get_create_plist().fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return b""
    found = dataset.fillvalue
    return found.encode() if isinstance(found, str) else bytes(found or b"")


def is_partly_undefined(dataset: Any) -> bool:
    """Tell whether a dataset has elements that nobody wrote, and says of none what they are."""
    creation = dataset.id.get_create_plist()
    if creation.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED or not dataset.size:
        return False
    if creation.get_layout() == h5d.CHUNKED:
        axes = zip(dataset.shape, dataset.chunks, strict=True)
        return bool(dataset.id.get_num_chunks() < prod(-(-n // c) for n, c in axes))
    return is_never_written(dataset)


def is_never_written(dataset: Any) -> bool:
    """Tell whether nothing of a dataset that is not in chunks is stored."""
    creation = dataset.id.get_create_plist()
    return bool(
        creation.get_layout() == h5d.CONTIGUOUS
        and not creation.get_external_count()
        and not dataset.id.get_storage_size()
    )


def is_stored_as(dataset: Any, dtype: np.dtype[Any], padded: bool = True) -> bool:
    """Tell whether the file's bytes of the elements are those of the dtype.

    Parameters
    ----------
    dataset : h5py.Dataset
    dtype : numpy.dtype
    padded : bool
        Whether strings have to be padded as NumPy's are, by null bytes. In others something may
        follow their end, or spaces that do not belong to them.
    """
    try:
        return dataset.dtype.itemsize == dtype.itemsize and _is_plain(
            dataset.id.get_type(), dataset.dtype, padded
        )
    except (TypeError, ValueError):
        return False


_NATIVE_COMPLEX = getattr(h5t, "COMPLEX", 11)


def _is_plain(stored: Any, dtype: np.dtype[Any], padded: bool) -> bool:
    """Tell whether bytes of a type of HDF5 are those of the dtype that h5py has for it."""
    kind = stored.get_class()
    if stored.get_size() != dtype.itemsize:
        return False
    if kind == h5t.STRING:
        return dtype.kind == "S" and not (padded and stored.get_strpad() != h5t.STR_NULLPAD)
    if kind == h5t.OPAQUE:
        return dtype.kind in "VmM"
    if kind == h5t.BITFIELD:
        order = "BE" if dtype.str[0] == ">" else "LE"
        same = getattr(h5t, f"STD_B{8 * dtype.itemsize}{order}", None)
        return dtype.kind == "u" and same is not None and bool(stored.equal(same))
    if kind == _NATIVE_COMPLEX:
        part = np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}")
        return dtype.kind == "c" and stored.get_super().equal(h5t.py_create(part))
    if kind == h5t.ARRAY:
        if dtype.subdtype is None or stored.get_array_dims() != dtype.shape:
            return False
        return _is_plain(stored.get_super(), dtype.base, padded)
    if kind == h5t.COMPOUND and dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
        return stored.get_nmembers() == len(fields) and all(
            stored.get_member_offset(number) == offset
            and _is_plain(stored.get_member_type(number), field, padded)
            for number, (field, offset, *_) in enumerate(fields)
        )
    if kind not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.COMPOUND):
        return False
    return bool(stored.equal(h5t.py_create(dtype, logical=True)))


# What HDF5's dimension scales note about each other, see `dosna.sources.hdf5.scales`.
_OF_SCALES = {"DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"}


def decoded(text: bytes | str) -> str:
    """Return a text of a file: of UTF-8, or else of Latin-1, as most of the others are.

    h5py gives bytes for some of the others, and for some a str with surrogates.
    """
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def attributes(
    owner: Any, known: Callable[[Any], str | None] = lambda opened: None
) -> dict[str, Any]:
    """Read the attributes of a group or a dataset, as far as they can be kept.

    References become the names of what they refer to; what cannot be kept, a text that says so.

    Parameters
    ----------
    owner : h5py.Group, h5py.Dataset or h5py.Datatype
    known : callable
        Returns the name of an open object without its first '/', or None. libhdf5 searches the
        file for one each time.
    """

    def named(reference: Any) -> str | None:
        opened = owner.file[reference]
        name = known(opened)
        return name_of(opened) if name is None else f"/{name}"

    return kept({name: partial(owner.attrs.__getitem__, name) for name in owner.attrs}, named)


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
        name = decoded(key)
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
        return decoded(named(value) or "") or None if value else None
    if isinstance(value, (bytes, str)):
        return decoded(value)
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        if value.dtype.names is not None:
            raise TypeError(f"an attribute of {value.dtype}")
        return [_attribute(named, v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.astype(_plain(value.dtype)) if value.dtype.names is None else value
    return value
