"""The bytes before the stored chunk in chunk files with filters, made without libhdf5."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna.backends.hdf5.chunkfile import encode, filtered, header, image_of, is_plain
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Array

__all__ = ["Frame", "file_of", "file_parts", "frame_of"]

_END_OF_FILE = 40
"""The position of the file's size in a superblock of version 0 (File Format, section II.A)."""

_SIZES = (1, 0x0302, 300)
"""Sizes of stored chunks: the first two differ in the lowest byte of the number.

HDF5 before 1.14.4 refuses sizes of more than two bytes for chunks of a few elements.
"""


class Frame:
    """The bytes before a stored chunk, which end the file.

    They are the same for all chunks of a dataset, but for two numbers: the size of the file, and
    that of the stored chunk.

    Parameters
    ----------
    first : bytes
        The bytes before a stored chunk of any size.
    place : int
        The position of the size of the stored chunk in them.
    """

    def __init__(self, first: bytes, place: int) -> None:
        self._parts = first[:_END_OF_FILE], first[_END_OF_FILE + 8 : place], first[place + 4 :]
        self.length = len(first)

    def head(self, size: int) -> bytes:
        """Return the bytes before a stored chunk of `size` bytes."""
        start, middle, end = self._parts
        length = (self.length + size).to_bytes(8, "little")
        return b"".join((start, length, middle, size.to_bytes(4, "little"), end))


def frame_of(metadata: DatasetMetadata) -> Frame | None:
    """Return the frame of a dataset's chunk files.

    Return None if this version of HDF5 does not make files as described by `Frame`. Files that
    another version made are compared with the frame, and libhdf5 reads them if they differ.
    """
    heads = [image_of([bytes(size)], metadata)[:-size] for size in _SIZES]
    small, large = heads[:2]
    start = _END_OF_FILE + 8
    differ = [n for n in range(start, min(map(len, heads))) if small[n] != large[n]]
    if not differ:
        return None
    frame = Frame(small, differ[0])
    found = [frame.head(size) for size in _SIZES]
    return frame if found == heads else None


def file_parts(chunk: Array, metadata: DatasetMetadata, frame: Frame | None) -> list[Any]:
    """Return the parts of a chunk file that has filters or holds text."""
    if frame is None:
        return [encode(chunk, metadata)]
    stored = filtered(chunk, metadata)
    return [frame.head(sum(map(len, stored))), *stored]


def file_of(chunk: Array, metadata: DatasetMetadata) -> list[Any]:
    """Return the parts of the file of a whole chunk, for a dataset that has only this one."""
    if is_plain(metadata):
        return [header(metadata), chunk.reshape(-1).view(np.uint8)]
    return file_parts(chunk, metadata, None)
