"""Elements of an HDF5 dataset read from the file's bytes, and decoded outside of libhdf5's lock.

Where the bytes are, libhdf5 says once; what is stored in another way is left to it.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from h5py import h5d, h5z

from dosna.fletcher32 import fletcher32
from dosna.metadata import Shape
from dosna.plan import ChunkTask, plan
from dosna.selection import select
from dosna.sources.base import Array, Box
from dosna.sources.contiguous import ContiguousReader, bytes_of
from dosna.sources.files import ByteFile
from dosna.sources.h5types import is_stored_as

__all__ = ["ChunkedReader", "UndecodableError", "direct_reader"]

_MOST_CHUNKS = 1 << 24

Decoder = Callable[[Any, int], Any]


class UndecodableError(Exception):
    """What is stored is damaged, or not as this module expects it: libhdf5 may know better."""


class _Scratch(threading.local):
    """Memory of a thread, which is used again for the next chunk."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def get(self, use: str, nbytes: int) -> Array:
        found = self._arrays.get(use)
        if found is None or found.size < nbytes:
            found = self._arrays[use] = np.empty(nbytes, np.uint8)
        return found[:nbytes]


_scratch = _Scratch()


class ChunkedReader:
    """Chunks, each of which is read as it is stored and taken through its filters.

    Parameters
    ----------
    file : ByteFile
    dataset : h5py.Dataset
    dtype : numpy.dtype
    decoders : sequence of callable
        In the order of reading, each with the bit of its filter in a chunk's mask.
    """

    def __init__(
        self,
        file: ByteFile,
        dataset: Any,
        dtype: np.dtype[Any],
        decoders: Sequence[tuple[int, Decoder]],
    ) -> None:
        self.file, self.dtype = file, dtype
        self.shape: Shape = dataset.shape
        self.chunks: Shape = dataset.chunks
        self.fillvalue = dataset.fillvalue
        self.nbytes = prod(self.chunks) * dtype.itemsize
        self._decoders = decoders
        self._grid = tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))
        self._where = np.zeros((3, prod(self._grid)), np.int64)
        grid, chunks, where = self._grid, self.chunks, self._where

        def note(info: Any) -> None:
            at = 0
            for start, c, n in zip(info.chunk_offset, chunks, grid, strict=True):
                at = at * n + start // c
            where[:, at] = info.byte_offset, info.size, info.filter_mask

        dataset.id.chunk_iter(note)

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box to memory of its shape."""

        def read(task: ChunkTask) -> None:
            # The ellipsis keeps an array of no axes an array.
            part: Any = (*task.out, ...)
            self._read_chunk(task, out[part])

        tasks = plan(select(box, self.shape), self.chunks)
        if len(tasks) == 1:
            read(next(iter(tasks)))
        else:
            self.file.for_each(read, tasks)

    def _read_chunk(self, task: ChunkTask, out: Array) -> None:
        at = 0
        for i, n in zip(task.idx, self._grid, strict=True):
            at = at * n + i
        offset, size, mask = self._where[:, at].tolist()
        if not size:
            out[...] = self.fillvalue
            return
        active = [decode for bit, decode in self._decoders if not mask & bit]
        if not active and size != self.nbytes:
            raise UndecodableError(f"{size} bytes are stored for a chunk of {self.nbytes}")
        if not active and out.nbytes == self.nbytes and out.flags.c_contiguous:
            self.file.read_into(offset, bytes_of(out))
            return
        data: Any = _scratch.get("stored", size)
        self.file.read_into(offset, bytes_of(data))
        for decode in active:
            data = decode(data, self.nbytes)
        if len(data) != self.nbytes:
            raise UndecodableError(f"it decodes to {len(data)} bytes, and not to {self.nbytes}")
        chunk = np.frombuffer(data, np.uint8).view(self.dtype).reshape(self.chunks)
        out[...] = chunk[task.chunk]


def direct_reader(
    file: ByteFile | None, dataset: Any, dtype: np.dtype[Any]
) -> ContiguousReader | ChunkedReader | None:
    """Give what reads a dataset without libhdf5; None if that is not known how."""
    if file is None or not is_stored_as(dataset, dtype) or not dataset.size:
        return None
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if layout == h5d.CONTIGUOUS and not creation.get_external_count():
        offset = dataset.id.get_offset()
        if offset is None:
            return None
        return ContiguousReader(file, offset, dataset.shape, dtype)
    if (
        layout == h5d.CHUNKED
        and prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        <= _MOST_CHUNKS
    ):
        decoders: list[tuple[int, Decoder]] = []
        codes = set()
        for number in range(creation.get_nfilters()):
            code, _, values, _ = creation.get_filter(number)
            codes.add(code)
            decoder = _decoder(code, values, dtype.itemsize)
            if decoder is None:
                return None
            decoders.insert(0, (1 << number, decoder))
        # A file may leave chunks at the edge unfiltered, which no mask says (H5Pset_chunk_opts).
        # All other filters notice.
        edge = any(n % c for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if codes == {h5z.FILTER_SHUFFLE} and edge:
            return None
        return ChunkedReader(file, dataset, dtype, decoders)
    return None


def _decoder(code: int, values: Sequence[int], itemsize: int) -> Decoder | None:
    if code == h5z.FILTER_DEFLATE:
        return _inflate
    if code == h5z.FILTER_SHUFFLE:
        size = values[0] if values else itemsize
        return lambda data, nbytes: _unshuffle(data, size)
    if code == h5z.FILTER_FLETCHER32:
        return _check_fletcher32
    name = _CODECS.get(code)
    if name is None:
        return None
    try:
        module = importlib.import_module(f"numcodecs.{name}")
    except ImportError:
        return None
    decompress = module.decompress
    if code == _LZ4:
        return lambda data, nbytes: _unlz4(data, nbytes, decompress)
    return lambda data, nbytes: _decoded(decompress, data)


# Filters as registered: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md.
_LZ4 = 32004
_CODECS = {32001: "blosc", _LZ4: "lz4", 32015: "zstd"}


def _decoded(decompress: Callable[..., Any], data: Any) -> Any:
    try:
        return decompress(data)
    except (RuntimeError, ValueError) as error:
        raise UndecodableError(str(error)) from None


def _unlz4(data: Any, nbytes: int, decompress: Callable[..., Any]) -> Any:
    """Take apart the blocks of HDF5's lz4 filter, each with its size before it, big-endian."""
    raw = bytes(data)
    total, block = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")
    if total != nbytes or not block:
        raise UndecodableError(f"it has {total} bytes in blocks of {block}")
    out, at = bytearray(), 12
    while len(out) < total:
        size, length = int.from_bytes(raw[at : at + 4], "big"), min(block, total - len(out))
        part = raw[at + 4 : at + 4 + size]
        # A block that would not become smaller is stored as it is.
        if size == length:
            out += part
        else:
            out += _decoded(decompress, length.to_bytes(4, "little") + part)
        at += 4 + size
        if not size:
            raise UndecodableError("its blocks end too early")
    return out


def _inflate(data: Any, nbytes: int) -> Any:
    try:
        # Room for a checksum too: a buffer that has to grow is copied.
        return zlib.decompress(data, bufsize=nbytes + 4)
    except zlib.error as error:
        raise UndecodableError(str(error)) from None


def _unshuffle(data: Any, size: int) -> Any:
    if size <= 1:
        return data
    raw = np.frombuffer(data, np.uint8)
    count = len(raw) // size
    out = _scratch.get("shuffled", len(raw))
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
