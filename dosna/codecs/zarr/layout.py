"""The way in which the chunks of an array are stored: extents, codecs, shards, keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dosna.codecs.kinds import name_of, named
from dosna.codecs.pipeline import Pipeline
from dosna.codecs.zarr.parsing import DOCUMENT, extents
from dosna.codecs.zarr.shards import Shards
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Json, Shape
from dosna.errors import FormatError

__all__ = ["Layout", "chunk_shape", "is_sharded", "layout", "sharding", "stored_alike"]


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


_PLAIN = {"bytes", "crc32c"}
_MOST_KEPT = 256
_kept: dict[Any, Layout] = {}
"""Layouts that many small arrays share: making one takes as long as a request on loopback."""


def layout(metadata: DatasetMetadata) -> Layout:
    """Return the layout of an array that `from_json` or `new_array` described."""
    document = metadata.storage["zarr"]
    where = "zarr.json"
    codecs = document["codecs"]
    told = repr((document["chunk_grid"], document["chunk_key_encoding"], codecs))
    kept = (metadata.ndim, metadata.dtype, told)
    if kept in _kept:
        return _kept[kept]
    grain = chunk_shape(document, metadata.ndim, where)
    shards = None
    specs = sharding(codecs, where)
    if specs is not None:
        shards = Shards(specs, grain, metadata.dtype, where)
        pipeline = shards.pipeline
    else:
        pipeline = Pipeline(codecs, metadata.dtype, grain, where)
    template = _template(document["chunk_key_encoding"], metadata.ndim, where)
    made = Layout(grain, pipeline, shards, template)
    if _PLAIN.issuperset(map(name_of, codecs)):
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[kept] = made
    return made


def is_sharded(metadata: DatasetMetadata) -> bool:
    """Return True if the chunks of an array share objects."""
    return sharding(metadata.storage["zarr"]["codecs"], DOCUMENT) is not None


def stored_alike(one: DatasetMetadata, other: DatasetMetadata) -> bool:
    """Return True if two arrays have equal dtypes, chunk grids, keys of chunks and codecs."""
    fields = ("chunk_grid", "chunk_key_encoding", "codecs")
    a, b = one.storage["zarr"], other.storage["zarr"]
    # Data types are compared as they are read, because zarr-python changes the form of one with
    # fields when it rewrites a document. They include the byte order.
    return (one.dtype, one.ndim) == (other.dtype, other.ndim) and all(
        _usual(a[f]) == _usual(b[f]) for f in fields
    )


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


def chunk_shape(document: Json, ndim: int, where: str) -> Shape:
    """Return the extent of the stored objects of an array."""
    _, configuration = named(document["chunk_grid"], "chunk grid", where, ("regular",))
    shape = extents(configuration.pop("chunk_shape", None), 1, f"{where}: chunk_shape")
    if configuration or len(shape) != ndim:
        raise FormatError(f"{where}: the chunk grid {document['chunk_grid']!r} is broken")
    return shape


def sharding(codecs: Any, where: str) -> dict[str, Any] | None:
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
