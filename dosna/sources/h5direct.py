"""Elements of an HDF5 dataset read from the file's bytes, and decoded outside of libhdf5's lock.

Where the bytes are, libhdf5 says once; what is stored in another way is left to it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from h5py import h5d, h5z

from dosna.metadata import DatasetMetadata, Shape
from dosna.plan import plan
from dosna.selection import select
from dosna.sources.base import Array, Box
from dosna.sources.contiguous import ContiguousReader
from dosna.sources.files import ByteFile
from dosna.sources.h5chunks import (
    BITSHUFFLE,
    SHUFFLE,
    ChunkReader,
    Filter,
    Records,
    decoders_of,
    numbers_of,
)
from dosna.sources.h5types import is_stored_as

__all__ = ["DirectChunks", "chunk_records", "direct_reader", "filters_of", "offset_of"]

_MOST_CHUNKS = 1 << 24


class DirectChunks:
    """Reads boxes of a chunked dataset.

    Parameters
    ----------
    file : ByteFile
    dataset : h5py.Dataset
    dtype : numpy.dtype
    decoders : sequence
        See `dosna.sources.h5chunks.ChunkReader`.
    """

    def __init__(
        self, file: ByteFile, dataset: Any, dtype: np.dtype[Any], decoders: Sequence[Any]
    ) -> None:
        metadata = DatasetMetadata(dataset.shape, dtype, dataset.fillvalue, dataset.chunks)
        self._metadata = metadata
        self._records = np.zeros((3, metadata.total_chunks), np.int64)
        numbers, records = chunk_records(dataset)
        self._records[:, numbers] = records
        self._reader = ChunkReader(file, metadata, decoders, self._find)

    def _find(self, indices: Sequence[Shape]) -> Records:
        return self._records[:, numbers_of(indices, self._metadata.chunk_grid)]

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box to memory of its shape."""
        meta = self._metadata
        self._reader.read_many(out, plan(select(box, meta.shape), meta.chunk_size))


def direct_reader(
    file: ByteFile | None, dataset: Any, dtype: np.dtype[Any]
) -> ContiguousReader | DirectChunks | None:
    """Give what reads a dataset without libhdf5; None if that is not known how."""
    if file is None or not is_stored_as(dataset, dtype) or not dataset.size:
        return None
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if layout == h5d.CONTIGUOUS and not creation.get_external_count():
        offset = offset_of(dataset)
        if offset is None:
            return None
        return ContiguousReader(file, offset, dataset.shape, dtype)
    if (
        layout == h5d.CHUNKED
        and prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        <= _MOST_CHUNKS
    ):
        filters = filters_of(dataset)
        if any(code == BITSHUFFLE for code, _ in filters) and h5z.filter_avail(BITSHUFFLE):
            return None  # libhdf5's is several times as fast
        decoders = decoders_of(filters, dtype.itemsize)
        if decoders is None:
            return None
        # A file may leave chunks at the edge unfiltered, which no mask says (H5Pset_chunk_opts).
        # All other filters notice.
        edge = any(n % c for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if edge and {code for code, _ in filters} == {SHUFFLE}:
            return None
        return DirectChunks(file, dataset, dtype, decoders)
    return None


def offset_of(dataset: Any) -> int | None:
    """Give where a contiguous dataset begins; None if nothing of it was ever written."""
    # After a user block, libhdf5 gives an offset also of what is nowhere.
    found: int | None = dataset.id.get_offset() if dataset.id.get_storage_size() else None
    return found


def filters_of(dataset: Any) -> tuple[Filter, ...]:
    """Give the filters of a dataset, in the order of writing."""
    creation = dataset.id.get_create_plist()
    found = (creation.get_filter(number) for number in range(creation.get_nfilters()))
    return tuple((code, tuple(values)) for code, _, values, _ in found)


def chunk_records(dataset: Any) -> tuple[npt.NDArray[np.int64], Records]:
    """List the chunks that are stored: their numbers, in C order of the grid, and records."""
    # There may be millions: numbers in an array take a tenth of the memory of objects.
    found = array("q")
    extend = found.extend

    def note(info: Any) -> None:
        start, mask, offset, size = info
        extend(start)
        extend((offset, size, mask))

    dataset.id.chunk_iter(note)
    axes = len(dataset.shape)
    table = np.frombuffer(found, np.int64).reshape(-1, axes + 3).T
    grid = tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    indices = table[:axes].T // np.array(dataset.chunks, np.int64)
    return numbers_of(indices, grid), table[axes:]
