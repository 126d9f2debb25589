"""Datasets as Zarr v3 arrays: ``zarr.json``, data types, fill values, keys of chunks.

The specification is https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html. Data types
beyond it are written as zarr-python 3 writes them. An unknown part of a document is refused by an
error that names it, unless it may be ignored (``must_understand: false``). An update of the
document keeps such parts unchanged.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.codecs.compressors import named
from dosna.codecs.pipeline import Pipeline, byte_order, compressor, endian_of, name_of
from dosna.codecs.zarr.attributes import from_document, from_group, to_document, to_group
from dosna.codecs.zarr.shards import Shards
from dosna.codecs.zarr.types import data_type_of, decode_fill, dtype_of, encode_fill
from dosna.core.metadata import LOADING, DatasetMetadata, check_dims, loading_of
from dosna.core.text import is_text
from dosna.core.types import Shape
from dosna.errors import ConfigurationError, FormatError

__all__ = [
    "DOCUMENT",
    "GROUP",
    "VERSION_2",
    "Layout",
    "attributes_in",
    "dims_of",
    "from_json",
    "group_attributes",
    "id_of",
    "is_sharded",
    "layout",
    "new_array",
    "node_type",
    "options_of",
    "revised",
    "revision_of",
    "stored_alike",
    "to_json",
    "with_attributes",
    "without_consolidated",
]

DOCUMENT = "zarr.json"
"""The name of the object that describes an array or a group."""

GROUP = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}, indent=2).encode()
"""The description of a new group."""

VERSION_2 = (".zarray", ".zgroup")
"""The names of the objects that describe arrays and groups of Zarr version 2."""

Document = dict[str, Any]

_OWN = "dosna"
_EXACT = "exact"
_CONSOLIDATED = "consolidated_metadata"
_DEEPEST = 100
"""The largest depth to which objects and lists may be nested in a document."""

_FIELDS = {
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "attributes",
    "storage_transformers",
    "dimension_names",
    _OWN,
}


@dataclass(frozen=True)
class Layout:
    """The way in which the chunks of an array are stored.

    Parameters
    ----------
    grain : tuple of int
        The extent of a stored object, which is a chunk or a shard.
    pipeline : Pipeline
        The codecs of a chunk.
    shards : Shards or None
        The shards of the array, or None if it has none.
    template : str
        The pattern of keys: ``template % idx`` is the key of a stored object, below the array's.
    """

    grain: Shape
    pipeline: Pipeline
    shards: Shards | None
    template: str

    def index(self, key: str) -> Shape | None:
        """Return the index of the stored object with a key, or None if the key is of another kind.

        Parameters
        ----------
        key : str
            The key, below the array's.
        """
        pattern = re.escape(self.template).replace("%d", r"(0|[1-9]\d*)")
        found = re.fullmatch(pattern, key)
        return tuple(map(int, found.groups())) if found else None


def layout(metadata: DatasetMetadata) -> Layout:
    """Return the layout of an array that `from_json` or `new_array` described."""
    document = metadata.storage["zarr"]
    where = "zarr.json"
    grain = _chunk_shape(document, metadata.ndim, where)
    shards = None
    codecs = document["codecs"]
    specs = _sharding(codecs, where)
    if specs is not None:
        shards = Shards(specs, grain, metadata.dtype, where)
        pipeline = shards.pipeline
    else:
        pipeline = Pipeline(codecs, metadata.dtype, grain, where)
    template = _template(document["chunk_key_encoding"], metadata.ndim, where)
    return Layout(grain, pipeline, shards, template)


def is_sharded(metadata: DatasetMetadata) -> bool:
    """Return True if the chunks of an array share objects."""
    return _sharding(metadata.storage["zarr"]["codecs"], DOCUMENT) is not None


def stored_alike(one: DatasetMetadata, other: DatasetMetadata) -> bool:
    """Return True if two arrays have equal dtypes, chunk grids, keys of chunks and codecs."""
    fields = ("chunk_grid", "chunk_key_encoding", "codecs")
    a, b = one.storage["zarr"], other.storage["zarr"]
    # Data types are compared as they are read, because zarr-python changes the form of one with
    # fields when it rewrites a document. They include the byte order.
    return (one.dtype, one.ndim) == (other.dtype, other.ndim) and all(
        _usual(a[f]) == _usual(b[f]) for f in fields
    )


def id_of(metadata: DatasetMetadata) -> str | None:
    """Return the id of an array, or None.

    No other array has the same id, not even one that is created again under the same name. Arrays
    of other programs, and of versions of dosna that did not write ids, have None.
    """
    found = metadata.storage["zarr"].get(_OWN, {}).get("id")
    return found if isinstance(found, str) else None


def _usual(spec: Any, ordered: bool = False) -> Any:
    """Return a spec in a form that does not depend on its writer.

    The byte order is left out unless `ordered`.
    """
    if isinstance(spec, list):
        return [_usual(s, ordered) for s in spec]
    if isinstance(spec, Mapping):
        usual = {k: _usual(v, ordered or k == "index_codecs") for k, v in spec.items()}
        usual = {k: v for k, v in usual.items() if v not in ({}, [])}
        if not ordered:
            usual.pop("endian", None)
        return usual["name"] if usual.keys() == {"name"} else usual
    return spec


def new_array(
    metadata: DatasetMetadata,
    compression: Any = None,
    checksum: bool = True,
    shards: Shape | None = None,
    dims: Sequence[str | None] | None = None,
) -> DatasetMetadata:
    """Make the document of a new array.

    Parameters
    ----------
    metadata : DatasetMetadata
        The description of the array.
    compression : None, str or mapping
        The compressor; see `dosna.codecs.pipeline.compressor`.
    checksum : bool
        True if every chunk should end with a CRC-32C. The index of a shard always has one.
    shards : tuple of int, optional
        The extent of a shard, a multiple of the chunk's on each axis.
    dims : sequence of str or None, optional
        The names of the axes.

    Returns
    -------
    DatasetMetadata
        `metadata` with the document in ``storage``.

    Raises
    ------
    ConfigurationError
        The value of an option is not valid.
    TypeError
        Zarr does not have the dtype.
    """
    dtype, ndim = metadata.dtype, metadata.ndim
    data_type = data_type_of(dtype)
    codecs: list[Any] = [{"name": "vlen-utf8" if is_text(dtype) else "bytes"}]
    endian = endian_of(dtype)
    if endian is not None:
        codecs[0]["configuration"] = {"endian": endian}
    compressed = compressor(compression, dtype)
    if compressed is not None:
        codecs.append(compressed)
    if not isinstance(checksum, bool):
        raise ConfigurationError(f"checksum is True or False, and {checksum!r} was given")
    if checksum:
        codecs.append({"name": "crc32c"})
    grain = metadata.chunk_size
    if shards is not None:
        grain = _check_shards(shards, metadata.chunk_size)
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        configuration = {
            "chunk_shape": list(metadata.chunk_size),
            "codecs": codecs,
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(metadata.shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grain)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": encode_fill(metadata.fillvalue, dtype),
        "codecs": codecs,
        "attributes": {},
        _OWN: {"id": secrets.token_hex(8)},
    }
    if dims is not None:
        document["dimension_names"] = list(check_dims(dims, ndim) or ())
    return metadata.replace(storage={"zarr": document})


def _check_shards(shards: Any, chunk_size: Shape) -> Shape:
    grain = (shards,) if isinstance(shards, (int, np.integer)) else tuple(shards)
    if len(grain) != len(chunk_size) or any(
        isinstance(g, bool) or not isinstance(g, (int, np.integer)) or g < 1 or g % c
        for g, c in zip(grain, chunk_size, strict=False)
    ):
        raise ConfigurationError(
            f"shards {shards!r} are not made of whole chunks of {chunk_size}: give a multiple of "
            "the chunk's extent on each axis"
        )
    if not grain:
        raise ConfigurationError("a dataset without axes has one chunk, and no shards")
    return tuple(map(int, grain))


def options_of(metadata: DatasetMetadata) -> dict[str, Any]:
    """Return the options of `new_array` for an array that is stored in the same way."""
    document = metadata.storage["zarr"]
    made = layout(metadata)
    codecs = document["codecs"]
    if made.shards is not None:
        codecs = codecs[0]["configuration"]["codecs"]
    compression = None
    for spec in codecs:
        if isinstance(spec, Mapping) and spec["name"] in ("gzip", "zstd", "blosc"):
            compression = {"name": spec["name"], **spec.get("configuration", {})}
            # It depends on the dtype, which may be another in the new array.
            compression.pop("typesize", None)
    return {
        "compression": compression,
        "checksum": made.pipeline.checks > 0,
        "shards": None if made.shards is None else made.grain,
        "dims": dims_of(metadata),
    }


def dims_of(metadata: DatasetMetadata) -> tuple[str | None, ...] | None:
    """Return the names of the axes, or None if they have none."""
    names = metadata.storage["zarr"].get("dimension_names")
    return None if names is None else tuple(names)


def to_json(metadata: DatasetMetadata) -> bytes:
    """Return the ``zarr.json`` of an array that `from_json` or `new_array` described."""
    document = dict(metadata.storage["zarr"])
    document["shape"] = list(metadata.shape)
    document["attributes"], exact = to_document(metadata.attrs, metadata.dtype)
    # The shape for which the array is trimmed: another program may give it another one.
    own = {**document.pop(_OWN, {}), "must_understand": False, "trimmed": list(metadata.shape)}
    if not metadata.trimmed:
        del own["trimmed"]
    for name in (*LOADING, _EXACT):
        own.pop(name, None)
    if exact:
        own[_EXACT] = exact
    return json.dumps(document, indent=2)[:-2].encode() + _end({**own, **metadata.loading})


def _end(own: Mapping[str, Any]) -> bytes:
    """Return the last bytes of a document that dosna writes.

    No other program writes an object on one line in a document of many lines. Therefore a document
    with another end was written by another program since, which may have kept the object and
    changed the shape twice, or restored an older document as a whole.
    """
    return f',\n  "{_OWN}": {json.dumps(own)}\n}}'.encode()


def revised(metadata: DatasetMetadata) -> DatasetMetadata:
    """Return metadata with the next revision, to be written; see `revision_of`."""
    document = metadata.storage["zarr"]
    own = {**document.get(_OWN, {}), "revision": revision_of(metadata) + 1}
    return metadata.replace(storage={"zarr": {**document, _OWN: own}})


def revision_of(metadata: DatasetMetadata) -> int:
    """Return the number of times that dosna has changed the document of an array.

    A document with a lower revision than one that was read before is an older copy, which another
    program has written back.
    """
    found = metadata.storage["zarr"].get(_OWN, {}).get("revision")
    return found if type(found) is int and found > 0 else 0


def node_type(data: bytes | memoryview, where: str) -> Any:
    """Return the ``node_type`` of a document: 'array' or 'group'.

    Raises
    ------
    FormatError
        The document is not JSON of Zarr v3.
    """
    return _parse(data, where).get("node_type")


def group_attributes(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """Return the attributes in the description of a group."""
    return attributes_in(_parse(data, where), where)


def attributes_in(
    document: Mapping[str, Any], where: str, dtype: np.dtype[Any] | None = None
) -> dict[str, Any]:
    """Return the attributes in a document, as `dosna.core.values.decode_value` reads them.

    Parameters
    ----------
    document : mapping
        The document of an array or a group.
    where : str
        The name of the document in errors.
    dtype : numpy.dtype, optional
        The dtype of the array; None for a group.
    """
    found = document.get("attributes", {})
    if not isinstance(found, dict):
        raise FormatError(f"{where}: its attributes are not an object")
    if dtype is None:
        return from_group(found)
    own = document.get(_OWN, {})
    return from_document(found, own.get(_EXACT) if isinstance(own, Mapping) else None, dtype)


def with_attributes(data: bytes | memoryview, attrs: Mapping[str, Any], where: str) -> bytes:
    """Return the description of a group with its attributes replaced by `attrs`."""
    document = {**_parse(data, where), "attributes": to_group(attrs)}
    document.pop(_CONSOLIDATED, None)
    return json.dumps(document, indent=2).encode()


def without_consolidated(data: bytes | memoryview, where: str) -> bytes | None:
    """Return the description of a group without the copies of the documents below it.

    None is returned if there are no copies. Other programs rely on the copies, which become wrong
    when the documents below change.
    """
    if f'"{_CONSOLIDATED}"'.encode() not in bytes(data):
        return None
    document = _parse(data, where)
    if document.get("node_type") != "group" or _CONSOLIDATED not in document:
        return None
    del document[_CONSOLIDATED]
    return json.dumps(document, indent=2).encode()


def _parse(data: bytes | memoryview, where: str) -> Document:
    try:
        document = json.loads(bytes(data))
    except ValueError as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise _too_deep(where) from None
    if not isinstance(document, dict):
        raise FormatError(f"{where} is not a JSON object")
    _check_depth(document, _DEEPEST, where)
    found = document.get("zarr_format")
    if found != 3:
        raise FormatError(f"{where} has zarr_format {found!r}, and dosna reads 3")
    return document


def _check_depth(value: Any, left: int, where: str) -> None:
    if isinstance(value, (dict, list)):
        if not left:
            raise _too_deep(where)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                _check_depth(inner, left - 1, where)


def _too_deep(where: str) -> FormatError:
    return FormatError(f"{where} has objects in each other, more than {_DEEPEST} deep")


def from_json(data: bytes | memoryview, where: str) -> DatasetMetadata:
    """Read the ``zarr.json`` of an array.

    Parameters
    ----------
    data : bytes or memoryview
        The bytes of the document.
    where : str
        The name of the document in errors.

    Raises
    ------
    FormatError
        The document is broken, or has an unknown part, which the message names.
    """
    document = _parse(data, where)
    try:
        # A program that has written the document since may have changed the array as well.
        ours = bytes(data).endswith(_end(document.get(_OWN, {})))
        return _described(document, where, ours)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where} is broken: {error!r}") from error


def _described(document: Document, where: str, ours: bool) -> DatasetMetadata:
    if document["node_type"] != "array":
        raise FormatError(f"{where} describes a {document['node_type']!r}, and not an array")
    for name in document.keys() - _FIELDS:
        field = document[name]
        if not isinstance(field, Mapping) or field.get("must_understand") is not False:
            raise FormatError(
                f"{where} has the field {name!r}, which dosna does not know, and which is not "
                "marked as one to ignore"
            )
    for transformer in document.get("storage_transformers", ()):
        named(transformer, "storage transformer", where, ())
    shape = _extents(document["shape"], 0, f"{where}: shape")
    grain = _chunk_shape(document, len(shape), where)
    specs = _sharding(document["codecs"], where)
    codecs = document["codecs"] if specs is None else specs["codecs"]
    dtype = dtype_of(document["data_type"], byte_order(codecs), where)
    names = document.get("dimension_names")
    if names is not None and (
        len(names) != len(shape) or not all(n is None or isinstance(n, str) for n in names)
    ):
        raise FormatError(f"{where}: dimension_names {names!r} do not name {len(shape)} axes")
    own = document.get(_OWN, {})
    if not isinstance(own, Mapping):
        raise FormatError(f"{where}: {_OWN!r} is not an object")
    described = DatasetMetadata(
        shape,
        dtype,
        decode_fill(document["fill_value"], dtype, where),
        grain if specs is None else _extents(specs["chunk_shape"], 1, f"{where}: chunk_shape"),
        attributes_in(document, where, dtype),
        {"zarr": document},
        ours and own.get("trimmed") == list(shape),
        *loading_of(own),
    )
    layout(described)
    return described


def _extents(value: Any, least: int, what: str) -> Shape:
    if not isinstance(value, list) or any(type(n) is not int or n < least for n in value):
        raise FormatError(f"{what} is {value!r}, and should be integers from {least} on")
    return tuple(value)


def _chunk_shape(document: Document, ndim: int, where: str) -> Shape:
    _, configuration = named(document["chunk_grid"], "chunk grid", where, ("regular",))
    shape = _extents(configuration.pop("chunk_shape", None), 1, f"{where}: chunk_shape")
    if configuration or len(shape) != ndim:
        raise FormatError(f"{where}: the chunk grid {document['chunk_grid']!r} is broken")
    return shape


def _sharding(codecs: Any, where: str) -> dict[str, Any] | None:
    """Return the configuration of ``sharding_indexed``, or None if the array does not have it."""
    if not isinstance(codecs, list) or not codecs:
        raise FormatError(f"{where} has no codecs")
    names = [name_of(spec) for spec in codecs]
    if "sharding_indexed" not in names:
        return None
    if len(codecs) > 1:
        raise FormatError(f"{where}: codecs around sharding_indexed are not supported: {names}")
    return named(codecs[0], "codec", where, ("sharding_indexed",))[1]


def _template(spec: Any, ndim: int, where: str) -> str:
    name, configuration = named(spec, "chunk key encoding", where, ("default", "v2"))
    separator = configuration.pop("separator", "/" if name == "default" else ".")
    if configuration or separator not in ("/", "."):
        raise FormatError(f"{where}: the chunk key encoding {spec!r} is unknown")
    parts = ["%d"] * ndim
    if name == "default":
        return str(separator.join(["c", *parts]))
    return str(separator.join(parts)) if parts else "0"
