"""Backends over stores of bytes: whoever can get, put, delete and list is a backend.

A subclass of `StoreConnection` says how its `Store` is opened, and that is all. A dataset
``entry/data`` is the object ``entry/data/dosna.json``, its metadata, beside
``entry/data/c/0/1/2``, one object for each chunk: the elements in C order, followed by their
CRC-32 (4 bytes, little-endian) unless the dataset was made with ``checksum=False``.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dosna.backends.base import (
    Array,
    BackendConnection,
    BackendDataChunk,
    BackendDataset,
    ChunkState,
    Guarantees,
    Slices,
)
from dosna.errors import (
    ChunkCorruptError,
    DatasetExistsError,
    DatasetNotFoundError,
    StorageError,
)
from dosna.metadata import DatasetMetadata, Shape, check_nesting, parents
from dosna.plan import ChunkTask

ABSENT = ""
"""The version of an object that does not exist."""

_METADATA = "dosna.json"
_CRC = struct.Struct("<I")
_STRIPES = 64
_MOST_ATTEMPTS = 1000


class Blob(NamedTuple):
    """The bytes of an object and its version, which changes with every put."""

    data: bytes
    version: str


class VersionConflict(StorageError):
    """A conditional put found another version than it expected; nothing was changed."""


class Store(ABC):
    """Bytes by key. Keys are parts of printable characters, joined by '/'.

    Anything that fails raises `StorageError` or another error of `dosna.errors`. Only what is
    proven to be absent may be reported as absent.
    """

    shared_between_processes: ClassVar[bool]
    """Whether another process that opens it sees the same objects."""

    conditional_puts: ClassVar[bool]
    """Whether `put` honours ``expected`` atomically among all who write."""

    @abstractmethod
    def get(self, key: str, byte_range: tuple[int, int] | None = None) -> Blob | None:
        """Get an object, or its bytes ``start:stop``; None if there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        """Write a whole object, so that it is seen old or new and never mixed.

        Parameters
        ----------
        key : str
        data : bytes
        expected : str, optional
            Write only over this version; `ABSENT` only where there is no object.

        Raises
        ------
        VersionConflict
            Another version is there.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete an object; False if there was none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """List all keys that begin with `prefix`, completely or with an error."""

    def close(self) -> None:  # noqa: B027  a store without a connection has nothing to close
        """Let go of what the store holds."""


# By chunk and not by handle, because a store may have no conditional puts.
_locks = [threading.Lock() for _ in range(_STRIPES)]


def _lock(*what: Any) -> threading.Lock:
    return _locks[hash(what) % _STRIPES]


def _renew_locks() -> None:
    _locks[:] = [threading.Lock() for _ in range(_STRIPES)]


os.register_at_fork(after_in_child=_renew_locks)


class StoreConnection(BackendConnection):
    """A connection to a store of bytes."""

    @abstractmethod
    def open_store(self) -> Store:
        """Open the store; its keys are this connection's own."""

    def connect(self) -> None:
        if not self.connected:
            self._store = self.open_store()
        super().connect()

    def disconnect(self) -> None:
        if self.connected:
            self.store.close()
            self._store = None
        super().disconnect()

    _store: Store | None = None

    @property
    def store(self) -> Store:
        """The open store; a process that got this by pickling opens its own."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        if not self.shared_between_processes:
            raise TypeError(
                f"connection {self.name!r} is to a store of this process alone, and cannot be "
                "sent to another"
            )
        return {k: v for k, v in self.__dict__.items() if k != "_store"}

    def create_dataset(
        self, name: str, metadata: DatasetMetadata, *, checksum: bool = True
    ) -> StoreDataset:
        metadata = metadata.replace(storage={"checksum": checksum})
        key = _key(name, _METADATA)
        try:
            with _lock(name):
                found = self.store.get(key)
                if found is None:
                    check_nesting(name, self._neighbours(name))
                    # A write that outlived a deletion left chunks.
                    if any(self.chunk_keys(name)):
                        self._remove(name, metadata, ABSENT)
                elif self._is_deleting(name):
                    self._remove(name, metadata, found.version)
                self.store.put(key, metadata.to_json().encode(), ABSENT)
        except VersionConflict:
            raise DatasetExistsError(f"dataset {name!r} exists in {self.name!r}") from None
        return StoreDataset(self, name, metadata)

    def _neighbours(self, name: str) -> Iterator[str]:
        """Give the datasets around and inside a name, for each of which it would be taken."""
        yield from filter(self.has_dataset, parents(name))
        end = "/" + _METADATA
        for key in self.store.list(name + "/"):
            if key.endswith(end) and key != _key(name, _METADATA):
                yield key.removesuffix(end)

    def get_dataset(self, name: str) -> StoreDataset:
        return StoreDataset(self, name, self.read_metadata(name)[0])

    def del_dataset(self, name: str) -> None:
        # Readers must not see chunks vanish one by one as fill: the dataset goes first.
        key = _key(name, _METADATA)
        blob = self.store.get(key)
        if blob is None:
            raise self.not_found(name)
        metadata = DatasetMetadata.from_json(blob.data.decode(), f"metadata of {name!r}")
        self._remove(name, metadata, None)

    def _remove(self, name: str, metadata: DatasetMetadata, version: str | None) -> None:
        key = _key(name, _METADATA)
        storage = {**metadata.storage, "deleting": True}
        self.store.put(key, metadata.replace(storage=storage).to_json().encode(), version)
        for chunk in list(self.chunk_keys(name)):
            self.store.delete(chunk)
        self.store.delete(key)

    def dataset_names(self) -> list[str]:
        end = "/" + _METADATA
        names = [key.removesuffix(end) for key in self.store.list("") if key.endswith(end)]
        return sorted(name for name in names if not self._is_deleting(name))

    def has_dataset(self, name: str) -> bool:
        blob = self.store.get(_key(name, _METADATA))
        return blob is not None and not self._is_deleting(name)

    def not_found(self, name: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(f"no dataset {name!r} in connection {self.name!r}")

    def read_metadata(self, name: str) -> tuple[DatasetMetadata, str]:
        """Read a dataset's metadata and their version, or raise DatasetNotFoundError."""
        blob = self.store.get(_key(name, _METADATA))
        if blob is None:
            raise self.not_found(name)
        metadata = DatasetMetadata.from_json(blob.data.decode(), f"metadata of {name!r}")
        if metadata.storage.get("deleting"):
            raise self.not_found(name)
        return metadata, blob.version

    def chunk_keys(self, name: str) -> Iterator[str]:
        """List the keys of a dataset's chunks."""
        first = _key(name, "c")  # The only one of a scalar dataset.
        return (k for k in self.store.list(first) if k == first or k.startswith(first + "/"))

    def _is_deleting(self, name: str) -> bool:
        try:
            self.read_metadata(name)
        except DatasetNotFoundError:
            return True
        return False


class StoreDataset(BackendDataset):
    """A dataset of a store of bytes: every chunk is one object."""

    connection: StoreConnection

    @property
    def guarantees(self) -> Guarantees:
        store = self.connection.store
        conditional = store.conditional_puts
        shared = self.connection.shared_between_processes
        return Guarantees(
            partial_writes="processes" if conditional and shared else "threads",
            atomic_chunks=True,
            durable=shared,
            checksum=self._checksum,
            notes=()
            if conditional or not shared
            else (
                "the store has no conditional puts: partial writes of several processes can "
                "be lost",
            ),
        )

    @property
    def _checksum(self) -> bool:
        return bool(self.metadata.storage["checksum"])

    def get_chunk(self, idx: Shape) -> StoreDataChunk:
        return StoreDataChunk(self, idx)

    def has_chunk(self, idx: Shape) -> bool:
        return self.connection.store.get(self.key(idx), (0, 1)) is not None

    def del_chunk(self, idx: Shape) -> bool:
        with _lock(self.name, idx):
            return self.connection.store.delete(self.key(idx))

    def chunk_indices(self) -> Iterator[Shape]:
        for key in self.connection.chunk_keys(self.name):
            parts = key[len(self.name) :].split("/")[2:]
            if len(parts) == self.metadata.ndim and all(map(str.isdecimal, parts)):
                yield tuple(map(int, parts))

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        key = _key(self.name, _METADATA)
        for _ in range(_MOST_ATTEMPTS):
            try:
                with _lock(self.name):
                    old, version = self.connection.read_metadata(self.name)
                    new = change(old)
                    self.connection.store.put(key, new.to_json().encode(), version)
            except VersionConflict:
                continue
            self.metadata = new
            return
        raise StorageError(f"metadata of {self.name!r} changed {_MOST_ATTEMPTS} times meanwhile")

    def refresh(self) -> None:
        self.metadata, _ = self.connection.read_metadata(self.name)

    def verify_chunk(self, idx: Shape) -> ChunkState:
        blob = self.connection.store.get(self.key(idx))
        if blob is None:
            return "never written"
        try:
            self._decode(idx, blob.data)
        except ChunkCorruptError:
            return "corrupt"
        return "ok" if self._checksum else "unchecked"

    def key(self, idx: Shape) -> str:
        """Key of a chunk's object."""
        return _key(self.name, "/".join(["c", *map(str, idx)]))

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        part = self._read(idx)[self.metadata.bounds(idx).chunk if slices is None else slices]
        return part.copy() if isinstance(part, np.ndarray) else part

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        if slices is None:
            values = np.asarray(values)
            self._write_whole(idx, self.padded(idx, values))
        else:
            self._change(idx, values, slices)

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        for idx, chunk, where, _ in tasks:
            out[where] = self._read(idx)[chunk]

    def _read(self, idx: Shape) -> Array:
        """Read a whole chunk; the array may not be written to."""
        blob = self.connection.store.get(self.key(idx))
        if blob is None:
            # Only a dataset that is still there proves that the chunk was never written.
            self.connection.read_metadata(self.name)
            blank: Array = np.broadcast_to(self.metadata.fillvalue, self.metadata.chunk_size)
            return blank
        return self._decode(idx, blob.data)

    def _write_whole(self, idx: Shape, chunk: Array) -> None:
        with _lock(self.name, idx):
            self.connection.store.put(self.key(idx), self._encode(chunk))

    def _change(self, idx: Shape, values: Any, slices: Slices) -> None:
        store, key = self.connection.store, self.key(idx)
        with _lock(self.name, idx):
            for _ in range(_MOST_ATTEMPTS):
                blob = store.get(key)
                if blob is None:
                    chunk = self.metadata.empty_chunk()
                else:
                    chunk = self._decode(idx, blob.data).copy()
                chunk[slices] = values
                version = ABSENT if blob is None else blob.version
                try:
                    store.put(
                        key, self._encode(chunk), version if store.conditional_puts else None
                    )
                except VersionConflict:
                    continue
                return
        raise StorageError(
            f"chunk {idx} of {self.name!r} changed {_MOST_ATTEMPTS} times while part of it was "
            "being written: too many writers on one chunk"
        )

    def _encode(self, chunk: Array) -> bytes:
        data = chunk.tobytes()
        return data + _CRC.pack(zlib.crc32(data)) if self._checksum else data

    def _decode(self, idx: Shape, data: bytes) -> Array:
        meta = self.metadata
        expected = meta.chunk_nbytes + (_CRC.size if self._checksum else 0)
        where = f"chunk {idx} of dataset {self.name!r} in {self.connection.name!r}"
        if len(data) != expected:
            raise ChunkCorruptError(f"{where} has {len(data)} bytes instead of {expected}")
        body = memoryview(data)[: meta.chunk_nbytes]
        if self._checksum and zlib.crc32(body) != _CRC.unpack_from(data, meta.chunk_nbytes)[0]:
            raise ChunkCorruptError(f"{where} fails its checksum: its bytes were changed")
        return np.frombuffer(body, meta.dtype).reshape(meta.chunk_size)


class StoreDataChunk(BackendDataChunk):
    """A handle on one object."""

    dataset: StoreDataset

    def get_data(self, slices: Slices | None = None) -> Any:
        return self.dataset.get_chunk_data(self.idx, (...,) if slices is None else slices)

    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        self.dataset.set_chunk_data(self.idx, values, (...,) if slices is None else slices)


def _key(dataset: str, part: str) -> str:
    return f"{dataset}/{part}"
