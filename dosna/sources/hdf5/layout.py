"""The HDF5 datasets that can be linked, and the places of their chunks."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d

from dosna.backends.linked.link import MOST_KEPT
from dosna.codecs.hdf5 import Filter, decoders_of
from dosna.core.metadata import TARGET_CHUNK_BYTES
from dosna.core.types import Shape
from dosna.errors import RefusedError
from dosna.io.contiguous import rows
from dosna.sources.hdf5.direct import filters_of, offset_of, read_by_libhdf5, stored_records
from dosna.sources.hdf5.strings import blocks
from dosna.sources.hdf5.types import Representation, grid_of, is_stored_as, stored_fill

__all__ = ["Layout", "stored_layout"]


_MOST_CHUNKS = 1 << 56
"""Most chunks of a linked dataset: their table has 24 bytes for each, counted in 64 bits."""


_MOST_COMPARED = 64 << 20


class Layout(NamedTuple):
    """The layout of a dataset's elements in its file; see `dosna.backends.linked.link.Link`."""

    chunk_size: Shape
    filters: tuple[Filter, ...]
    offset: int | None
    fillvalue: Any
    records: tuple[int, ...] | None = None


def stored_layout(dataset: Any, as_: Representation) -> Layout | None:
    """Return the layout of a dataset; None if it is empty, a scalar, or compact.

    Raises
    ------
    RefusedError
        If a dataset that links to the elements could not read them. The message says why.
    """
    if as_.empty or not dataset.shape or not dataset.size:
        return None
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if layout == h5d.COMPACT:
        return None
    if dataset.is_virtual:
        raise RefusedError("it is a virtual dataset: link the files that it shows")
    if creation.get_external_count():
        raise RefusedError("its elements are in raw files outside of its file")
    if as_.strings:
        raise RefusedError(
            "its elements are strings of variable length, which are not stored in its chunks"
        )
    if as_.shape != dataset.shape:
        raise RefusedError("its elements are arrays")
    if not is_stored_as(dataset, as_.dtype) and not _is_padded_so(dataset, as_.dtype):
        raise RefusedError(f"its elements are not stored as those of {as_.dtype} in memory")
    filters = filters_of(dataset)
    for code, values in filters:
        if decoders_of([(code, values)], as_.dtype.itemsize) is None:
            raise RefusedError(
                f"its chunks have the filter {code}, which dosna can undo only by libhdf5"
            )
    if decoders_of(filters, as_.dtype.itemsize) is None:
        codes = ", ".join(str(code) for code, _ in filters)
        raise RefusedError(
            f"its chunks have the filters {codes} in this order, which only libhdf5 can undo"
        )
    fillvalue = stored_fill(dataset, as_.dtype)
    if layout == h5d.CHUNKED:
        count = prod(grid_of(dataset))
        if count > _MOST_CHUNKS:
            raise RefusedError(f"it has room for {count} chunks, too many to be counted")
        return Layout(tuple(dataset.chunks), filters, None, fillvalue, _few_records(dataset))
    chunk_size = rows(as_.shape, as_.dtype.itemsize, TARGET_CHUNK_BYTES)
    assert chunk_size is not None
    return Layout(chunk_size, (), offset_of(dataset), fillvalue)


def _is_padded_so(dataset: Any, dtype: np.dtype[Any]) -> bool:
    """Return True if all strings are padded like NumPy's, although their type does not say so.

    A linked file does not change, so it is enough to look at all of them once.
    """
    if not is_stored_as(dataset, dtype, padded=False) or dataset.nbytes > _MOST_COMPARED:
        return False
    for box in blocks(dataset.shape):
        extent = [s.stop - s.start for s in box]
        stored, seen = np.zeros(extent, dtype), np.zeros(extent, dtype)
        read_by_libhdf5(dataset, box, stored, True)
        read_by_libhdf5(dataset, box, seen, False)
        if stored.tobytes() != seen.tobytes():
            return False
    return True


def _few_records(dataset: Any) -> tuple[int, ...] | None:
    count = prod(grid_of(dataset))
    if count > MOST_KEPT:
        return None
    numbers, records = stored_records(dataset)
    found = np.zeros((count, 3), np.int64)
    found[numbers] = records.T
    return tuple(found.reshape(-1).tolist())
