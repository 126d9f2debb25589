"""What describes a dataset, and its one JSON form for every backend.

The document is plain JSON, so that any language reads it. NumPy values that JSON lacks
(dtypes with fields, NaN, complex numbers, arrays) are written as small tagged objects.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from dosna.casting import lost
from dosna.errors import ConfigurationError, DatasetNameError, FormatError
from dosna.text import TEXT, as_text, decode, element_bytes, encode, is_text

FORMAT_VERSION = 1
"""Version of the metadata document. A reader refuses a newer one by its number."""

TARGET_CHUNK_BYTES = 1 << 20
"""The size that automatically chosen chunks come close to, in bytes."""

Shape = tuple[int, ...]

_TAGS = {"__numpy__", "__float__", "__map__"}
_TEXT = "string"  # which NumPy does not know: a dosna that has no text refuses it


class ChunkBounds(NamedTuple):
    """Where the part of a chunk that lies inside the array is, in both coordinates."""

    array: tuple[slice, ...]
    chunk: tuple[slice, ...]


@dataclass(frozen=True)
class DatasetMetadata:
    """Shape, type and chunking of a dataset, and what is stored with it.

    Parameters
    ----------
    shape : tuple of int
        Extent of each axis; an empty tuple is a scalar.
    dtype : numpy.dtype
    fillvalue : numpy scalar
        What a chunk that was never written reads as; of `dtype`.
    chunk_size : tuple of int
        Extent of a chunk on each axis, at least 1.
    attrs : mapping
        The user's attributes in their JSON form, see `encode_value`.
    storage : mapping
        How the backend stores the chunks (compression, checksum, …); JSON values.
    trimmed : bool
        False while a shrink has published its new shape but may not have deleted yet what
        it cut off. Whoever extends the array finishes that first.
    incomplete : bool
        True from its creation until all of a dataset's data have been written, where that may
        be interrupted.
    origin : mapping, optional
        Where the data are from, in JSON values.
    link : mapping, optional
        What a linked dataset shows, in JSON values, see `dosna.sources.links`; what is stored is
        then the table of the places of its chunks, of which all else is said here.
    """

    shape: Shape
    dtype: np.dtype[Any]
    fillvalue: Any
    chunk_size: Shape
    attrs: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    trimmed: bool = True
    incomplete: bool = False
    origin: Mapping[str, Any] | None = None
    link: Mapping[str, Any] | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @cached_property
    def chunk_grid(self) -> Shape:
        """How many chunks there are on each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_size, strict=True))

    @cached_property
    def total_chunks(self) -> int:
        return math.prod(self.chunk_grid)

    @cached_property
    def tiled(self) -> bool:
        """Whether all chunks lie inside of the array with their full extent."""
        return not any(n % c for n, c in zip(self.shape, self.chunk_size, strict=True))

    @cached_property
    def chunk_nbytes(self) -> int:
        """Bytes of one whole chunk, uncompressed."""
        return math.prod(self.chunk_size) * self.dtype.itemsize

    def bounds(self, idx: Shape) -> ChunkBounds:
        """Where chunk `idx` lies in the array, and which part of it lies inside."""
        starts = [i * c for i, c in zip(idx, self.chunk_size, strict=True)]
        stops = [
            min(s + c, n) for s, c, n in zip(starts, self.chunk_size, self.shape, strict=True)
        ]
        return ChunkBounds(
            tuple(slice(a, b) for a, b in zip(starts, stops, strict=True)),
            tuple(slice(0, b - a) for a, b in zip(starts, stops, strict=True)),
        )

    def contains(self, idx: Shape) -> bool:
        """Whether the grid has a chunk `idx`."""
        return len(idx) == self.ndim and all(
            0 <= i < n for i, n in zip(idx, self.chunk_grid, strict=True)
        )

    def empty_chunk(self) -> np.ndarray[Any, Any]:
        """Make a whole chunk of fill values."""
        chunk = np.empty(self.chunk_size, self.dtype)
        chunk[...] = self.fillvalue
        return chunk

    def replace(self, **changes: Any) -> DatasetMetadata:
        return replace(self, **changes)

    def to_json(self) -> str:
        """Give the document that `from_json` reads."""
        return json.dumps(
            {
                "dosna_format": FORMAT_VERSION,
                "shape": list(self.shape),
                "dtype": encode_dtype(self.dtype),
                "fillvalue": encode_value(self.fillvalue),
                "chunk_size": list(self.chunk_size),
                "attrs": dict(self.attrs),
                "storage": dict(self.storage),
                "trimmed": self.trimmed,
                **self.loading,
            }
        )

    @property
    def loading(self) -> dict[str, Any]:
        """What a document says of `LOADING`; nothing where there is nothing."""
        found: dict[str, Any] = {"incomplete": True} if self.incomplete else {}
        if self.origin is not None:
            found["origin"] = dict(self.origin)
        if self.link is not None:
            found["link"] = dict(self.link)
        return found

    @classmethod
    def from_json(cls, text: str, where: str = "metadata") -> DatasetMetadata:
        """Read what `to_json` wrote.

        Raises
        ------
        FormatError
            The document is of a newer format, or broken; names `where`.
        """
        try:
            doc = json.loads(text)
            check_format_version(doc["dosna_format"], where)
            dtype = decode_dtype(doc["dtype"])
            shape = _extents(doc["shape"], "shape", 0)
            chunk_size = _extents(doc["chunk_size"], "chunk_size", 1)
            if len(shape) != len(chunk_size):
                raise ValueError(f"shape {shape} and chunk_size {chunk_size} differ in axes")
            return cls(
                shape,
                dtype,
                _scalar(decode_value(doc["fillvalue"]), dtype),
                chunk_size,
                doc["attrs"],
                doc["storage"],
                bool(doc["trimmed"]),
                *loading_of(doc),
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{where} is broken: {error!r}") from error


def _scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value that `encode_value` encoded."""
    if is_text(dtype):
        return check_fillvalue(value, dtype)
    return np.asarray(value).astype(dtype)[()]


LOADING = ("incomplete", "origin", "link")
"""The fields of `DatasetMetadata` that `loading_of` reads, in order."""


def loading_of(
    document: Mapping[str, Any],
) -> tuple[bool, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Read what `DatasetMetadata.loading` gave."""
    origin, link = (
        found if isinstance(found, Mapping) else None
        for found in (document.get("origin"), document.get("link"))
    )
    return document.get("incomplete") is True, origin, link


def check_format_version(found: Any, where: str) -> None:
    """Refuse a format that is newer than this dosna writes."""
    if not isinstance(found, (int, np.integer)) or found < 1:
        raise FormatError(f"{where} has format version {found!r}, which is not a version")
    if found > FORMAT_VERSION:
        raise FormatError(
            f"{where} has format version {found}, and this dosna reads up to {FORMAT_VERSION}: "
            "update dosna to open it"
        )


def new_metadata(
    shape: int | Sequence[int] | None,
    dtype: DTypeLike | None,
    fillvalue: Any = None,
    chunk_size: int | Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> DatasetMetadata:
    """Check what a user asked for and fill in what was left open.

    Raises
    ------
    ValueError, TypeError
        A shape, chunk size, dtype or fill value that cannot be stored.
    """
    if shape is None:
        raise ValueError("create_dataset needs shape= or data=, and neither was given")
    full_shape = _extents(shape, "shape", 0)
    kind = check_dtype(as_dtype(np.float32 if dtype is None else dtype))
    if chunk_size is None:
        chunks = choose_chunk_size(full_shape, element_bytes(kind))
    else:
        chunks = _extents(chunk_size, "chunk_size", 1)
        if len(chunks) != len(full_shape):
            raise ValueError(
                f"chunk_size {chunks} has {len(chunks)} axes and shape {full_shape} has "
                f"{len(full_shape)}: give one extent per axis"
            )
    fill = check_fillvalue(fillvalue, kind)
    return DatasetMetadata(full_shape, kind, fill, chunks, encode_attrs(attrs or {}))


def _extents(value: int | Sequence[int], what: str, least: int) -> Shape:
    values = (value,) if isinstance(value, (int, np.integer)) else tuple(value)
    for extent in values:
        if isinstance(extent, (bool, np.bool_)) or not isinstance(extent, (int, np.integer)):
            raise TypeError(f"{what} takes integers, and {extent!r} is a {type(extent).__name__}")
        if extent < least:
            raise ValueError(f"{what} {values} has an extent below {least}")
    return tuple(map(int, values))


def as_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that is meant: ``str`` and 'string' are text of variable length."""
    found = TEXT if isinstance(dtype, str) and dtype == "string" else np.dtype(dtype)
    # As zarr-python takes it.
    return TEXT if found.kind == "U" and not found.itemsize else found


def check_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Refuse a dtype whose elements are neither plain bytes nor text.

    Returns
    -------
    dtype
        As it is stored: of text the one without options.

    Raises
    ------
    TypeError
        Object dtypes, text with missing values, and types of no bytes.
    """
    if is_text(dtype):
        if hasattr(dtype, "na_object"):
            raise TypeError(
                f"dtype {dtype} has missing values, and neither Zarr's nor HDF5's strings have "
                "them: choose a text for them, and use dtype=str"
            )
        return TEXT
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} holds Python objects, which have no bytes to store: text is stored "
            "by dtype=str"
        )
    if dtype.itemsize == 0:
        raise TypeError(f"dtype {dtype!r} has elements of no bytes: give it a length")
    if dtype.kind not in "biufcmMSUV" or dtype.num >= 256 or dtype.subdtype is not None:
        raise TypeError(f"dtype {dtype!r} cannot be stored: use one of NumPy's fixed-size types")
    return dtype


def check_dims(dims: Sequence[str | None] | None, ndim: int) -> tuple[str | None, ...] | None:
    """Refuse names of axes that are not one str or None for each.

    Raises
    ------
    ConfigurationError
    """
    if dims is None:
        return None
    names = list(dims)
    if (
        isinstance(dims, str)
        or len(names) != ndim
        or not all(name is None or isinstance(name, str) for name in names)
    ):
        raise ConfigurationError(f"dims names {ndim} axes by str or None, not {dims!r}")
    return tuple(names)


_MOST_FIELDS = 1000


def plain_fields(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return what Zarr can store of a structured dtype: little-endian fields without gaps.

    A field that is an array becomes one for each of its elements, ``a_0``, ``a_1`` and so on;
    one of a single element keeps its name.

    Parameters
    ----------
    dtype : numpy.dtype
        Any; one without fields stays.

    Returns
    -------
    packed, view : numpy.dtype
        The dtype to store, and one with the same fields that are where they are in `dtype`.

    Raises
    ------
    TypeError
        That would be more than 1,000 fields.
    """
    if dtype.names is None:
        return dtype, dtype
    names: list[str] = []
    packed: list[np.dtype[Any]] = []
    views: list[np.dtype[Any]] = []
    offsets: list[int] = []
    assert dtype.fields is not None
    for name in dtype.names:
        kind, start = dtype.fields[name][:2]
        single = kind.base
        one, as_is = plain_fields(single) if single.names is not None else (single, single)
        count = math.prod(kind.shape)
        if len(names) + count > _MOST_FIELDS:
            raise TypeError(
                f"its fields, and the elements of those that are arrays, are over {_MOST_FIELDS}"
            )
        for number, idx in enumerate(np.ndindex(kind.shape)):
            own = name if count == 1 else "_".join([name, *map(str, idx)])
            while own in names or (own != name and own in dtype.names):
                own += "_"
            names.append(own)
            packed.append(one.newbyteorder("<"))
            views.append(as_is)
            offsets.append(start + number * single.itemsize)
    return (
        np.dtype(list(zip(names, packed, strict=True))),
        np.dtype(
            {"names": names, "formats": views, "offsets": offsets, "itemsize": dtype.itemsize}
        ),
    )


def check_fillvalue(fillvalue: Any, dtype: np.dtype[Any]) -> Any:
    """Turn a fill value into a scalar of `dtype`; None is the dtype's zero.

    Raises
    ------
    ValueError
        The value does not fit the dtype.
    """
    if fillvalue is None:
        return np.zeros((), dtype)[()]
    problem = f"fillvalue {fillvalue!r} does not fit dtype {dtype}"
    if is_text(dtype):
        if not isinstance(fillvalue, str):
            raise ValueError(f"{problem}: it is a {type(fillvalue).__name__}, and not a str")
        return as_text(fillvalue)[()]
    try:
        with np.errstate(all="raise"):
            filled = np.array(fillvalue, dtype=dtype)
            if filled.shape != ():
                raise ValueError("it is not a scalar")
    except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
        raise ValueError(f"{problem}: {error}") from None
    if dtype.names is not None and isinstance(fillvalue, tuple):
        for value, name in zip(fillvalue, dtype.names, strict=True):
            if dtype[name].shape == ():
                check_fillvalue(value, dtype[name])
        return filled[()]
    given = np.asarray(fillvalue)
    if dtype.kind == "M" and given.dtype.kind not in "mM":
        # Numbers are in the dtype's own unit; what is read in another may be finer.
        given = filled if given.dtype.kind in "biuf" else np.asarray(np.datetime64(fillvalue))
    lossy = dtype.kind in "biu" and given.dtype.kind not in "biuf"
    if lossy or lost(given, dtype).any():
        raise ValueError(f"{problem}: it would become {filled[()]!r}")
    return filled[()]


def same_fill(fill: Any, wanted: np.ndarray[Any, Any]) -> bool:
    """Return whether a fill value is another, bit by bit, once it has the dtype of that."""
    if is_text(wanted.dtype):
        # Of which the bytes are places in memory. By itself NumPy takes a str for one of fixed
        # length, which has no NULs at its end.
        return bool(np.asarray(fill, wanted.dtype)[()] == wanted[()])
    try:
        given = np.asarray(fill)
        if given.dtype.kind == "c" and wanted.dtype.kind != "c":
            if given.imag != 0:
                return False
            given = given.real  # NumPy warns of imaginary parts even where there are none
        with np.errstate(all="ignore"):
            cast = given.astype(wanted.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return cast.tobytes() == wanted.tobytes()


def choose_chunk_size(shape: Shape, itemsize: int, target: int = TARGET_CHUNK_BYTES) -> Shape:
    """Pick chunks of about `target` bytes: the longest axis is halved until they fit.

    The last of equally long axes is halved last, because neighbours on it are neighbours
    in memory. A chunk is therefore as close to a cube as the array allows, between half of
    `target` and `target`, unless the array or one element is itself smaller or larger.
    """
    chunks = [max(1, n) for n in shape]
    while math.prod(chunks) * itemsize > target and max(chunks, default=1) > 1:
        longest = chunks.index(max(chunks))
        chunks[longest] = -(-chunks[longest] // 2)
    return tuple(chunks)


def check_name(name: str) -> str:
    """Refuse a dataset name that is not legal: parts joined by single slashes.

    Raises
    ------
    DatasetNameError
        An empty name or part, '.', '..', a leading dot, a control character.
    TypeError
        Not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"a dataset name is a str, and {name!r} is a {type(name).__name__}")
    for part in name.split("/"):
        if not part:
            reason = "an empty part"
        elif part.startswith("."):
            reason = f"the part {part!r}, which starts with a dot"
        elif any(ord(c) < 32 or c == "\x7f" or c == "\\" for c in part):
            reason = f"a control character or backslash in {part!r}"
        elif any("\ud800" <= c <= "\udfff" for c in part):
            reason = f"a half of a character in {part!r}"
        elif len(part.encode()) > 200:
            reason = f"a part of {len(part.encode())} bytes, and 200 is the most"
        else:
            continue
        raise DatasetNameError(
            f"dataset name {name!r} has {reason}: use parts joined by '/', like 'entry/data'"
        )
    return name


def parents(name: str) -> list[str]:
    """Names above `name`: ``a/b/c`` has ``a`` and ``a/b``."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def check_nesting(name: str, others: Iterable[str]) -> None:
    """Refuse a name inside or around another dataset's.

    Raises
    ------
    DatasetNameError
    """
    above = set(parents(name))
    for other in others:
        if other in above:
            raise DatasetNameError(
                f"dataset name {name!r} lies inside {other!r}, which is a dataset and holds no "
                "others: choose another name"
            )
        if other.startswith(name + "/"):
            raise DatasetNameError(
                f"dataset name {name!r} is that of a folder, which holds {other!r}: choose "
                "another name"
            )


def check_group(name: str, datasets: Container[str]) -> None:
    """Refuse the name of a group that is, or lies inside, one of the datasets.

    Raises
    ------
    DatasetNameError
    """
    for above in [*parents(name), name] if name else []:
        if above in datasets:
            raise DatasetNameError(
                f"{name!r} is no group, for {above!r} is a dataset: datasets have attrs"
            )


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    """Give a JSON value for a dtype: its ``str``, or the description of its fields."""
    if is_text(dtype):
        return _TEXT
    if dtype.names is None:
        return dtype.str if dtype.subdtype is None else [encode_dtype(dtype.base), dtype.shape]
    assert dtype.fields is not None
    fields = [[n, encode_dtype(dtype.fields[n][0]), dtype.fields[n][1]] for n in dtype.names]
    titles = [[*dtype.fields[n], None][2] for n in dtype.names]
    return {
        "fields": fields,
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        **({"titles": titles} if any(titles) else {}),
    }


def decode_dtype(value: Any) -> np.dtype[Any]:
    """Read what `encode_dtype` gave."""
    if isinstance(value, str):
        return TEXT if value == _TEXT else np.dtype(value)
    if isinstance(value, list):
        return np.dtype((decode_dtype(value[0]), tuple(value[1])))
    names, formats, offsets = zip(*value["fields"], strict=True)
    spec = {
        "names": list(names),
        "formats": [decode_dtype(f) for f in formats],
        "offsets": list(offsets),
        "itemsize": value["itemsize"],
        **({"titles": value["titles"]} if "titles" in value else {}),
    }
    return np.dtype(spec, align=value["aligned"])  # type: ignore[call-overload, no-any-return]


def encode_value(value: Any) -> Any:
    """Give a JSON value for JSON values, NumPy scalars and arrays, nested or not.

    Raises
    ------
    TypeError
        A value that is neither, or a mapping whose keys are not strings.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and not isinstance(value, np.floating):
        return value if math.isfinite(value) else {"__float__": repr(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if is_text(array.dtype):
            array = as_text(array)
        elif array.dtype.hasobject:
            raise TypeError(f"an array of dtype {array.dtype} cannot be kept in attributes")
        raw = encode(array) if is_text(array.dtype) else array.tobytes()
        return {
            "__numpy__": base64.b64encode(raw).decode(),
            "dtype": encode_dtype(array.dtype),
            "shape": list(array.shape),
            "scalar": isinstance(value, np.generic),
        }
    if isinstance(value, complex):
        return encode_value(np.complex128(value))
    if isinstance(value, (list, tuple)):
        return [encode_value(v) for v in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys of stored mappings are str, and {key!r} is not")
        encoded = {k: encode_value(v) for k, v in value.items()}
        # A mapping that looks like one of our tags is wrapped, so that it comes back as it was.
        return {"__map__": encoded} if _TAGS & encoded.keys() else encoded
    raise TypeError(
        f"a {type(value).__name__} cannot be kept in attributes: "
        "use None, bool, int, float, complex, str, lists, mappings, NumPy scalars or arrays"
    )


def encode_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the JSON form of attributes.

    Raises
    ------
    TypeError
        A name that is no str, or a value that `encode_value` does not take.
    """
    for name in attrs:
        if not isinstance(name, str):
            raise TypeError(f"an attribute is named by a str, not {name!r}")
    return {name: encode_value(value) for name, value in attrs.items()}


def decode_value(value: Any) -> Any:
    """Read what `encode_value` gave. Tuples come back as lists, as in JSON."""
    if isinstance(value, list):
        return [decode_value(v) for v in value]
    if not isinstance(value, dict):
        return value
    found = decode_tagged(value)
    return {k: decode_value(v) for k, v in found.items()} if isinstance(found, dict) else found


def decode_tagged(value: dict[str, Any]) -> Any:
    """Read a tagged object of `encode_value`.

    Returns
    -------
    float, numpy scalar, ndarray or dict
        A dict is a mapping whose values are still to be read. Attributes of other programs are
        none of our tags, whatever they are called.
    """
    try:
        if value.keys() == {"__numpy__", "dtype", "shape", "scalar"}:
            raw = base64.b64decode(value["__numpy__"], validate=True)
            dtype, shape = decode_dtype(value["dtype"]), value["shape"]
            if is_text(dtype):
                return decode(raw, math.prod(shape)).reshape(shape)
            array = np.frombuffer(bytearray(raw), dtype).reshape(shape)
            return array[()] if value["scalar"] else array
        if value.keys() == {"__float__"}:
            number = float(value["__float__"])
            return value if math.isfinite(number) else number
    except (ValueError, TypeError, KeyError, IndexError):
        return value
    if value.keys() == {"__map__"}:
        inner = value["__map__"]
        if isinstance(inner, dict) and _TAGS & inner.keys():
            return inner
    return value
