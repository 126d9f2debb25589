"""Text in chunk files: HDF5's strings of variable length, in UTF-8, written and read by h5py.

An element of the dataset holds the length of its string, and the string's place in one of the
file's global heaps (HDF5 File Format Specification, III.E and IV.A.2.d). Filters would be
applied to these elements and not to the strings, so text has no filters. Its checksum is an
attribute.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from crc32c import crc32c
from h5py import h5d, h5t

from dosna.core import text as text
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

__all__ = ["CHECKSUM", "check", "fill", "load", "store", "type_of_text"]


CHECKSUM = "crc32c"
"""The attribute with the CRC-32C of a chunk's text, encoded as by Zarr's ``vlen-utf8``."""

_PLACE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])


def type_of_text() -> Any:
    """Return the HDF5 type of text."""
    return h5t.py_create(h5py.string_dtype(), logical=True)


def fill(value: str) -> Array:
    """Return a fill value in the form that h5py takes."""
    check([value])
    return np.array(value, h5py.string_dtype())


def check(texts: list[str]) -> None:
    """Raise ValueError for texts that HDF5 would cut off."""
    for one in texts:
        if "\0" in one:
            raise ValueError(
                f"the text {one[:40]!r} contains the character NUL, which ends strings of HDF5: "
                "use another backend, or remove it"
            )


def store(data: h5py.Dataset, chunk: Array, checked: bool) -> None:
    """Write a whole chunk."""
    check(chunk.ravel().tolist())
    data[()] = chunk.astype(object)
    if checked:
        data.attrs[CHECKSUM] = np.uint32(crc32c(text.encode(chunk)))


def load(data: h5py.Dataset, image: bytes, metadata: DatasetMetadata) -> Array:
    """Read a whole chunk from an image of its file.

    Raises
    ------
    ValueError
        The chunk is damaged, or is not of text.
    """
    found = h5py.check_string_dtype(data.dtype)
    if found is None or found.length is not None:
        raise ValueError(f"its /data has dtype {data.dtype}, not strings of variable length")
    _check_lengths(data, image)
    values = np.asarray(data[()], object)
    # h5py returns strings that were never written as bytes too, or as empty ones.
    texts = [value.decode() for value in values.ravel().tolist()]
    chunk = np.array(texts, text.TEXT).reshape(metadata.chunk_size)
    if metadata.storage.get("checksum"):
        expected = data.attrs.get(CHECKSUM)
        if expected is None or int(expected) != crc32c(text.encode(chunk)):
            raise ValueError("its checksum is wrong")
    return chunk


def _check_lengths(data: h5py.Dataset, image: bytes) -> None:
    """Raise ValueError for lengths that the file cannot hold, before memory is taken for them."""
    if data.id.get_create_plist().get_layout() != h5d.CONTIGUOUS:
        return  # another program wrote it, and libhdf5 reads it
    offset = data.id.get_offset()
    if offset is None:
        return
    places = np.frombuffer(image, _PLACE, data.size, offset)
    total = int(places["length"].sum(dtype=np.uint64))
    if total > len(image):
        raise ValueError(f"its strings are {total} bytes, and the file has {len(image)}")
