"""Reading and decoding of chunks at known places in HDF5 files, without libhdf5."""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dosna.codecs import bitshuffle as bitshuffle
from dosna.codecs.fletcher32 import fletcher32
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import bytes_of
from dosna.io.ranges import byte_ranges

__all__ = [
    "BITSHUFFLE",
    "DEFLATE",
    "FLETCHER32",
    "SHUFFLE",
    "UNFILTERED",
    "ChunkReader",
    "Decoder",
    "Filter",
    "Records",
    "UndecodableError",
    "decoder_of",
    "decoders_of",
    "numbers_of",
    "undone",
]

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""Numbers of HDF5's own filters."""

BITSHUFFLE = 32008

UNFILTERED = 0xFFFFFFFF
"""The mask of a chunk to which no filter was applied."""

_GAP = 4096
"""The most unwanted bytes that cost less to read than another request."""
_LOOKED_UP = 1024

Decoder = Callable[[Any, int], Any]
Filter = tuple[int, tuple[int, ...]]
"""The number of a filter, and its parameters."""

Records = npt.NDArray[np.int64]
"""Records of n chunks, of shape (3, n).

Each is an offset in the file, a number of bytes stored (0: never written) and a filter mask.
"""


class UndecodableError(Exception):
    """The error of a chunk that is damaged or of unexpected form; libhdf5 may still read it."""


class _Scratch(threading.local):
    """The memory of a thread, which is used again for the next chunk."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def get(self, use: str, nbytes: int) -> Array:
        found = self._arrays.get(use)
        if found is None or found.size < nbytes:
            found = self._arrays[use] = np.empty(nbytes, np.uint8)
        return found[:nbytes]

    def beside(self, data: Array, use: str) -> Array:
        """Return memory of the size of `data` that does not overlap it."""
        found = self.get(use, len(data))
        # A filter may occur twice in a pipeline.
        return self.get(f"{use} again", len(data)) if np.may_share_memory(found, data) else found


_scratch = _Scratch()


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
        return any(not mask & bit and how is _check_fletcher32 for bit, how in self._decoders)

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
        data = _scratch.get("stored", max(size, self._nbytes(part)))
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
            whole = _scratch.get("whole", nbytes)
            first = part.start - part.offset
            whole[first : first + len(data)] = np.frombuffer(data, np.uint8)
            data = whole
        if len(data) != nbytes:
            raise UndecodableError(f"it decodes to {len(data)} bytes, and not to {nbytes}")
        chunk = np.frombuffer(data, np.uint8).view(self._kind).reshape(extent)
        out[task.out] = chunk[task.chunk]


def _neighbours(parts: list[_Part], most: int) -> Iterator[list[_Part]]:
    """Yield groups of parts that lie close together in the file, each for one request."""
    parts.sort(key=lambda part: part.start)
    group: list[_Part] = []
    for part in parts:
        if group and (part.start - group[-1].stop > _GAP or part.stop - group[0].start > most):
            yield group
            group = []
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


def undone(data: Any, active: Sequence[Decoder], nbytes: int) -> Any:
    """Return a chunk of `nbytes` bytes without its filters.

    Parameters
    ----------
    data : bytes-like
        The chunk as it is stored.
    active : sequence of callable
        The decoders of the filters that were applied to it, in the order of reading.
    nbytes : int
        The size of the chunk without filters.

    Returns
    -------
    bytes-like
        The decoded chunk.

    Raises
    ------
    UndecodableError
        The data cannot be the output of a filter.
    """
    # Each checksum adds 4 bytes to a chunk for the filters that are applied after it.
    longer = 4 * active.count(_check_fletcher32)
    for decode in active:
        if decode is _check_fletcher32:
            longer -= 4
        data = decode(data, nbytes + longer)
    return data


def decoders_of(filters: Sequence[Filter], itemsize: int) -> list[tuple[int, Decoder]] | None:
    """Return the decoders of filters, in the order of reading; None if one is not available.

    Each comes after the bit of its filter in a chunk's mask.
    """
    decoders: list[tuple[int, Decoder]] = []
    compressed = False
    for number, (code, values) in enumerate(filters):
        decoder = decoder_of(code, values, itemsize)
        compresses = _compresses(code, values)
        # Decoders other than these three need the length of their output, which is unknown if
        # that is compressed data.
        if decoder is None or (compressed and code not in (DEFLATE, SHUFFLE, FLETCHER32)):
            return None
        compressed = compressed or compresses
        decoders.insert(0, (1 << number, decoder))
    return decoders


def _compresses(code: int, values: Sequence[int]) -> bool:
    if code == BITSHUFFLE:
        return (*values, 0, 0, 0, 0, 0)[4] != bitshuffle.PLAIN
    return code == DEFLATE or code in _CODECS


def decoder_of(code: int, values: Sequence[int], itemsize: int) -> Decoder | None:
    """Return the decoder of a filter; None if it is not available."""
    if code == DEFLATE:
        return _inflate
    if code == SHUFFLE:
        size = values[0] if values else itemsize
        return lambda data, nbytes: _unshuffle(data, size)
    if code == FLETCHER32:
        return _check_fletcher32
    if code == BITSHUFFLE:
        return _bitshuffle_decoder(values)
    decompress = _decompressor(_CODECS.get(code))
    if decompress is None:
        return None
    if code == _LZ4:
        return lambda data, nbytes: _unlz4(data, nbytes, decompress)
    if code == _BLOSC:
        return lambda data, nbytes: _unblosc(data, nbytes, decompress)
    return lambda data, nbytes: _unzstd(data, nbytes, decompress)


def _decompressor(name: str | None) -> Callable[..., Any] | None:
    if name is None:
        return None
    try:
        found: Callable[..., Any] = importlib.import_module(f"numcodecs.{name}").decompress
    except ImportError:
        return None
    return found


# Registered filters:
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_BLOSC, _LZ4, _ZSTD = 32001, 32004, 32015
_CODECS = {_BLOSC: "blosc", _LZ4: "lz4", _ZSTD: "zstd"}


def _decoded(decompress: Callable[..., Any], *data: Any) -> Any:
    try:
        return decompress(*data)
    except (RuntimeError, ValueError) as error:
        raise UndecodableError(str(error)) from None


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def _unzstd(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    # The library allocates as much memory as a frame says that it needs (RFC 8878, 3.1.1.1).
    header = bytes(memoryview(data)[:18])
    flags = header[4] if len(header) > 5 else 0
    alone = flags >> 5 & 1
    size = (alone, 2, 4, 8)[flags >> 6]
    at = 6 - alone + (0, 1, 2, 4)[flags & 3]
    found = int.from_bytes(header[at : at + size], "little") + 256 * (size == 2)
    if header[:4] != _ZSTD_MAGIC or len(header) < at + size or (size and found != nbytes):
        raise UndecodableError(f"no frame of Zstandard for {nbytes} bytes begins it")
    return _decoded(decompress, data, *([] if size else [np.zeros(nbytes, np.uint8)]))


def _unblosc(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    # The library trusts these lengths, and would read or write beyond the buffers if they are
    # wrong.
    header = bytes(memoryview(data)[:16])
    found, _, stored = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    if len(header) < 16 or (found, stored) != (nbytes, len(data)):
        raise UndecodableError(f"it says that {found} bytes are in {stored} of {len(data)}")
    return _decoded(decompress, data)


def _unlz4(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    """Decode the blocks of HDF5's lz4 filter, each after its size in big-endian order."""
    raw = bytes(data)
    total, block = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")
    if total != nbytes or not block:
        raise UndecodableError(f"it has {total} bytes in blocks of {block}")
    out, at = bytearray(), 12
    while len(out) < total:
        size, length = int.from_bytes(raw[at : at + 4], "big"), min(block, total - len(out))
        part = raw[at + 4 : at + 4 + size]
        # A block that would not become smaller is stored as it is.
        out += part if size == length else _lz4_block(decompress, part, length)
        at += 4 + size
        if not size:
            raise UndecodableError("its blocks end too early")
    return out


def _lz4_block(decompress: Callable[[Any], Any], block: Any, length: int) -> Any:
    # numcodecs expects the decompressed length at the beginning of a block.
    return _decoded(decompress, length.to_bytes(4, "little") + bytes(block))


def _bitshuffle_decoder(values: Sequence[int]) -> Decoder | None:
    itemsize, elements, how = (*values[2:5], 0, 0, 0)[:3]
    decompress = _decompressor({bitshuffle.LZ4: "lz4", bitshuffle.ZSTD: "zstd"}.get(how))
    if not itemsize or elements % 8 or (decompress is None and how != bitshuffle.PLAIN):
        return None

    def block(data: Any, length: int) -> Any:
        assert decompress is not None
        if how == bitshuffle.LZ4:
            return _lz4_block(decompress, data, length)
        return _unzstd(data, length, decompress)

    def undo(data: Any, nbytes: int) -> Any:
        size = elements or bitshuffle.block_elements(itemsize)
        if how != bitshuffle.PLAIN:
            try:
                data, size = bitshuffle.bytes_in_blocks(data, nbytes, itemsize, block)
            except ValueError as error:
                raise UndecodableError(str(error)) from None
        raw = np.frombuffer(data, np.uint8)
        out = _scratch.beside(raw, "bits")
        bitshuffle.bitunshuffle(raw, itemsize, size, out)
        return out

    return undo


def _inflate(data: Any, nbytes: int) -> Any:
    stream = zlib.decompressobj()
    try:
        # At most the size of a chunk, with a margin for data that was compressed before.
        found = stream.decompress(data, nbytes + (nbytes >> 3) + 1024)
    except zlib.error as error:
        raise UndecodableError(str(error)) from None
    if not stream.eof:
        raise UndecodableError("its stream of zlib is cut off, or longer than a chunk")
    return found


def _unshuffle(data: Any, size: int) -> Any:
    if size <= 1:
        return data
    raw = np.frombuffer(data, np.uint8)
    count = len(raw) // size
    out = _scratch.beside(raw, "shuffled")
    elements = out[: count * size].reshape(count, size)
    # Byte by byte: a transposed copy takes up to five times as long.
    for byte in range(size):
        elements[:, byte] = raw[byte * count : (byte + 1) * count]
    out[count * size :] = raw[count * size :]
    return out


def _check_fletcher32(data: Any, nbytes: int) -> Any:
    found, checksum = memoryview(data)[:-4], bytes(memoryview(data)[-4:])
    if checksum != fletcher32(found):
        raise UndecodableError("its Fletcher-32 checksum is wrong")
    return found
