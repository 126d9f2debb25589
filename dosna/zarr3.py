"""Datasets as Zarr v3 arrays: ``zarr.json``, data types, fill values, keys of chunks.

https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html; data types beyond it as
zarr-python 3 writes them. What dosna does not know is refused by its name, but for what may be
ignored (``must_understand: false``), which an update leaves as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosna.codecs import Pipeline, byte_order, byte_order_matters, compressor, name_of, named
from dosna.errors import ConfigurationError, FormatError
from dosna.metadata import LOADING, DatasetMetadata, Shape, loading_of
from dosna.shards import Shards
from dosna.zarr3types import data_type_of, decode_fill, dtype_of, encode_fill

__all__ = [
    "DOCUMENT",
    "GROUP",
    "Layout",
    "dims_of",
    "from_json",
    "group_attributes",
    "is_sharded",
    "layout",
    "new_array",
    "node_type",
    "options_of",
    "stored_alike",
    "to_json",
    "with_attributes",
]

DOCUMENT = "zarr.json"
"""The name of the object that describes an array or a group."""

GROUP = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}, indent=2).encode()
"""The description of a new group."""

Document = dict[str, Any]

_OWN = "dosna"
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
    """How the chunks of an array are stored.

    Parameters
    ----------
    grain : tuple of int
        Extent of a stored object: of a chunk, or of a shard.
    pipeline : Pipeline
        Of a chunk.
    shards : Shards or None
    template : str
        ``template % idx`` is the key of a stored object, below the array's.
    """

    grain: Shape
    pipeline: Pipeline
    shards: Shards | None
    template: str

    def index(self, key: str) -> Shape | None:
        """Give the index of the stored object of a key below the array's; None if it is none."""
        pattern = re.escape(self.template).replace("%d", r"(0|[1-9]\d*)")
        found = re.fullmatch(pattern, key)
        return tuple(map(int, found.groups())) if found else None


def layout(metadata: DatasetMetadata) -> Layout:
    """Give the layout of an array that `from_json` or `new_array` described."""
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
    """Whether the chunks of an array share objects."""
    return _sharding(metadata.storage["zarr"]["codecs"], DOCUMENT) is not None


def stored_alike(one: DatasetMetadata, other: DatasetMetadata) -> bool:
    """Whether the chunks of two arrays are stored in the same way."""
    fields = ("data_type", "chunk_grid", "chunk_key_encoding", "codecs")
    a, b = one.storage["zarr"], other.storage["zarr"]
    return all(_plain(a[f]) == _plain(b[f]) for f in fields) and one.ndim == other.ndim


def _plain(spec: Any) -> Any:
    """Give a spec as every writer would spell it."""
    if isinstance(spec, list):
        return [_plain(s) for s in spec]
    if isinstance(spec, Mapping):
        plain = {k: _plain(v) for k, v in spec.items() if v not in ({}, [])}
        return plain["name"] if plain.keys() == {"name"} else plain
    return spec


def new_array(
    metadata: DatasetMetadata,
    compression: Any = None,
    checksum: bool = True,
    shards: Shape | None = None,
    dims: Sequence[str | None] | None = None,
) -> DatasetMetadata:
    """Describe a new array.

    Parameters
    ----------
    metadata : DatasetMetadata
    compression : None, str or mapping
        See `dosna.codecs.compressor`.
    checksum : bool
        Whether chunks, and the index of shards, end with a CRC-32C.
    shards : tuple of int, optional
        Extent of a shard, multiples of the chunks'.
    dims : sequence of str or None, optional
        Names of the axes.

    Returns
    -------
    DatasetMetadata
        With the document in ``storage``.

    Raises
    ------
    ConfigurationError
        An option that does not fit.
    TypeError
        A dtype that Zarr does not have.
    """
    dtype, ndim = metadata.dtype, metadata.ndim
    data_type = data_type_of(dtype)
    codecs: list[Any] = [{"name": "bytes"}]
    if byte_order_matters(dtype):
        big = dtype.newbyteorder("=") != dtype
        codecs[0]["configuration"] = {"endian": "big" if big else "little"}
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
    }
    if dims is not None:
        names = list(dims)
        if (
            isinstance(dims, str)
            or len(names) != ndim
            or not all(name is None or isinstance(name, str) for name in names)
        ):
            raise ConfigurationError(f"dims names {ndim} axes by str or None, not {dims!r}")
        document["dimension_names"] = names
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
    """Give the options of `new_array` that describe an array stored alike."""
    document = metadata.storage["zarr"]
    made = layout(metadata)
    codecs = document["codecs"]
    if made.shards is not None:
        codecs = codecs[0]["configuration"]["codecs"]
    compression = None
    for spec in codecs:
        if isinstance(spec, Mapping) and spec["name"] in ("gzip", "zstd", "blosc"):
            compression = {"name": spec["name"], **spec.get("configuration", {})}
            # That of another dtype is another.
            compression.pop("typesize", None)
    return {
        "compression": compression,
        "checksum": made.pipeline.checks > 0,
        "shards": None if made.shards is None else made.grain,
        "dims": dims_of(metadata),
    }


def dims_of(metadata: DatasetMetadata) -> tuple[str | None, ...] | None:
    """Give the names of the axes, if they have any."""
    names = metadata.storage["zarr"].get("dimension_names")
    return None if names is None else tuple(names)


def to_json(metadata: DatasetMetadata) -> bytes:
    """Give the ``zarr.json`` of an array that `from_json` or `new_array` described."""
    document = dict(metadata.storage["zarr"])
    document["shape"] = list(metadata.shape)
    document["attributes"] = dict(metadata.attrs)
    # Of a shape that somebody else gives the array, nothing will be known.
    own = {**document.get(_OWN, {}), "must_understand": False, "trimmed": list(metadata.shape)}
    if not metadata.trimmed:
        del own["trimmed"]
    for name in LOADING:
        own.pop(name, None)
    document[_OWN] = {**own, **metadata.loading}
    return json.dumps(document, indent=2).encode()


def node_type(data: bytes | memoryview, where: str) -> Any:
    """Tell an array from a group.

    Raises
    ------
    FormatError
        It is not JSON of Zarr v3.
    """
    return _parse(data, where).get("node_type")


def group_attributes(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """Give the attributes in the description of a group."""
    found = _parse(data, where).get("attributes", {})
    if not isinstance(found, dict):
        raise FormatError(f"{where}: its attributes are not an object")
    return found


def with_attributes(data: bytes | memoryview, attrs: Mapping[str, Any], where: str) -> bytes:
    """Give the description of a group with other attributes."""
    return json.dumps({**_parse(data, where), "attributes": dict(attrs)}, indent=2).encode()


def _parse(data: bytes | memoryview, where: str) -> Document:
    try:
        document = json.loads(bytes(data))
    except ValueError as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{where} is not a JSON object")
    found = document.get("zarr_format")
    if found != 3:
        raise FormatError(f"{where} has zarr_format {found!r}, and dosna reads 3")
    return document


def from_json(data: bytes | memoryview, where: str) -> DatasetMetadata:
    """Read the ``zarr.json`` of an array.

    Parameters
    ----------
    data : bytes or memoryview
    where : str
        How errors call it.

    Raises
    ------
    FormatError
        It is broken, or has something that dosna does not know; says what.
    """
    document = _parse(data, where)
    try:
        return _described(document, where)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where} is broken: {error!r}") from error


def _described(document: Document, where: str) -> DatasetMetadata:
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
        dict(document.get("attributes", {})),
        {"zarr": document},
        own.get("trimmed") == list(shape),
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
    """Give the configuration of ``sharding_indexed``, if that is what the array has."""
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
