"""The NumPy dtype and shape that an HDF5 dataset becomes, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from operator import itemgetter
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5t

from dosna.core.types import Shape
from dosna.core.values import check_dtype, encode_value, map_parts

__all__ = [
    "Representation",
    "attributes",
    "decoded",
    "dtype_of",
    "grid_of",
    "is_never_written",
    "is_partly_undefined",
    "is_stored_as",
    "kept",
    "name_of",
    "read_attribute",
    "represent",
    "represent_as",
    "stored_fill",
    "stored_filters",
    "stored_text",
]


@dataclass(frozen=True)
class Representation:
    """The representation of the elements of an HDF5 dataset.

    Parameters
    ----------
    dtype : numpy.dtype
    shape : tuple of int
        The shape of the dataset, followed by that of its elements if these are arrays.
    strings : bool
        Whether elements are strings of variable length, whose `dtype` is not known yet.
    empty : bool
        Whether the dataset is a null dataspace.
    attrs : mapping
        Attributes to keep in addition to the dataset's own.
    notes : tuple of str
        Conversions, and anything else that users should know.
    refused : str
        The reason why there is no representation; empty if there is one.
    """

    dtype: np.dtype[Any]
    shape: Shape
    strings: bool = False
    empty: bool = False
    attrs: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""


def represent(dataset: Any) -> Representation:
    """Return the representation of a dataset. If there is none, its `refused` says why."""
    shape = dataset.shape
    try:
        found = dtype_of(dataset)
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
    """Return the tag of an opaque type; empty if there is none, or if it is h5py's."""
    if stored.get_class() != h5t.OPAQUE:
        return ""
    tag = decoded(stored.get_tag())
    return "" if tag.startswith("NUMPY:") else tag


def represent_as(found: np.dtype[Any], extent: Shape | None) -> Representation:
    """Return the representation of elements of a dtype that has h5py's metadata.

    Parameters
    ----------
    found : numpy.dtype
        The dtype from h5py.
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
    """Return the names of an enumeration's values; for a compound, by field."""
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
    """Return a dtype without h5py's metadata, which NumPy does not compare."""
    return map_parts(dtype, lambda part: part.str)


def dtype_of(dataset: Any) -> np.dtype[Any]:
    """Return the dtype of the elements of a dataset or an attribute in memory.

    It is h5py's, except where the fields of that one overlap: a field of a type that NumPy does
    not have, such as bfloat16, is longer in memory than in the file, and keeps its place there.
    """
    return _spread(dataset.dtype)


def _spread(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype, or one with its fields one after the other if they overlap."""
    if dtype.subdtype is not None:
        base = _spread(dtype.base)
        return dtype if base is dtype.base else np.dtype((base, dtype.shape))
    if not dtype.names or dtype.fields is None:
        return dtype
    formats = [_spread(dtype.fields[name][0]) for name in dtype.names]
    same = all(
        dtype.fields[name][0] is made for name, made in zip(dtype.names, formats, strict=True)
    )
    fields = sorted((dtype.fields[name][:2] for name in dtype.names), key=itemgetter(1))
    places = [offset for _, offset in fields] + [dtype.itemsize]
    if same and all(n + field.itemsize <= places[i + 1] for i, (field, n) in enumerate(fields)):
        return dtype
    return np.dtype({"names": list(dtype.names), "formats": formats})


def grid_of(dataset: Any) -> Shape:
    """Return the number of chunks along each axis of a chunked dataset."""
    return tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))


def stored_filters(dataset: Any) -> Iterator[tuple[int, tuple[int, ...], str]]:
    """Yield the code, the values and the name of each filter of a dataset, as they are written."""
    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, values, label = creation.get_filter(number)
        yield code, tuple(values), label.decode(errors="backslashreplace")


def stored_fill(dataset: Any, dtype: np.dtype[Any]) -> Any:
    """Return the value of elements that were never written, as a scalar of a dtype.

    It is zero if the file has no fill value, or says that it is undefined.
    """
    if dataset.id.get_create_plist().fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return np.zeros((), dtype)[()]
    found: Any = np.zeros((), dtype_of(dataset))
    dataset.id.get_create_plist().get_fill_value(found)
    return found.astype(dtype)[()]


def stored_text(dataset: Any) -> bytes:
    """Return the value of strings of variable length that were never written."""
    if dataset.id.get_create_plist().fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return b""
    found = dataset.fillvalue
    return found.encode() if isinstance(found, str) else bytes(found or b"")


def is_partly_undefined(dataset: Any) -> bool:
    """Return True if a dataset has unwritten elements, and its fill value is undefined."""
    creation = dataset.id.get_create_plist()
    if creation.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED or not dataset.size:
        return False
    if creation.get_layout() == h5d.CHUNKED:
        return bool(dataset.id.get_num_chunks() < prod(grid_of(dataset)))
    return is_never_written(dataset)


def is_never_written(dataset: Any) -> bool:
    """Return True if a dataset is contiguous and nothing of it is stored."""
    creation = dataset.id.get_create_plist()
    return bool(
        creation.get_layout() == h5d.CONTIGUOUS
        and not creation.get_external_count()
        and not dataset.id.get_storage_size()
    )


def is_stored_as(dataset: Any, dtype: np.dtype[Any], padded: bool = True) -> bool:
    """Return True if the elements have the same bytes in the file as in an array of a dtype.

    Parameters
    ----------
    dataset : h5py.Dataset
    dtype : numpy.dtype
    padded : bool
        Whether strings must be padded with null bytes, like NumPy's. With other paddings, bytes
        may follow their end, or spaces that are not part of them.
    """
    try:
        found = dtype_of(dataset)
        return found.itemsize == dtype.itemsize and _is_plain(dataset.id.get_type(), found, padded)
    except (TypeError, ValueError):
        return False


_NATIVE_COMPLEX = getattr(h5t, "COMPLEX", 11)


def _is_plain(stored: Any, dtype: np.dtype[Any], padded: bool) -> bool:
    """Return True if a type of HDF5 has the same bytes as the dtype that h5py has for it."""
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


# Attributes by which dimension scales refer to each other, see `dosna.sources.hdf5.scales`.
_OF_SCALES = {"DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"}


def decoded(text: bytes | str) -> str:
    """Return a text of a file, decoded as UTF-8, or as Latin-1 if it is not UTF-8.

    Most texts that are not UTF-8 are Latin-1. h5py returns bytes for some of them, and a str with
    surrogates for others.
    """
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def attributes(
    owner: Any, known: Callable[[Any], str | None] = lambda opened: None
) -> dict[str, Any]:
    """Read the attributes of a group or a dataset.

    References become the names of their objects. An attribute that cannot be kept becomes a text
    that says so.

    Parameters
    ----------
    owner : h5py.Group, h5py.Dataset or h5py.Datatype
        The object with the attributes.
    known : callable
        A function that returns the name of an open object without its first '/', or None. For
        None, libhdf5 searches the file for the name each time.
    """

    def named(reference: Any) -> str | None:
        opened = owner.file[reference]
        name = known(opened)
        return name_of(opened) if name is None else f"/{name}"

    return kept({name: partial(read_attribute, owner, name) for name in owner.attrs}, named)


def read_attribute(owner: Any, name: str | bytes) -> Any:
    """Return the value of an attribute, as h5py does; raise TypeError if that would be wrong."""
    opened = owner.attrs.get_id(name)
    if opened.get_type().get_class() == h5t.COMPOUND:
        dtype = opened.dtype
        if _spread(dtype) is not dtype:
            raise TypeError("a compound attribute with types that NumPy does not have")
    return owner.attrs[name]


def name_of(opened: Any) -> str | None:
    """Return the name of an open object. Bytes that are not UTF-8 become surrogates."""
    found = opened.name
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found


def kept(
    readers: Mapping[str | bytes, Callable[[], Any]], named: Callable[[Any], str | None]
) -> dict[str, Any]:
    """Read attributes by functions, and convert the values as `attributes` does.

    Parameters
    ----------
    readers : mapping of str, or bytes that are not UTF-8, to callable
        Functions that return the values as h5py does.
    named : callable
        A function that returns the name of the object of a reference.
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
