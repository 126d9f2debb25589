"""Which HDF5 datasets can be linked, and where their chunks lie."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from h5py import h5d

from dosna.errors import RefusedError
from dosna.metadata import TARGET_CHUNK_BYTES, Shape
from dosna.sources.base import Array
from dosna.sources.contiguous import rows
from dosna.sources.h5chunks import (
    UNFILTERED,
    Decoder,
    Filter,
    Records,
    UndecodableError,
    decoders_of,
    undone,
)
from dosna.sources.h5direct import chunk_records, filters_of, offset_of
from dosna.sources.h5types import Representation, is_stored_as
from dosna.sources.links import MOST_KEPT

__all__ = ["Layout", "stored_layout", "stored_records"]


_MOST_CHUNKS = 1 << 56
"""Their table has 24 bytes for each, whose number has to be one of 64 bits."""


class Layout(NamedTuple):
    """How the elements of a dataset lie in its file; see `dosna.sources.links.Link`."""

    chunk_size: Shape
    filters: tuple[Filter, ...]
    offset: int | None
    fillvalue: Any
    records: tuple[int, ...] | None = None


def stored_layout(dataset: Any, as_: Representation) -> Layout | None:
    """Say how the elements of a dataset lie; None for one that is small and not in chunks.

    Raises
    ------
    RefusedError
        They are not what a dataset that links to them could read; says why.
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
        raise RefusedError("its elements lie in raw files outside of it")
    if as_.strings:
        raise RefusedError("its elements are strings of variable length, which lie elsewhere")
    if as_.shape != dataset.shape:
        raise RefusedError("its elements are arrays")
    if not is_stored_as(dataset, as_.dtype):
        raise RefusedError(f"its elements are not stored as those of {as_.dtype} in memory")
    filters = filters_of(dataset)
    for code, values in filters:
        if decoders_of([(code, values)], as_.dtype.itemsize) is None:
            raise RefusedError(
                f"its chunks have the filter {code}, which dosna undoes only by libhdf5"
            )
    if decoders_of(filters, as_.dtype.itemsize) is None:
        codes = ", ".join(str(code) for code, _ in filters)
        raise RefusedError(
            f"its chunks have the filters {codes} in this order, which only libhdf5 undoes"
        )
    fillvalue = np.asarray(dataset.fillvalue).astype(as_.dtype)[()]
    if layout == h5d.CHUNKED:
        if _count(dataset) > _MOST_CHUNKS:
            raise RefusedError(f"it has room for {_count(dataset)} chunks, too many to be counted")
        return Layout(tuple(dataset.chunks), filters, None, fillvalue, _few_records(dataset))
    chunk_size = rows(as_.shape, as_.dtype.itemsize, TARGET_CHUNK_BYTES)
    assert chunk_size is not None
    return Layout(chunk_size, (), offset_of(dataset), fillvalue)


def _count(dataset: Any) -> int:
    return prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))


def _few_records(dataset: Any) -> tuple[int, ...] | None:
    count = _count(dataset)
    if count > MOST_KEPT:
        return None
    numbers, records = stored_records(dataset)
    found = np.zeros((count, 3), np.int64)
    found[numbers] = records.T
    return tuple(found.reshape(-1).tolist())


def stored_records(dataset: Any) -> tuple[npt.NDArray[np.int64], Records]:
    """List the chunks of a dataset that are stored: their numbers, and where they lie.

    A file may leave chunks at the edge unfiltered without saying so of each
    (``H5Pset_chunk_opts``), and h5py cannot ask whether it does. They are then marked as such.
    """
    if dataset.chunks is None:
        return np.zeros(0, np.int64), np.zeros((3, 0), np.int64)
    numbers, records = chunk_records(dataset)
    filters = filters_of(dataset)
    partial = [n % c != 0 for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    if filters and any(partial):
        grid = tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        places = np.array(np.unravel_index(numbers, grid))
        at_edge = np.zeros(len(numbers), bool)
        for axis, cut in enumerate(partial):
            at_edge |= cut & (places[axis] == grid[axis] - 1)
        if _leaves_edges(dataset, filters, places[:, at_edge].T, records[:, at_edge]):
            records[2, at_edge] = UNFILTERED
    return numbers, records


def _leaves_edges(
    dataset: Any, filters: tuple[Filter, ...], indices: Array, records: Records
) -> bool:
    """Whether chunks at the edge are unfiltered, by what libhdf5 reads of them."""
    nbytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    if (records[1] != nbytes).any():
        return False
    decoders = decoders_of(filters, dataset.dtype.itemsize) or []
    for idx, (_, _, mask) in zip(indices.tolist(), records.T.tolist(), strict=True):
        box = tuple(
            slice(i * c, min(n, (i + 1) * c))
            for i, c, n in zip(idx, dataset.chunks, dataset.shape, strict=True)
        )
        expected = dataset[box].tobytes()
        _, raw = dataset.id.read_direct_chunk(tuple(s.start for s in box))
        inside = tuple(slice(0, s.stop - s.start) for s in box)
        plain = _elements(raw, dataset, inside)
        filtered = _filtered(raw, dataset, inside, decoders, mask, nbytes)
        if (plain == expected) != (filtered == expected):
            return bool(plain == expected)
    return False


def _filtered(
    raw: bytes,
    dataset: Any,
    inside: tuple[slice, ...],
    decoders: list[tuple[int, Decoder]],
    mask: int,
    nbytes: int,
) -> bytes | None:
    try:
        data = undone(raw, [decode for bit, decode in decoders if not mask & bit], nbytes)
    except UndecodableError:
        return None
    return _elements(data, dataset, inside) if len(data) == nbytes else None


def _elements(data: Any, dataset: Any, inside: tuple[slice, ...]) -> bytes:
    chunk: Array = np.frombuffer(data, np.uint8).view(dataset.dtype).reshape(dataset.chunks)
    return bytes(chunk[inside].tobytes())
