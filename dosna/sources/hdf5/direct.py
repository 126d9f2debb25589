"""Elements of an HDF5 dataset, read from the file's bytes and decoded outside libhdf5's lock.

libhdf5 is asked once for the places of the bytes. It reads everything that is stored differently.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from math import prod
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5s, h5t, h5z

from dosna.backends.linked.reader import ChunkReader, Records, numbers_of
from dosna.codecs.hdf5 import (
    BITSHUFFLE,
    UNFILTERED,
    Decoder,
    Filter,
    UndecodableError,
    decoders_of,
    undone,
)
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import plan
from dosna.core.selection import select
from dosna.core.types import Array, Box, Shape
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import ContiguousReader
from dosna.io.h5chunks import read_stored_chunk
from dosna.sources.hdf5.types import dtype_of, grid_of, is_stored_as, stored_fill, stored_filters

__all__ = [
    "DirectChunks",
    "direct_reader",
    "filters_of",
    "offset_of",
    "read_by_libhdf5",
    "stored_records",
]

_MOST_CHUNKS = 1 << 24


class DirectChunks:
    """A reader of boxes of a chunked dataset.

    Parameters
    ----------
    file : ByteFile
    dataset : h5py.Dataset
    dtype : numpy.dtype
    decoders : sequence
        See `dosna.backends.linked.reader.ChunkReader`.
    """

    def __init__(
        self, file: ByteFile, dataset: Any, dtype: np.dtype[Any], decoders: Sequence[Any]
    ) -> None:
        fillvalue = stored_fill(dataset, dtype)
        metadata = DatasetMetadata(dataset.shape, dtype, fillvalue, dataset.chunks)
        self._metadata = metadata
        self._records = np.zeros((3, metadata.total_chunks), np.int64)
        numbers, records = stored_records(dataset)
        self._records[:, numbers] = records
        self._reader = ChunkReader(file, metadata, decoders, self._find)

    def _find(self, indices: Sequence[Shape]) -> Records:
        return self._records[:, numbers_of(indices, self._metadata.chunk_grid)]

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box into an array of its shape."""
        meta = self._metadata
        self._reader.read_many(out, plan(select(box, meta.shape), meta.chunk_size))


def direct_reader(
    file: ByteFile | None, dataset: Any, dtype: np.dtype[Any]
) -> ContiguousReader | DirectChunks | None:
    """Return a reader of a dataset that works without libhdf5; None if that is impossible."""
    if file is None or not is_stored_as(dataset, dtype) or not dataset.size:
        return None
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if layout == h5d.CONTIGUOUS and not creation.get_external_count():
        offset = offset_of(dataset)
        if offset is None:
            return None
        return ContiguousReader(file, offset, dataset.shape, dtype)
    if layout == h5d.CHUNKED and prod(grid_of(dataset)) <= _MOST_CHUNKS:
        filters = filters_of(dataset)
        if any(code == BITSHUFFLE for code, _ in filters) and h5z.filter_avail(BITSHUFFLE):
            return None  # libhdf5's filter is several times as fast
        decoders = decoders_of(filters, dtype.itemsize)
        if decoders is None:
            return None
        return DirectChunks(file, dataset, dtype, decoders)
    return None


def offset_of(dataset: Any) -> int | None:
    """Return the offset of a contiguous dataset; None if nothing of it was ever written."""
    # After a user block, libhdf5 returns an offset even if nothing is stored.
    found: int | None = dataset.id.get_offset() if dataset.id.get_storage_size() else None
    return found


def filters_of(dataset: Any) -> tuple[Filter, ...]:
    """Return the filters of a dataset, in the order of writing."""
    return tuple((code, values) for code, values, _ in stored_filters(dataset))


def read_by_libhdf5(dataset: Any, box: Box, out: Array, as_stored: bool) -> None:
    """Read a box into an array of its shape, which may stay unchanged where nothing is stored.

    Parameters
    ----------
    dataset : h5py.Dataset
        A dataset without strings or sequences of variable length.
    box : tuple of slice
        The box, which must not be empty.
    out : ndarray
        A contiguous array, whose elements have the same number of bytes as the dataset's.
    as_stored : bool
        Whether to read elements without conversion from the type in the file. h5py can read a few
        more types this way.
    """
    kind = dataset.id.get_type() if as_stored else h5t.py_create(dtype_of(dataset))
    if not dataset.shape:
        dataset.id.read(h5s.ALL, h5s.ALL, out, kind)
        return
    extent = tuple(s.stop - s.start for s in box)
    there = dataset.id.get_space()
    there.select_hyperslab(tuple(s.start for s in box), extent)
    dataset.id.read(h5s.create_simple(extent), there, out, kind)


def stored_records(dataset: Any) -> tuple[npt.NDArray[np.int64], Records]:
    """List the stored chunks: their numbers, in C order of the grid, and their records.

    A file may have unfiltered chunks at the edges without a mark on each of them
    (``H5Pset_chunk_opts``), and h5py cannot query this option. Such chunks are marked here.
    """
    if dataset.chunks is None:
        return np.zeros(0, np.int64), np.zeros((3, 0), np.int64)
    axes, grid, table = len(dataset.shape), grid_of(dataset), _listed(dataset)
    places, records = table[:axes].T // np.array(dataset.chunks, np.int64), table[axes:]
    filters = filters_of(dataset)
    partial = [n % c != 0 for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    if filters and any(partial):
        at_edge = ((places == np.array(grid) - 1) & partial).any(axis=1)
        if _leaves_edges(dataset, filters, places[at_edge], records[:, at_edge]):
            records[2, at_edge] = UNFILTERED
    return numbers_of(places, grid), records


def nothing_stored(dataset: Any) -> bool:
    """Return True if a dataset was never written, so that all of it is the fill value."""
    creation = dataset.id.get_create_plist()
    return (
        creation.get_layout() in (h5d.CONTIGUOUS, h5d.CHUNKED)
        and not creation.get_external_count()
        and not dataset.id.get_storage_size()
    )


def stored_chunks(dataset: Any) -> npt.NDArray[np.int64] | None:
    """List the places, in the grid, of the stored chunks; None if all are stored.

    The list is empty for a dataset without chunks of which nothing is stored.
    """
    axes = len(dataset.shape)
    if nothing_stored(dataset):
        return np.zeros((0, axes), np.int64)
    if dataset.id.get_create_plist().get_layout() != h5d.CHUNKED:
        return None
    found = _listed(dataset)[:axes].T // np.array(dataset.chunks, np.int64)
    return found if len(found) < prod(grid_of(dataset)) else None


def _listed(dataset: Any) -> npt.NDArray[np.int64]:
    """List the stored chunks: the start, the offset, the size and the mask of each."""
    # There may be millions. Numbers in an array take a tenth of the memory of objects.
    found = array("q")
    extend = found.extend

    def note(info: Any) -> None:
        start, mask, offset, size = info
        extend(start)
        extend((offset, size, mask))

    _for_each_chunk(dataset.id, note)
    axes = len(dataset.shape)
    table = np.frombuffer(found, np.int64).reshape(-1, axes + 3).T
    _place_by_number(dataset, table)
    block = dataset.file.userblock_size
    if block and not _counts_user_blocks():
        table[axes] += block
    return table


def _place_by_number(dataset: Any, table: npt.NDArray[np.int64]) -> None:
    """Correct the places of chunks that libhdf5 lists wrongly, in a table of `_listed`.

    If one axis alone is unlimited, and the file has the newer index of chunks, a chunk is found
    by its number in the grid of the largest shape, in which the unlimited axis comes first.
    libhdf5 2.0 lists the chunks as if the axes had kept their order.
    """
    chunks, most = dataset.chunks, dataset.maxshape
    unlimited = [axis for axis, n in enumerate(most) if n is None]
    if len(unlimited) != 1 or unlimited == [0]:
        return
    (first,) = unlimited
    grid = [1 if n is None else -(-n // c) for n, c in zip(most, chunks, strict=True)]
    number = np.zeros(table.shape[1], np.int64)
    for axis in range(first, len(grid)):
        number = number * grid[axis] + table[axis] // chunks[axis]
    placed = np.empty((len(grid), len(number)), np.int64)
    for axis in reversed(range(len(grid))):
        if axis != first:
            number, placed[axis] = np.divmod(number, grid[axis])
    placed[first] = number
    placed *= np.array(chunks, np.int64)[:, None]
    moved = (placed != table[: len(grid)]).any(axis=0)
    # Both places are the same for the chunks before the first that was moved. Of the others, the
    # one that is listed last along the axis has a place at which only a true list has a chunk.
    if moved.any():
        last = int(np.argmax(np.where(moved, table[first], -1)))
        if not _is_stored_at(dataset, tuple(table[: len(grid), last].tolist())):
            table[: len(grid)] = placed


def _is_stored_at(dataset: Any, start: Shape) -> bool:
    if any(at >= n for at, n in zip(start, dataset.shape, strict=True)):
        return False
    try:
        read_stored_chunk(dataset.id, start)
    except (OSError, RuntimeError):
        return False
    return True


def _for_each_chunk(dataset_id: Any, note: Callable[[Any], None]) -> None:
    if hasattr(dataset_id, "chunk_iter"):
        dataset_id.chunk_iter(note)
        return
    # Before 1.12.3, libhdf5 has no better function.
    for number in range(dataset_id.get_num_chunks()):
        note(dataset_id.get_chunk_info(number))


@cache
def _counts_user_blocks() -> bool:
    """Return True if libhdf5 counts the places of chunks from the start of the file.

    Before 1.14.4, it counts from the end of the user block
    (https://github.com/HDFGroup/hdf5/issues/3003). The behaviour is tested instead of the version,
    because distributions may have patched older versions.
    """
    places: list[int] = []
    data = b"where is this chunk, by libhdf5?"
    with BytesIO() as memory:
        with h5py.File(memory, "w", userblock_size=512) as file:
            chunk = np.frombuffer(data, np.uint8)
            made = file.create_dataset("a", data=chunk, chunks=(len(data),))
            _for_each_chunk(made.id, lambda info: places.append(info[2]))
        return memory.getvalue().find(data) == places[0]


def _leaves_edges(
    dataset: Any, filters: tuple[Filter, ...], indices: Array, records: Records
) -> bool:
    """Return True if chunks at the edge are unfiltered, by comparison with libhdf5's reading."""
    itemsize = dataset.id.get_type().get_size()
    nbytes = prod(dataset.chunks) * itemsize
    if (records[1] != nbytes).any():
        return False
    decoders = decoders_of(filters, itemsize) or []
    for idx, (_, _, mask) in zip(indices.tolist(), records.T.tolist(), strict=True):
        box = tuple(
            slice(i * c, min(n, (i + 1) * c))
            for i, c, n in zip(idx, dataset.chunks, dataset.shape, strict=True)
        )
        values = np.zeros([s.stop - s.start for s in box], f"V{itemsize}")
        try:
            read_by_libhdf5(dataset, box, values, True)
        except OSError:
            # For unfiltered chunks, libhdf5 would not need a filter that is missing.
            if not all(h5z.filter_avail(code) for code, _ in filters):
                return False
            continue
        expected = values.tobytes()
        raw = read_stored_chunk(dataset.id, tuple(s.start for s in box))
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
    itemsize = dataset.id.get_type().get_size()
    chunk: Array = np.frombuffer(data, f"V{itemsize}").reshape(dataset.chunks)
    return bytes(chunk[inside].tobytes())
