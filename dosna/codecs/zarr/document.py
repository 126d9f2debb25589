"""Documents of arrays of Zarr v3: reading and writing of ``zarr.json``.

The specification is https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html. Data types
beyond it are written as zarr-python 3 writes them. An unknown part of a document is refused by an
error that names it, unless it may be ignored (``must_understand: false``). An update of the
document keeps such parts unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from dosna.codecs.arrays import byte_order
from dosna.codecs.kinds import named
from dosna.codecs.zarr.attributes import EXACT, attributes_in, to_document
from dosna.codecs.zarr.layout import chunk_shape, layout, sharding
from dosna.codecs.zarr.parsing import OWN, extents, indented, parse
from dosna.codecs.zarr.types import decode_fill, dtype_of
from dosna.core.metadata import LOADING, DatasetMetadata, loading_of
from dosna.core.types import Json
from dosna.errors import FormatError

__all__ = [
    "array_in",
    "check_json",
    "dims_of",
    "from_json",
    "id_of",
    "revised",
    "revision_of",
    "to_json",
]

_MOST_KEPT, _LONGEST_KEPT = 256, 1 << 14
_kept: dict[bytes, DatasetMetadata] = {}
"""The contents of documents, by their bytes: parsing one takes as long as opening three files."""

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
    OWN,
}


def id_of(metadata: DatasetMetadata) -> str | None:
    """Return the id of an array, or None.

    No other array has the same id, not even one that is created again under the same name. Arrays
    of other programs, and of versions of dosna that did not write ids, have None.
    """
    found = metadata.storage["zarr"].get(OWN, {}).get("id")
    return found if isinstance(found, str) else None


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
    own = {**document.pop(OWN, {}), "must_understand": False, "trimmed": list(metadata.shape)}
    if not metadata.trimmed:
        del own["trimmed"]
    for name in (*LOADING, EXACT):
        own.pop(name, None)
    if exact:
        own[EXACT] = exact
    return indented(document)[:-2].encode() + _end({**own, **metadata.loading})


def check_json(metadata: DatasetMetadata) -> None:
    """Raise what `to_json` would raise; without attributes, that takes much less."""
    if metadata.attrs:
        to_json(metadata)
    else:
        json.dumps(metadata.loading)


def _end(own: Mapping[str, Any]) -> bytes:
    """Return the last bytes of a document that dosna writes.

    No other program writes an object on one line in a document of many lines. Therefore a document
    with another end was written by another program since, which may have kept the object and
    changed the shape twice, or restored an older document as a whole.
    """
    return f',\n  "{OWN}": {json.dumps(own)}\n}}'.encode()


def revised(metadata: DatasetMetadata) -> DatasetMetadata:
    """Return metadata with the next revision, to be written; see `revision_of`."""
    document = metadata.storage["zarr"]
    own = {**document.get(OWN, {}), "revision": revision_of(metadata) + 1}
    return metadata.replace(storage={"zarr": {**document, OWN: own}})


def revision_of(metadata: DatasetMetadata) -> int:
    """Return the number of times that dosna has changed the document of an array.

    A document with a lower revision than one that was read before is an older copy, which another
    program has written back.
    """
    found = metadata.storage["zarr"].get(OWN, {}).get("revision")
    return found if type(found) is int and found > 0 else 0


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
    found = array_in(data, where, ())
    assert found is not None
    return found


def array_in(
    data: bytes | memoryview, where: str, others: Collection[str] = ("group",)
) -> DatasetMetadata | None:
    """Read the ``zarr.json`` of an array, or return None if it describes something else.

    Parameters
    ----------
    data : bytes or memoryview
        The bytes of the document.
    where : str
        The name of the document in errors.
    others : collection of str
        The values of ``node_type`` for which None is returned.

    Raises
    ------
    FormatError
        The document is broken, or has an unknown part, which the message names.
    """
    image = bytes(data)
    known = _kept.get(image)
    if known is not None:
        return known
    document = parse(image, where)
    kind = document.get("node_type")
    if isinstance(kind, str) and kind in others:
        return None
    try:
        # A program that has written the document since may have changed the array as well.
        ours = image.endswith(_end(document.get(OWN, {})))
        found = _described(document, where, ours)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where} is broken: {error!r}") from error
    if len(image) <= _LONGEST_KEPT:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[image] = found
    return found


def _described(document: Json, where: str, ours: bool) -> DatasetMetadata:
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
    shape = extents(document["shape"], 0, f"{where}: shape")
    grain = chunk_shape(document, len(shape), where)
    specs = sharding(document["codecs"], where)
    codecs = document["codecs"] if specs is None else specs["codecs"]
    dtype = dtype_of(document["data_type"], byte_order(codecs), where)
    names = document.get("dimension_names")
    if names is not None and (
        len(names) != len(shape) or not all(n is None or isinstance(n, str) for n in names)
    ):
        raise FormatError(f"{where}: dimension_names {names!r} do not name {len(shape)} axes")
    own = document.get(OWN, {})
    if not isinstance(own, Mapping):
        raise FormatError(f"{where}: {OWN!r} is not an object")
    described = DatasetMetadata(
        shape,
        dtype,
        decode_fill(document["fill_value"], dtype, where),
        grain if specs is None else extents(specs["chunk_shape"], 1, f"{where}: chunk_shape"),
        attributes_in(document, where, dtype),
        {"zarr": document},
        ours and own.get("trimmed") == list(shape),
        *loading_of(own),
    )
    layout(described)
    return described
