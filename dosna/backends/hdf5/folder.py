"""The folder of an hdf5 dataset: its description, and the record of written chunks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from dosna.backends.folders.handle import Folder
from dosna.backends.hdf5 import chunkfile as h5format
from dosna.backends.hdf5.frame import Frame, frame_of
from dosna.backends.hdf5.virtual import rows_of
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape
from dosna.io.files import disk, replace_file
from dosna.io.locks import Descriptor, open_descriptor

__all__ = ["CHECKSUM", "DESCRIPTION", "H5Folder", "Record", "SharedRecord", "write_rows"]

DESCRIPTION = "dataset.h5"

CHECKSUM = 4
"""The bytes of a checksum by Fletcher-32."""

PART_CHUNKS = 1 << 40
"""The most chunks in one file of a record; the lowest limit is that of ext4, 16 TiB a file."""

Positions = np.ndarray[Any, np.dtype[Any]]
_MOST = 1 << 62
_PIECE = 1 << 20


class H5Folder(Folder):
    """The open files of a dataset's folder, and its metadata when it was opened."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name, DESCRIPTION)
        with disk(f"open {self.where}"):
            self.metadata, self.stored_header = h5format.read_description(self.image(), self.where)
            self.record = Record(self.fd, self.metadata)

    @cached_property
    def frame(self) -> Frame | None:
        """The bytes before the stored chunk in chunk files with filters, or None."""
        return frame_of(self.metadata) if h5format.filters_of(self.metadata) else None

    @cached_property
    def header(self) -> bytes:
        """The bytes before the elements in chunk files that are not compressed, or none."""
        metadata = self.metadata
        if self.stored_header:
            return self.stored_header
        if h5format.is_plain(metadata):
            return h5format.header(metadata)
        if self.frame is None or metadata.storage.get("compression"):
            return b""
        return self.frame.head(metadata.chunk_nbytes + CHECKSUM)

    @cached_property
    def tail(self) -> int:
        """The number of bytes after the elements in such files: those of the checksum."""
        return CHECKSUM * bool(h5format.filters_of(self.metadata))

    @cached_property
    def length(self) -> int:
        """The size of such files."""
        return len(self.header) + self.metadata.chunk_nbytes + self.tail

    def list(self) -> list[str]:
        # This takes a descriptor of its own, because listing moves the position.
        return os.listdir(open_descriptor(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd))


def write_rows(
    folder: int, metadata: DatasetMetadata, made: list[str], durable: bool = True
) -> None:
    """Write the missing files between a virtual dataset and its chunks.

    Their names are appended to `made`.
    """
    for rows in rows_of(metadata):
        try:
            os.stat(rows.name, dir_fd=folder)
        except FileNotFoundError:
            made.append(rows.name)
            image = h5format.rows_image(metadata, rows)
            replace_file(folder, rows.name, [image], len(image), durable=False)
    # The description is written next, and the folder is synchronized then.
    for name in made if durable else ():
        os.fsync(open_descriptor(name, os.O_RDONLY, dir_fd=folder))


class SharedRecord(Exception):
    """A record that must not be changed, because a copy by hard links has the same file."""


class Record:
    """The record of written chunks: a byte for each, in C order of the grid, in sparse files.

    It tells a chunk that was never written from one whose file is gone. Folders of the original
    DosNa have no record, and then this is not known. A byte is 1 if its chunk was written, and 2
    while it is written for the first time, so that a full disk shows before the chunk is there.
    File systems limit the size of files, so a file has at most as many bytes as all file systems
    allow. Most datasets have one file.
    """

    def __init__(self, folder: int, metadata: DatasetMetadata) -> None:
        self._folder = folder
        self._grid = metadata.chunk_grid
        self._generation: int | None = metadata.storage.get("record")
        self._files: dict[int, Descriptor] = {}
        self._refused: dict[int, int] = {}
        if self._generation is not None:
            self._open(0)

    @staticmethod
    def file_name(generation: int, part: int = 0) -> str:
        return f".written-{generation}-{part}" if part else f".written-{generation}"

    def remove_next(self) -> None:
        """Remove the files that `regrid` has made."""
        if self._generation is not None:
            self.remove(self._generation + 1)

    def remove(self, generation: int) -> None:
        """Remove the files of another generation."""
        for part in [0, *self._parts(generation)]:
            with suppress(FileNotFoundError):
                os.unlink(self.file_name(generation, part), dir_fd=self._folder)

    def _open(self, part: int, *, create: bool = False) -> Descriptor | None:
        assert self._generation is not None
        name = self.file_name(self._generation, part)
        try:
            flags = os.O_RDWR | os.O_CREAT * create
            file = open_descriptor(name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A file of another user, or on a file system mounted read-only, can still be read.
            file = open_descriptor(name, os.O_RDONLY, dir_fd=self._folder)
            self._refused[part] = error.errno or errno.EACCES
        return self._files.setdefault(part, file)

    @property
    def is_shared(self) -> bool:
        """True if a copy by hard links has one of the record's open files."""
        return any(os.fstat(file).st_nlink > 1 for file in self._files.values())

    def _to_change(self, part: int) -> Descriptor:
        """Return a file that may be changed.

        Raises
        ------
        SharedRecord
            A copy by hard links has the same file.
        OSError
            The file could only be opened for reading.
        """
        refused = self._refused.get(part)
        if refused is not None:
            assert self._generation is not None
            name = self.file_name(self._generation, part)
            raise OSError(refused, f"{os.strerror(refused)} ({name} may only be read)")
        file = self._files[part]
        if os.fstat(file).st_nlink > 1:
            raise SharedRecord
        return file

    def _parts(self, generation: int | None) -> list[int]:
        """List the numbers of the further files of a generation, which only huge grids have."""
        if prod(self._grid) <= PART_CHUNKS:
            return []
        start = f".written-{generation}-"
        names = os.listdir(open_descriptor(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._folder))
        return sorted(int(n[len(start) :]) for n in names if n.startswith(start))

    def _place(self, idx: Shape) -> tuple[int, int]:
        """Return the number of the file with a chunk's byte, and the byte's position in it."""
        position = 0
        for i, n in zip(idx, self._grid, strict=True):
            position = position * n + i
        return divmod(position, PART_CHUNKS)

    def _file(self, part: int, *, create: bool = False) -> Descriptor | None:
        found = self._files.get(part)
        # A record without its first file knows nothing, and has no other files.
        return (
            found if found is not None or 0 not in self._files else self._open(part, create=create)
        )

    def has(self, idx: Shape) -> bool:
        part, at = self._place(idx)
        file = self._file(part)
        return file is not None and os.pread(file, 1, at) == b"\1"

    def begin(self, idx: Shape) -> bool:
        """Announce a first write; return False if the chunk was written before."""
        part, at = self._place(idx)
        file = self._file(part, create=True)
        if file is None or os.pread(file, 1, at) == b"\1":
            return False
        os.pwrite(self._to_change(part), b"\2", at)
        return True

    def finish(self, idx: Shape, durable: bool) -> None:
        part, at = self._place(idx)
        file = self._to_change(part)
        os.pwrite(file, b"\1", at)
        if durable:
            os.fdatasync(file)

    def erase(self, idx: Shape) -> bool:
        """Mark a chunk as not written; return False if it was not."""
        if not self.has(idx):
            return False
        part, at = self._place(idx)
        os.pwrite(self._to_change(part), b"\0", at)
        return True

    def written(self) -> Iterator[Shape]:
        """Yield the indices of all written chunks, at a cost in proportion to their number."""
        for axes in self._written():
            if self._grid:
                yield from zip(*[axis.tolist() for axis in axes], strict=True)
            else:
                yield ()

    def _written(self) -> Iterator[list[Positions]]:
        """Yield the indices of written chunks, as an array for each axis."""
        size = prod(self._grid)
        for part in [0, *self._parts(self._generation)]:
            file = self._file(part)
            if file is None:
                continue
            for places in _places(file):
                if part:
                    # Python's integers, because these positions may exceed 64 bits.
                    places = places.astype(object) + part * PART_CHUNKS
                places = places[places < size]  # a damaged record may have more
                if len(places):
                    yield _unravel(places, self._grid)

    def regrid(
        self, folder: int, old: DatasetMetadata, new: DatasetMetadata
    ) -> tuple[DatasetMetadata, int | None]:
        """Write the record of a resized dataset under a new name.

        Parameters
        ----------
        folder : int
            The descriptor of the dataset's folder.
        old, new : DatasetMetadata
            The metadata before and after.

        Returns
        -------
        metadata : DatasetMetadata
            `new`, with the number of the record.
        superseded : int or None
            The number of the record to `remove` once `new` is in force; None if the record
            stays.
        """
        generation = self._generation
        before, after = old.chunk_grid, new.chunk_grid
        # Growing along the first axis leaves all positions as they are.
        if (
            generation is None
            or 0 not in self._files
            or (before[1:] == after[1:] and before[0] <= after[0])
        ):
            return new, None
        return self.renew(folder, before, new)

    def renew(
        self, folder: int, before: Shape, new: DatasetMetadata
    ) -> tuple[DatasetMetadata, int]:
        """Write the record under a new name; its chunk grid was `before`.

        Returns
        -------
        metadata : DatasetMetadata
            `new`, with the number of the record.
        superseded : int
            The number of the record to `remove` once `new` is in force.
        """
        generation, after = self._generation, new.chunk_grid
        assert generation is not None
        new = new.replace(storage={**new.storage, "record": generation + 1})
        self.remove(generation + 1)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        open_descriptor(self.file_name(generation + 1), flags, dir_fd=folder)
        other = Record(folder, new)
        if before and 0 not in after:
            for axes in self._written():
                other._add(axes)
        for file in other._files.values():
            os.fsync(file)
        return new, generation

    def _add(self, axes: list[Positions]) -> None:
        """Record chunks as written, except those outside of the grid."""
        kept = np.ones(len(axes[0]), bool)
        for axis, n in zip(axes, self._grid, strict=True):
            kept &= (axis < n).astype(bool)
        huge = prod(self._grid) > _MOST
        places: Positions = np.zeros(int(kept.sum()), object if huge else np.int64)
        for axis, n in zip(axes, self._grid, strict=True):
            places = places * n + axis[kept]
        # Runs of neighbours are written at once.
        cuts = np.flatnonzero((np.diff(places) != 1) | (places[1:] % PART_CHUNKS == 0)) + 1
        for run in np.split(places, cuts):
            if len(run):
                part, at = divmod(int(run[0]), PART_CHUNKS)
                file = self._file(part, create=True)
                assert file is not None
                os.pwrite(file, b"\1" * len(run), at)


def _unravel(places: Positions, grid: Shape) -> list[Positions]:
    """Return the indices of positions in C order: `numpy.unravel_index` for grids of any size."""
    axes = []
    for n in reversed(grid):
        axes.append(places % n)
        places = places // n
    return axes[::-1]


def _places(record: int) -> Iterator[Positions]:
    """Yield the positions of the bytes that are 1, in pieces, without reading holes."""
    for start, stop in _stored(record):
        for first in range(start, stop, _PIECE):
            read = os.pread(record, min(_PIECE, stop - first), first)
            written = np.flatnonzero(np.frombuffer(read, np.uint8) == 1)
            if len(written):
                yield written + first


def _stored(file: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each stored range of a sparse file."""
    stop = 0
    while True:
        try:
            start = os.lseek(file, stop, os.SEEK_DATA)
            stop = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing is stored after this
                return
            raise
        yield start, stop
