"""The documents of new arrays, and the options by which they are made."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from dosna.codecs.arrays import endian_of
from dosna.codecs.base import ArrayBytesCodec, BytesBytesCodec
from dosna.codecs.kinds import compressor, option_of, registry
from dosna.codecs.zarr.document import dims_of
from dosna.codecs.zarr.layout import layout
from dosna.codecs.zarr.parsing import OWN
from dosna.codecs.zarr.types import data_type_of, encode_fill
from dosna.core.metadata import DatasetMetadata, check_dims
from dosna.core.options import check_choice
from dosna.core.text import is_text
from dosna.core.types import Json, Shape
from dosna.errors import ConfigurationError, FormatError

__all__ = ["new_array", "options_of"]


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
    compression : None, str, mapping or sequence of these
        The codec (see `dosna.codecs.kinds.compressor`), or several in the order of encoding.
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
    dtype = metadata.dtype
    codecs = _codecs(compression, checksum, dtype)
    grain = metadata.chunk_size
    if shards is not None:
        grain = _check_shards(shards, metadata.chunk_size)
        codecs = [_sharding(metadata.chunk_size, codecs)]
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(metadata.shape),
        "data_type": data_type_of(dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grain)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": encode_fill(metadata.fillvalue, dtype),
        "codecs": codecs,
        "attributes": {},
        OWN: {"id": secrets.token_hex(8)},
    }
    if dims is not None:
        document["dimension_names"] = list(check_dims(dims, metadata.ndim) or ())
    made = metadata.replace(storage={"zarr": document})
    try:
        layout(made)
    except FormatError as error:
        raise ConfigurationError(f"the codecs do not take the array: {error}") from error
    return made


def _codecs(compression: Any, checksum: bool, dtype: np.dtype[Any]) -> list[Json]:
    """Return the codecs of chunks: those given, the checksum, and one that makes bytes."""
    given = compression if isinstance(compression, (list, tuple)) else [compression]
    codecs = [spec for option in given if (spec := compressor(option, dtype)) is not None]
    kinds = [registry.get(spec["name"]).codec for spec in codecs]
    if not any(issubclass(kind, ArrayBytesCodec) for kind in kinds):
        at = next((n for n, k in enumerate(kinds) if issubclass(k, BytesBytesCodec)), len(kinds))
        # A codec before it may make larger elements of those that have no byte order.
        codecs.insert(at, _to_bytes(dtype, endian_of(dtype) or ("little" if at else None)))
    check_choice("checksum", checksum, (True, False))
    return [*codecs, {"name": "crc32c"}] if checksum else codecs


def _to_bytes(dtype: np.dtype[Any], endian: str | None) -> Json:
    spec: Json = {"name": "vlen-utf8" if is_text(dtype) else "bytes"}
    return spec if endian is None else {**spec, "configuration": {"endian": endian}}


def _sharding(chunk_size: Shape, codecs: list[Json]) -> Json:
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration = {
        "chunk_shape": list(chunk_size),
        "codecs": codecs,
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}


def _check_shards(shards: Any, chunk_size: Shape) -> Shape:
    grain = (shards,) if isinstance(shards, (int, np.integer)) else tuple(shards)
    if len(grain) != len(chunk_size) or any(
        isinstance(g, bool) or not isinstance(g, (int, np.integer)) or g < 1 or g % c
        for g, c in zip(grain, chunk_size, strict=False)
    ):
        raise ConfigurationError(
            f"shards {shards!r} do not hold whole chunks of {chunk_size}: give a multiple of "
            "the chunk's extent on each axis"
        )
    if not grain:
        raise ConfigurationError("a dataset without axes has one chunk: leave out shards")
    return tuple(map(int, grain))


def options_of(metadata: DatasetMetadata) -> dict[str, Any]:
    """Return the options of `new_array` for an array that is stored in the same way."""
    made = layout(metadata)
    codecs = metadata.storage["zarr"]["codecs"]
    if made.shards is not None:
        codecs = codecs[0]["configuration"]["codecs"]
    given = [option for spec in codecs if (option := option_of(spec)) is not None]
    return {
        "compression": None if not given else given[0] if len(given) == 1 else given,
        "checksum": made.pipeline.checks > 0,
        "shards": None if made.shards is None else made.grain,
        "dims": dims_of(metadata),
    }
