"""A dataset of the hdf5 backend: reading and writing chunk files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, NoReturn

import numpy as np

from dosna.backends.base import ChunkState
from dosna.backends.folders.dataset import FolderDataset
from dosna.backends.folders.handle import FolderHome
from dosna.backends.hdf5 import chunkfile as h5format
from dosna.backends.hdf5.folder import DESCRIPTION, H5Folder, SharedRecord, write_rows
from dosna.backends.hdf5.frame import file_parts
from dosna.backends.hdf5.plain import read_known
from dosna.backends.hdf5.virtual import rows_of
from dosna.codecs.arrays import bytes_of
from dosna.codecs.fletcher32 import fletcher32
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape, Slices
from dosna.errors import (
    ChunkCorruptError,
    ChunkNotFoundError,
    DosnaError,
    StaleDatasetError,
    StorageError,
)
from dosna.io.files import TEMPORARY, disk, failure, read_all, replace_file
from dosna.io.locks import Descriptor, open_descriptor
from dosna.io.ranges import METADATA_LOCK, SMALL, lock_place, within
from dosna.io.scratch import bytes_like, owned, scratch

__all__ = ["H5Dataset"]

_TRIES = 5  # for a change, while another process copies the folder

_NOTHING = np.empty(0, np.uint8)


class H5Dataset(FolderDataset[H5Folder]):
    """A folder with ``dataset.h5`` and a file for each chunk that was written."""

    def __init__(self, connection: FolderHome, name: str) -> None:
        path = os.path.join(connection.path, name)
        folder = H5Folder(path, name)
        self._begin(path, folder)
        super().__init__(connection, name, folder.metadata)

    def prepare(self) -> None:
        super().prepare()
        self._template = h5format.chunk_name(self.metadata.ndim)

    # -- hooks of FolderDataset -----------------------------------------------------------

    def _open_folder(self) -> H5Folder:
        return H5Folder(self._path, self.name)

    def _take_over(self, folder: H5Folder) -> None:
        new, old = folder.metadata, self.metadata
        if (
            (new.dtype, new.chunk_size) != (old.dtype, old.chunk_size)
            or new.storage.get("id") != old.storage.get("id")
            or h5format.filters_of(new) != h5format.filters_of(old)
        ):
            self._replaced()
        self.metadata = new

    def _temporaries(self, folder: H5Folder) -> Iterator[tuple[str, int]]:
        for idx in self._indices(folder.list(), TEMPORARY):
            yield self._template % idx + TEMPORARY, lock_place(idx)

    @property
    def _checked(self) -> bool:
        return bool(self.metadata.storage.get("checksum"))

    def described_as(
        self, folder: H5Folder, change: Callable[[DatasetMetadata], DatasetMetadata]
    ) -> bytes:
        return h5format.redescribe(folder.image(), change(folder.metadata))

    # -------------------------------------------------------------------------------------

    @property
    def create_options(self) -> dict[str, Any]:
        storage = self.metadata.storage
        options = {"compression": storage.get("compression"), "virtual": storage.get("virtual")}
        if storage.get("compression"):
            options["compression_level"] = storage["level"]
        if self.dims is not None:
            options["dims"] = self.dims
        return {**options, "checksum": self._checked}

    def has_chunk(self, idx: Shape) -> bool:
        with disk(f"look for chunk {idx} of dataset {self.name!r}"):
            folder = self._opened()
            while True:
                if folder.has(self._template % idx):
                    return True
                try:
                    again = self._judge_absent(folder, idx)
                except ChunkNotFoundError:
                    return True
                if again is None:
                    return False
                folder = again

    def del_chunk(self, idx: Shape) -> bool:
        with disk(f"delete chunk {idx} of dataset {self.name!r}"):
            for _ in range(_TRIES):
                with suppress(SharedRecord):
                    return self._delete(idx)
                self._unshare()
        raise self._copied_over_and_over()

    def _delete(self, idx: Shape) -> bool:
        with self._locks.hold(lock_place(idx)):
            folder = self._current()
            recorded = False
            if folder.metadata.contains(idx):
                recorded = folder.record.erase(idx)
            if not folder.remove(self._template % idx):
                return recorded
            if self.connection.durable:
                os.fsync(folder.fd)
        return True

    def _copied_over_and_over(self) -> StorageError:
        return StorageError(
            f"the folder of dataset {self.name!r} keeps being copied by hard links: try again"
        )

    def _unshare(self) -> None:
        """Write the record again, under a name that a copy by hard links does not have.

        A writer that waits for a lock meanwhile then finds another description, and opens the
        new record.
        """
        with self._exclusive():
            folder = self._opened()
            if not folder.record.is_shared:
                return  # another thread or process has done it
            metadata = folder.metadata
            new, superseded = folder.record.renew(folder.fd, metadata.chunk_grid, metadata)
            image = h5format.redescribe(folder.image(), new)
            replace_file(folder.fd, DESCRIPTION, [image], len(image), durable=True)
            folder.record.remove(superseded)
            self._reopen()

    def chunk_indices(self) -> Iterator[Shape]:
        with disk(f"list the chunks of dataset {self.name!r}"):
            folder = self._current()
            stored = dict.fromkeys(self._indices(folder.list()))
            # Chunks whose files are gone are listed too: they were written, and can be deleted.
            return iter(stored | dict.fromkeys(folder.record.written()))

    def finished_objects(self) -> Iterator[Shape]:
        # A process that died between writing a file and recording it left a chunk whose loss
        # would not be noticed. Such a chunk is not listed, so it is written again.
        with disk(f"list the chunks of dataset {self.name!r}"):
            folder = self._current()
            recorded = set(folder.record.written())
            found = [idx for idx in self._indices(folder.list()) if idx in recorded]
            return iter([idx for idx in found if folder.has_content(self._template % idx)])

    def trim_object(self, idx: Shape) -> None:
        with suppress(ChunkNotFoundError):  # a chunk without a file has nothing to trim
            super().trim_object(idx)

    def _indices(self, names: list[str], suffix: str = "") -> Iterator[Shape]:
        parts = "_".join([r"(\d+)"] * self.metadata.ndim)
        for found in map(re.compile(rf"chunk_{parts}\.h5{suffix}").fullmatch, names):
            if found:
                yield tuple(map(int, found.groups()))

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        with disk(f"change dataset {self.name!r}"), self._locks.hold(METADATA_LOCK):
            folder = self._current()
            old = folder.metadata
            new = change(old)
            superseded = None
            mapped: list[str] = []
            try:
                if new.shape == old.shape:
                    image = h5format.redescribe(folder.image(), new)
                else:
                    new, superseded = folder.record.regrid(folder.fd, old, new)
                    image = h5format.describe(new, folder.stored_header)
                    write_rows(folder.fd, new, mapped)
                replace_file(folder.fd, DESCRIPTION, [image], len(image), durable=True)
            except BaseException:
                if folder.is_current():
                    folder.record.remove_next()
                    for name in mapped:
                        folder.remove(name)
                raise
            if superseded is not None:
                folder.record.remove(superseded)
            if new.shape != old.shape:
                for rows in {*rows_of(old)} - {*rows_of(new)}:
                    folder.remove(rows.name)
            self._reopen()

    few_objects: ClassVar[int] = 1000

    def has_object(self, idx: Shape) -> bool:
        return self._current().has(self._template % idx)

    def verify_chunk(self, idx: Shape) -> ChunkState:
        try:
            found = self._fetch(self._opened(), idx, None)
        except ChunkNotFoundError:
            return "missing"
        except ChunkCorruptError:
            return "corrupt"
        except StorageError:
            return "unreadable"
        if found is None:
            return "never written"
        return "ok" if self._checked else "unchecked"

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        shape = self.metadata.shape
        key = self.metadata.bounds(idx).chunk if slices is None else slices
        found = self._get(idx, key)
        if not self.is_as(shape):
            self.check_extent(shape, self.metadata.chunk_size, [(idx, key)])
        return found

    def _get(self, idx: Shape, key: Slices | None) -> Any:
        chunk = self._fetch(self._opened(), idx, key)
        if chunk is None:
            chunk = self.metadata.fill_chunk()
        return owned(chunk if key is None else chunk[key])

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        self._put(idx, values, slices)

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        folder = self._opened()
        metadata, start, fd = folder.metadata, folder.header, folder.fd
        template, size, length = self._template, metadata.chunk_nbytes, folder.length
        # Parts of arrays without axes are scalars, which cannot be a target of reading.
        direct = out.dtype == metadata.dtype and metadata.ndim > 0
        raw = bytes_like(out) if direct else out
        checked = folder.tail > 0
        small = bool(start) and (checked or size <= SMALL)
        chunk = data = _NOTHING
        if small:
            chunk, data = scratch.chunk(metadata)
        parts = not (checked and self._cache)  # of chunks in the cache, only parts are taken
        head, tail, beyond = bytearray(len(start)), bytearray(folder.tail), bytearray(1)
        readv, open_ = os.preadv, partial(os.open, flags=os.O_RDONLY, dir_fd=fd)
        for idx, key, where, whole in tasks:
            target, straight = data, False
            if whole and start:
                if direct:
                    target = raw[where]
                    straight = target.nbytes == size and target.flags.c_contiguous
                if not straight and data is _NOTHING:
                    # Not before it is needed: `_fetch` uses the same memory for parts.
                    chunk, data = scratch.chunk(metadata)
            if (small and parts) or (whole and start):
                try:
                    # The same as open_descriptor, without one more call.
                    file = next(map(Descriptor, map(open_, (template % idx,))))
                    into = (head, target if straight else data, tail, beyond)
                    count = readv(file, into, 0)  # type: ignore[arg-type]
                    del file
                except OSError:
                    pass  # `_fetch` finds the reason below
                else:
                    if (
                        count == length
                        and head == start
                        and not (checked and tail != fletcher32(bytes_of(into[1])))
                    ):
                        if not straight:
                            out[where] = chunk[key]
                        continue
            found = self._fetch(folder, idx, key)
            out[where] = metadata.fillvalue if found is None else found[key]
            found = None  # so that its memory can be used again
        if not self.is_as(metadata.shape):
            self.check_extent(metadata.shape, metadata.chunk_size, tasks)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        put = self._put
        for idx, key, where, whole in tasks:
            put(idx, values[where], key, whole)

    def _fetch(self, folder: H5Folder, idx: Shape, key: Slices | None) -> Array | None:
        """Read the part `key` of a chunk to its place in an array of the whole chunk.

        A `key` of None stands for all of it. Return None if the chunk was never written. The
        array is valid until the thread's next call.
        """
        name = self._template % idx
        try:
            while True:
                try:
                    file = open_descriptor(name, os.O_RDONLY, dir_fd=folder.fd)
                    break
                except FileNotFoundError:
                    again = self._judge_absent(folder, idx)
                    if again is None:
                        return None
                    folder = again
            cache = self._cache if key is not None and (folder.tail or not folder.header) else None
            if cache is not None:
                return cache.read((folder.stamp, name), file, lambda: _read(folder, file, None))
            return _read(folder, file, key)
        except DosnaError:
            raise
        except OSError as error:
            raise failure(f"read chunk {idx} of dataset {self.name!r}", error) from error
        except ValueError as error:
            raise ChunkCorruptError(
                f"chunk {idx} of dataset {self.name!r} is damaged: {error}. Restore "
                f"{os.path.join(self._path, name)} from a copy, or delete the chunk with "
                "del_chunk to have fill values"
            ) from error

    def _judge_absent(self, folder: H5Folder, idx: Shape) -> H5Folder | None:
        """Find out why a chunk has no file.

        Return None if the chunk was never written, or the folder to look in once more if
        something changed meanwhile. Raise ChunkNotFoundError if the file is lost.
        """
        if not folder.is_current():
            return self._current()
        if not folder.metadata.contains(idx):
            self._stale(folder, idx)
        # A chunk that is written or deleted at this moment settles within a few tries.
        for _ in range(5):
            if not folder.record.has(idx):
                return None
            if folder.has(self._template % idx):
                return folder
        if not folder.is_current():
            return self._current()
        raise ChunkNotFoundError(
            f"chunk {idx} of dataset {self.name!r} was written, and its file is gone: restore "
            f"{os.path.join(self._path, self._template % idx)} from a copy, or write or delete "
            "the chunk"
        )

    def _stale(self, folder: H5Folder, idx: Shape) -> NoReturn:
        raise StaleDatasetError(
            f"chunk {idx} of dataset {self.name!r} does not fit its shape "
            f"{folder.metadata.shape}, to which another writer may have resized it: try again"
        )

    def _put(self, idx: Shape, values: Any, key: Slices | None, whole: bool = False) -> None:
        """Write the part `key` of a chunk.

        A `key` of None stands for the part inside the array. With `whole`, `key` was all of that
        part when the write was planned.
        """
        if hasattr(values, "__array__"):  # before the scratch memory and the lock are in use
            values = np.asarray(values)
        place = lock_place(idx)
        try:
            for _ in range(_TRIES):
                held = self._locks.acquire(place)
                try:
                    folder = self._current()
                    self._store(folder, idx, self._changed(folder, idx, values, key, whole))
                    return
                except SharedRecord:
                    pass
                finally:
                    held()
                    self._locks.keep(held)
                self._unshare()
        except DosnaError:
            raise
        except OSError as error:
            raise failure(f"write chunk {idx} of dataset {self.name!r}", error) from error
        raise self._copied_over_and_over()

    def _changed(
        self,
        folder: H5Folder,
        idx: Shape,
        values: Any,
        key: Slices | None,
        whole: bool,
    ) -> Array:
        """Return the chunk to store; the caller holds its lock."""
        metadata = folder.metadata
        size = metadata.chunk_size
        extent = tuple(
            [min(c, n - i * c) for i, c, n in zip(idx, size, metadata.shape, strict=True)]
        )
        if min(extent, default=1) <= 0 or min(idx, default=0) < 0:
            self._stale(folder, idx)
        if key is not None and whole and tuple([k.stop for k in key]) != extent:
            whole = False  # another writer has made the array longer: keep what it wrote
        if key is not None and not whole:
            if extent != size and not within(key, size, extent):
                self._stale(folder, idx)
            found = self._fetch(folder, idx, None)
            if found is None:
                found = scratch.chunk(metadata)[0]
                found[...] = metadata.fillvalue
            elif not found.flags.writeable:
                found = found.copy()
            found[key] = values
            return found
        if (
            type(values) is np.ndarray
            and values.shape == size == extent
            and values.dtype == metadata.dtype
            and values.flags.c_contiguous
        ):
            return values
        chunk = scratch.chunk(metadata)[0]
        if extent != size:
            chunk[...] = metadata.fillvalue
        chunk[tuple(map(slice, extent))] = values
        return chunk

    def _store(self, folder: H5Folder, idx: Shape, chunk: Array) -> None:
        metadata = folder.metadata
        parts: list[Any]
        if folder.header and not folder.tail:
            parts, size = [folder.header, bytes_like(chunk)], folder.length
        else:
            parts = file_parts(chunk, metadata, folder.frame)
            size = sum(map(len, parts))
        fresh = folder.record.begin(idx)
        self.replace_chunk_file(folder.fd, self._template % idx, parts, size)
        if fresh:
            folder.record.finish(idx, self.connection.durable)


def _read(folder: H5Folder, file: int, key: Slices | None) -> Array:
    found = read_known(folder, file, key)
    return h5format.decode(read_all(file), folder.metadata) if found is None else found
