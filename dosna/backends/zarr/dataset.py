"""Datasets as Zarr arrays in a folder: reading and writing their files."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

import numpy as np
from crc32c import crc32c

from dosna.backends.base import ChunkState
from dosna.backends.folders.dataset import FolderDataset
from dosna.backends.stores.dataset import StoreDataset
from dosna.backends.stores.objects import StoredObjects
from dosna.backends.stores.sharded import MOST_INDEXES, ShardedDataset
from dosna.backends.stores.store import Blob, Store
from dosna.backends.stores.views import ReadOnlyStore
from dosna.backends.zarr.folder import GONE, ArrayFolder, ArrayHome, make_folders
from dosna.backends.zarrobjects import ZarrFile, ZarrObjects
from dosna.codecs import zarr as zarr3
from dosna.codecs.base import CodecError
from dosna.codecs.zarr.shards import NO_CHUNK
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape, Slices
from dosna.errors import DosnaError, StorageError
from dosna.io.cache import Cache
from dosna.io.files import (
    TEMPORARY,
    disk,
    failure,
    read_all,
    read_range,
    replace_file,
    size_of,
    sync_folder,
)
from dosna.io.holding import holding
from dosna.io.mounts import host_of
from dosna.io.ranges import (
    METADATA_LOCK,
    PIECE,
    SMALL,
    byte_ranges,
    is_spread,
    lock_place,
    read_fully,
)
from dosna.io.scratch import bytes_like, scratch

__all__ = ["FileDataset", "ShardedFileDataset", "open_dataset"]

_CRC = struct.Struct("<I")
_SETTLED = 3_000_000_000
"""Nanoseconds that exceed the steps of the clock of any file system (FAT: 2 s)."""
_NOTHING = np.empty(0, np.uint8)


class FileDataset(FolderDataset[ArrayFolder], StoreDataset):
    """A folder with ``zarr.json`` and a file for each chunk or shard."""

    connection: ArrayHome  # type: ignore[assignment]

    def __init__(self, connection: ArrayHome, name: str, folder: ArrayFolder) -> None:
        self._begin(os.path.join(connection.path, name), folder)
        super().__init__(connection, name, folder.metadata)

    def prepare(self) -> None:
        super().prepare()
        self._template = self.layout.template

    # -- methods that FolderDataset requires ----------------------------------------------

    def _open_folder(self) -> ArrayFolder:
        return ArrayFolder(self._path, self.name)

    def _take_over(self, folder: ArrayFolder) -> None:
        self.adopt(folder.metadata)

    def _temporaries(self, folder: ArrayFolder) -> Iterator[tuple[str, int]]:
        for name in folder.files.list(""):
            key = name.removesuffix(TEMPORARY)
            idx = self.layout.index(key)
            if key != name and (idx is not None or key == zarr3.DOCUMENT):
                yield name, METADATA_LOCK if idx is None else lock_place(idx)

    @property
    def _checked(self) -> bool:
        return self.layout.pipeline.checks > 0

    def described_as(
        self, folder: ArrayFolder, change: Callable[[DatasetMetadata], DatasetMetadata]
    ) -> bytes:
        return zarr3.to_json(zarr3.revised(change(folder.metadata)))

    what: ClassVar[str] = "chunk"
    """Word for a stored object in messages."""

    # -- methods that override those of StoreDataset --------------------------------------

    @property
    def store(self) -> Store:
        files = self._opened().files
        connection = self.connection
        return files if connection.mode == "a" else ReadOnlyStore(files, connection.refuse)

    def key(self, idx: Shape) -> str:
        return self._template % idx

    def zarr_objects(self) -> ZarrObjects:
        return StoredObjects(self, on_own_disk=host_of(self._path) is not None)

    def open_object(self, idx: Shape) -> ZarrFile | None:
        found = self._opened().files.open(self.key(idx))
        return found and found._replace(version=self.lasting_version(found.version))

    def read_document(self) -> bytes:
        with disk(f"read dataset {self.name!r}"):
            return self._current().image()

    def lasting_version(self, version: str) -> str:
        # The clock of a file system moves in steps, and a file may get the inode of another one.
        settled = time.time_ns() - int(version.split("-")[1]) > _SETTLED
        return version if settled else ""

    @holding
    def _held(self, idx: Shape) -> Iterator[None]:
        place = lock_place(idx)
        with disk(f"write {self.what} {idx} of dataset {self.name!r}"):
            held = self._locks.acquire(place)
            try:
                self._current()
                yield
            finally:
                held()
                self._locks.keep(held)

    def hold(self, idx: Shape) -> AbstractContextManager[None]:
        return self._held(idx)

    def put(self, idx: Shape, parts: list[Any], version: str | None) -> None:
        self.check_writable()
        folder, key, durable = self._opened().fd, self.key(idx), self.connection.durable
        size = sum(len(part) for part in parts)
        try:
            self.replace_chunk_file(folder, key, parts, size)
        except FileNotFoundError:
            make_folders(folder, os.path.dirname(key), durable)
            self.replace_chunk_file(folder, key, parts, size)

    def del_object(self, idx: Shape) -> bool:
        with self.hold(idx):
            folder, key = self._opened(), self.key(idx)
            if not folder.remove(key):
                return False
            if self.connection.durable:
                sync_folder(os.path.dirname(key) or ".", folder.fd)
        return True

    listing_refreshes = False

    def object_indices(self) -> Iterator[Shape]:
        with disk(f"list the chunks of dataset {self.name!r}"):
            found = map(self.layout.index, list(self._current().files.list("")))
            return iter([idx for idx in found if idx is not None])

    def finished_objects(self) -> Iterator[Shape]:
        with disk(f"list the chunks of dataset {self.name!r}"):
            folder = self._current()
            found = list(self.object_indices())
            return iter([idx for idx in found if folder.has_content(self.key(idx))])

    def check_absent(self, absent: Iterable[Shape]) -> None:
        with disk(f"look at dataset {self.name!r}"):
            grain, shape = self.grain, self._current().metadata.shape
        for idx in absent:
            if any(i * g >= n for i, g, n in zip(idx, grain, shape, strict=True)):
                self._stale([i * g for i, g in zip(idx, grain, strict=True)])

    # These need not look at the document: every holder of a lock has checked that the folder is
    # still the same.

    def look(self) -> None:
        pass

    def look_again(self) -> None:
        pass

    def vouch(self, idx: Shape, blob: Blob | None, writes: bool = False) -> None:
        pass

    @holding
    def exclusive(self) -> Iterator[bool]:
        # Outside of the lock, because a process that deletes the dataset holds the lock of the
        # names, which this needs, and waits for this lock.
        self.connection.drop_consolidated(self.name)
        with self._exclusive():
            yield True
        self.connection.drop_consolidated(self.name)

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        if not self._locks.is_exclusive:
            self.connection.drop_consolidated(self.name)
        with disk(f"change dataset {self.name!r}"), self._locks.hold(METADATA_LOCK):
            folder = self._current()
            image = self.described_as(folder, change)
            replace_file(folder.fd, zarr3.DOCUMENT, [image], len(image), durable=True)
            self._reopen()

    # -- reading --------------------------------------------------------------------------

    def verify_chunk(self, idx: Shape) -> ChunkState:
        try:
            state = super().verify_chunk(idx)
            if state == "never written":
                self.check_absent([self.object_of(idx)])
        except StorageError:
            return "unreadable"
        return state

    few_objects: ClassVar[int] = 1000

    def has_object(self, idx: Shape) -> bool:
        with disk(f"look for {self.what} {idx} of dataset {self.name!r}"):
            return self._opened().has(self.key(idx))

    def has_chunk(self, idx: Shape) -> bool:
        with disk(f"look for chunk {idx} of dataset {self.name!r}"):
            if self._opened().has(self.key(idx)):
                return True
            self.check_absent([idx])
            return False

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        pipeline, meta = self.layout.pipeline, self.metadata
        size = meta.chunk_nbytes
        if not pipeline.plain or pipeline.checks > 1:
            super().read_many(out, tasks)
            if not self.is_as(meta.shape):
                self.check_extent(meta.shape, self.grain, tasks)
            return
        template, fd = self._template, self._opened().fd
        checked, length = pipeline.checks == 1, pipeline.size
        # Parts of arrays without axes are scalars, which cannot be read into.
        direct = out.dtype == meta.dtype and meta.ndim > 0
        raw = bytes_like(out) if direct else out
        small = checked or size <= SMALL
        parts = not (checked and self._cache)  # of chunks in the cache, only parts are taken
        chunk, data = scratch.chunk(meta) if small else (_NOTHING, _NOTHING)
        tail, beyond = bytearray(_CRC.size * checked), bytearray(1)
        open_, readv, close = os.open, os.preadv, os.close
        absent: list[Shape] = []
        for idx, key, where, whole in tasks:
            target: Any = data
            straight = False
            if whole and direct:
                target = raw[where]
                straight = target.nbytes == size and target.flags.c_contiguous
            spread = parts and not (small or whole) and is_spread(key, meta.chunk_size)
            if whole or spread or (small and parts):
                if not straight:
                    if data is _NOTHING:
                        # Not before it is needed: `read_chunk` uses the same memory for parts.
                        chunk, data = scratch.chunk(meta)
                    target = data
                try:
                    file = open_(template % idx, os.O_RDONLY, dir_fd=fd)
                    try:
                        count = readv(file, (target, tail, beyond), 0)
                    finally:
                        close(file)
                except OSError:
                    pass  # the reason is found below
                else:
                    if count == length and (not checked or _CRC.unpack(tail)[0] == crc32c(target)):
                        if not straight:
                            _put(out, where, chunk, key, spread and direct)
                        continue
            found = self.read_chunk(idx, key)
            if found is None:
                absent.append(idx)
                out[where] = meta.fillvalue
            else:
                out[where] = found[key]
                found = None  # which lets its memory be used again
        if absent:
            self.check_absent(absent)
        if not self.is_as(meta.shape):
            self.check_extent(meta.shape, self.grain, tasks)

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        shape = self.metadata.shape
        key = self.metadata.bounds(idx).chunk if slices is None else slices
        found = super().get_chunk_data(idx, key)
        if not self.is_as(shape):
            self.check_extent(shape, self.metadata.chunk_size, [(idx, key)])
        return found

    def read_chunk(self, idx: Shape, key: Slices | None, raw: Array | None = None) -> Array | None:
        pipeline, folder, name = self.layout.pipeline, self._opened(), self._template % idx
        checked = pipeline.checks > 0 or not pipeline.plain
        # Not for `verify_chunk`, which is about what is stored, nor for memory to decode into.
        cache = self._cache if checked and key is not None and raw is None else None
        if not pipeline.plain and cache is None:
            return super().read_chunk(idx, key, raw)
        try:
            try:
                file = os.open(name, os.O_RDONLY, dir_fd=folder.fd)
            except GONE:
                return None
            try:
                if cache is None:
                    return self._read_plain(idx, file, key)
                return cache.read((folder.stamp, name), file, partial(self._read_whole, idx, file))
            finally:
                os.close(file)
        except DosnaError:
            raise
        except OSError as error:
            raise failure(f"read chunk {idx} of dataset {self.name!r}", error) from error

    def _read_whole(self, idx: Shape, file: int) -> Array:
        if self.layout.pipeline.plain:
            return self._read_plain(idx, file, None)
        return self.decode(idx, read_all(file))

    def _read_plain(self, idx: Shape, file: int, key: Slices | None) -> Array:
        pipeline, meta = self.layout.pipeline, self.metadata
        length = pipeline.size
        assert length is not None
        found = size_of(file)
        if found != length:
            self.corrupt(idx, f"it has {found} bytes instead of {length}")
        memory = scratch.raw(length)
        data = memoryview(memory)  # type: ignore[arg-type]
        ranges = [(0, length)]
        if key is not None and not pipeline.checks and length > SMALL:
            ranges = byte_ranges(meta, key, PIECE)
        for first, last in ranges:
            if not read_fully(file, [data[first:last]], first):
                self.corrupt(idx, f"it ends before byte {last}")
        return self.decode(idx, data)


def _put(out: Array, where: Slices, chunk: Array, key: Slices, by_number: bool) -> None:
    """Set a part of an array to a part of a chunk; `by_number`: of one axis, by an array."""
    if by_number and type(where[0]) is slice:
        chunk.take(key[0], out=out[where], mode="clip")  # in 0.7 of the time of an index
    else:
        out[where] = chunk[key]


class ShardedFileDataset(ShardedDataset, FileDataset):
    """A folder with ``zarr.json`` and files of many chunks each."""

    what: ClassVar[str] = "shard"

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        # The faster method of `FileDataset` needs files of one chunk each.
        shape = self.metadata.shape
        StoreDataset.read_many(self, out, tasks)
        if not self.is_as(shape):
            self.check_extent(shape, self.grain, tasks)

    def prepare(self) -> None:
        super().prepare()
        self._raw_indexes: Cache[tuple[bytes, list[list[int]]]] = Cache(MOST_INDEXES)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_raw_indexes"}

    def read_from_shard(
        self, shard: Shape, local: Shape, raw: Array | None = None
    ) -> Array | None:
        shards = self.format
        try:
            try:
                file = os.open(self._template % shard, os.O_RDONLY, dir_fd=self._opened().fd)
            except GONE:
                return None
            try:
                length, start = size_of(file), shards.index_range[0]
                if start < 0:
                    start = max(0, start + length)
                # The bytes are compared, which is fast, because the file's time stamp would not
                # be a safe criterion.
                head = os.pread(file, shards.index_size, start)
                known = self._raw_indexes.peek(shard)
                if known is None or known[0] != head:
                    try:
                        known = head, shards.index(head)
                    except CodecError as error:
                        self.corrupt(
                            shards.chunk(shard, local), f"the index of its shard is: {error}"
                        )
                    self._raw_indexes.put(shard, known)
                place, size = known[1][shards.number(local)]
                if place == NO_CHUNK:
                    return None
                if place + size > length:
                    self.corrupt(
                        shards.chunk(shard, local), "the index of its shard points beyond its end"
                    )
                data = read_range(file, place, size)
                return self.decode_from_shard(shard, local, data, raw)
            finally:
                os.close(file)
        except DosnaError:
            raise
        except OSError as error:
            raise failure(f"read shard {shard} of dataset {self.name!r}", error) from error


def open_dataset(connection: ArrayHome, name: str) -> FileDataset:
    """Open the folder of a dataset, or raise DatasetNotFoundError."""
    folder = ArrayFolder(os.path.join(connection.path, name), name)
    kind = ShardedFileDataset if zarr3.is_sharded(folder.metadata) else FileDataset
    return kind(connection, name, folder)
