"""The folder of an hdf5 dataset: its description, and the record of written chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from dosna.backends import h5format
from dosna.backends.folder import Folder, disk
from dosna.locks import Descriptor, open_descriptor
from dosna.metadata import DatasetMetadata, Shape

__all__ = ["DESCRIPTION", "H5Folder", "Record"]

DESCRIPTION = "dataset.h5"


class H5Folder(Folder):
    """What is open of a dataset's folder, and the metadata it had then."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name, DESCRIPTION)
        with disk(f"open {self.where}"):
            self.metadata, self.stored_header = h5format.read_description(self.image(), self.where)
            self.header = self.stored_header
            if not self.header and not h5format.filters_of(self.metadata):
                self.header = h5format.header(self.metadata)
            self.length = len(self.header) + self.metadata.chunk_nbytes
            self.record = Record(self.fd, self.metadata)

    def list(self) -> list[str]:
        # A descriptor of its own, because listing moves its position.
        return os.listdir(open_descriptor(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd))


class Record:
    """Which chunks were written: a byte for each, in C order of the grid, in a sparse file.

    It tells a chunk that was never written from one whose file is gone. Folders of DosNa have
    none, and then nothing is known. A byte is 2 while its chunk is written for the first time,
    so that a full disk shows before the chunk is there.
    """

    _file: Descriptor | None = None

    def __init__(self, folder: int, metadata: DatasetMetadata) -> None:
        self._grid = metadata.chunk_grid
        self._generation: int | None = metadata.storage.get("record")
        if self._generation is None:
            return
        name = self.file_name(self._generation)
        for flags in (os.O_RDWR, os.O_RDONLY):
            with suppress(OSError):
                self._file = open_descriptor(name, flags, dir_fd=folder)
                break

    @property
    def next_name(self) -> str | None:
        """The file that `regrid` makes."""
        return None if self._generation is None else self.file_name(self._generation + 1)

    @staticmethod
    def file_name(generation: int) -> str:
        return f".written-{generation}"

    def _position(self, idx: Shape) -> int:
        position = 0
        for i, n in zip(idx, self._grid, strict=True):
            position = position * n + i
        return position

    def has(self, idx: Shape) -> bool:
        file = self._file
        return file is not None and os.pread(file, 1, self._position(idx)) == b"\1"

    def begin(self, idx: Shape) -> bool:
        """Announce a first write; False if the chunk was written before."""
        if self._file is None or self.has(idx):
            return False
        os.pwrite(self._file, b"\2", self._position(idx))
        return True

    def finish(self, idx: Shape, durable: bool) -> None:
        assert self._file is not None
        os.pwrite(self._file, b"\1", self._position(idx))
        if durable:
            os.fdatasync(self._file)

    def erase(self, idx: Shape) -> bool:
        """Forget a chunk; False if it was not written."""
        if self._file is None or not self.has(idx):
            return False
        os.pwrite(self._file, b"\0", self._position(idx))
        return True

    def written(self) -> Iterator[Shape]:
        """Give the indices of all chunks that were written."""
        if self._file is None:
            return
        size = prod(self._grid)
        for places in _places(self._file):
            inside = places[places < size]  # what a record that somebody damaged has beyond
            if not self._grid:
                yield from [()] * len(inside)
            else:
                axes = [axis.tolist() for axis in np.unravel_index(inside, self._grid)]
                yield from zip(*axes, strict=True)

    def regrid(
        self, folder: int, old: DatasetMetadata, new: DatasetMetadata
    ) -> tuple[DatasetMetadata, str | None]:
        """Write the record of a resized dataset under a new name.

        Returns
        -------
        metadata : DatasetMetadata
            `new`, with the name of the record.
        superseded : str or None
            The file to delete once `new` is in force.
        """
        generation = self._generation
        before, after = old.chunk_grid, new.chunk_grid
        # Growing along the first axis leaves all positions as they are.
        if (
            generation is None
            or self._file is None
            or (before[1:] == after[1:] and before[0] <= after[0])
        ):
            return new, None
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        file = open_descriptor(self.file_name(generation + 1), flags, dir_fd=folder)
        if before and 0 not in after:
            _copy(self._file, file, before, after)
        os.fsync(file)
        storage = {**new.storage, "record": generation + 1}
        return new.replace(storage=storage), self.file_name(generation)


def _places(record: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """Give the positions of the chunks that were written, in pieces."""
    step = 1 << 20
    for start in range(0, os.fstat(record).st_size, step):
        block = np.frombuffer(os.pread(record, step, start), np.uint8)
        written = np.flatnonzero(block == 1)
        if len(written):
            yield written + start


def _copy(record: int, file: int, before: Shape, after: Shape) -> None:
    for written in _places(record):
        idx = np.unravel_index(written, before)
        kept = np.all([i < n for i, n in zip(idx, after, strict=True)], axis=0)
        places = np.ravel_multi_index([i[kept] for i in idx], after)
        # Runs of neighbours are written at once.
        cuts = np.flatnonzero(np.diff(places) != 1) + 1
        for run in np.split(places, cuts):
            if len(run):
                os.pwrite(file, b"\1" * len(run), int(run[0]))
