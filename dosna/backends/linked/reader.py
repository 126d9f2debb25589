"""Reading of chunks at known places in HDF5 files, without libhdf5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dosna.codecs.hdf5 import Decoder, UndecodableError, check_fletcher32, memory, undone
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import bytes_of
from dosna.io.ranges import byte_ranges

__all__ = ["ChunkReader", "Records", "numbers_of"]


_GAP = 4096
"""The most unwanted bytes that cost less to read than another request."""
_LOOKED_UP = 1 << 14


Records = npt.NDArray[np.int64]
"""Records of n chunks, of shape (3, n).

Each is an offset in the file, a number of bytes stored (0: never written) and a filter mask.
"""


class _Part(NamedTuple):
    """The bytes to read for one task."""

    task: ChunkTask
    start: int
    stop: int
    active: list[Decoder]
    offset: int = 0
    """The position of the chunk in the file."""
    ranges: Sequence[tuple[int, int]] = ()
    """The wanted bytes of an unfiltered chunk; empty if all are wanted."""


class ChunkReader:
    """A reader of chunks, which reads each as it is stored and undoes its filters.

    Parameters
    ----------
    file : ByteFile
        The file with the chunks.
    metadata : DatasetMetadata
        The shape, dtype, chunk size and fill value of the array.
    decoders : sequence of tuple
        The decoders in the order of reading, each after the bit of its filter in a chunk's mask.
    find : callable
        A function that returns the records of chunks by their indices.
    trimmed : bool
        Whether chunks at the end of an axis end with the array, as do the rows of an array that
        lies together in its file.
    """

    def __init__(
        self,
        file: ByteFile,
        metadata: DatasetMetadata,
        decoders: Sequence[tuple[int, Decoder]],
        find: Callable[[Sequence[Shape]], Records],
        trimmed: bool = False,
    ) -> None:
        self.file, self.metadata = file, metadata
        self._decoders, self._find, self._trimmed = decoders, find, trimmed
        # NumPy copies field by field, and leaves the bytes between fields uninitialized.
        dtype, self._fill = metadata.dtype, metadata.fillvalue
        self._kind = dtype if dtype.names is None else np.dtype(f"V{dtype.itemsize}")
        if self._kind is not dtype:
            self._fill = np.asarray(self._fill, dtype).reshape(1).view(self._kind)[0]

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        """Read the part ``task.chunk`` of each chunk into ``out[task.out]``.

        Raises
        ------
        UndecodableError
            A chunk is not what its filters and its record say.
        """
        if out.dtype == self.metadata.dtype and out.dtype != self._kind:
            out = out.view(self._kind)
        self.file.for_each(partial(self._read, out), self._requests(out, tasks))

    def is_checked(self, mask: int) -> bool:
        """Return True if a chunk with this filter mask has a checksum."""
        return any(not mask & bit and how is check_fletcher32 for bit, how in self._decoders)

    def _requests(self, out: Array, tasks: Iterable[ChunkTask]) -> Iterator[list[_Part]]:
        """Yield the parts to read by each request; fill `out` for chunks never written."""
        waiting = iter(tasks)
        while batch := list(islice(waiting, _LOOKED_UP)):
            parts = []
            records = self._find([task.idx for task in batch]).T.tolist()
            for task, (offset, size, mask) in zip(batch, records, strict=True):
                if size:
                    parts.append(self._part(task, offset, size, mask))
                else:
                    out[task.out] = self._fill
            if self.file.most_span:
                yield from _neighbours(parts, self.file.most_span)
            else:
                yield from ([part] for part in parts)

    def _part(self, task: ChunkTask, offset: int, size: int, mask: int) -> _Part:
        active = [decode for bit, decode in self._decoders if not mask & bit]
        if active:
            return _Part(task, offset, offset + size, active)
        nbytes = prod(self._extent(task.idx)) * self.metadata.dtype.itemsize
        if size != nbytes:
            raise UndecodableError(f"{size} bytes are stored for a chunk of {nbytes}")
        if task.whole:
            return _Part(task, offset, offset + size, active)
        ranges = byte_ranges(self.metadata, task.chunk, self.file.range_bytes)
        start, stop = offset + ranges[0][0], offset + ranges[-1][1]
        return _Part(task, start, stop, active, offset, ranges)

    def _extent(self, idx: Shape) -> Shape:
        meta = self.metadata
        if not self._trimmed or meta.tiled:
            return meta.chunk_size
        axes = zip(idx, meta.chunk_size, meta.shape, strict=True)
        return tuple([min(c, n - i * c) for i, c, n in axes])

    def _read(self, out: Array, parts: list[_Part]) -> None:
        if len(parts) == 1:
            self._read_one(out, parts[0])
            return
        start = parts[0].start
        data = memoryview(self.file.read(start, max(p.stop for p in parts) - start))
        for part in parts:
            self._put(out, part, data[part.start - start : part.stop - start])

    def _read_one(self, out: Array, part: _Part) -> None:
        task, start, size = part.task, part.start, part.stop - part.start
        # For slices, a range of the target's size holds its elements in order; for points the
        # order may differ.
        if not part.active and (
            task.whole
            or (len(part.ranges) == 1 and not any(type(k) is np.ndarray for k in task.chunk))
        ):
            target = out[task.out]
            if (
                isinstance(target, np.ndarray)
                and target.nbytes == size
                and target.dtype == self._kind
                and target.flags.c_contiguous
            ):
                self.file.read_into(start, bytes_of(target))
                return
        if self.file.most_span:
            self._put(out, part, self.file.read(start, size))
            return
        data = memory.get("stored", max(size, self._nbytes(part)))
        if part.ranges:
            for first, last in part.ranges:
                self.file.read_into(part.offset + first, bytes_of(data[first:last]))
        else:
            data = data[:size]
            self.file.read_into(start, bytes_of(data))
        self._put(out, part, data)

    def _nbytes(self, part: _Part) -> int:
        return prod(self._extent(part.task.idx)) * self.metadata.dtype.itemsize

    def _put(self, out: Array, part: _Part, data: Any) -> None:
        """Undo the filters of the bytes read, and write the elements to their place in `out`."""
        task = part.task
        extent = self._extent(task.idx)
        nbytes = self._nbytes(part)
        data = undone(data, part.active, nbytes)
        if part.ranges and len(data) < nbytes:
            whole = memory.get("whole", nbytes)
            first = part.start - part.offset
            whole[first : first + len(data)] = np.frombuffer(data, np.uint8)
            data = whole
        if len(data) != nbytes:
            raise UndecodableError(f"it decodes to {len(data)} bytes instead of {nbytes}")
        chunk = np.frombuffer(data, np.uint8).view(self._kind).reshape(extent)
        out[task.out] = chunk[task.chunk]


def _neighbours(parts: list[_Part], most: int) -> Iterator[list[_Part]]:
    """Yield groups of parts that lie close together in the file, each for one request.

    A request ends with the part by which it has at least `most` bytes.
    """
    parts.sort(key=lambda part: part.start)
    group: list[_Part] = []
    stop = 0
    for part in parts:
        if group and (part.start - stop > _GAP or stop - group[0].start >= most):
            yield group
            group = []
        stop = max(stop, part.stop) if group else part.stop
        group.append(part)
    if group:
        yield group


def numbers_of(indices: Sequence[Shape] | Array, grid: Shape) -> npt.NDArray[np.int64]:
    """Return the numbers of chunks in C order of their grid."""
    columns = np.asarray(indices, np.int64).reshape(len(indices), len(grid))
    numbers = np.zeros(len(indices), np.int64)
    for axis, count in enumerate(grid):
        numbers = numbers * count + columns[:, axis]
    return numbers
