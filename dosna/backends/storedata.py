"""Datasets of a store of bytes: Zarr v3 arrays, whose chunks or shards are objects."""

from __future__ import annotations

import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, TypeVar

import numpy as np

from dosna import zarr3
from dosna.backends.base import (
    Array,
    BackendDataChunk,
    BackendDataset,
    ChunkState,
    Guarantees,
    Slices,
)
from dosna.backends.parts import byte_range, scratch
from dosna.codecs import NO_CHUNK, CodecError, bytes_of
from dosna.errors import ChunkCorruptError, StaleDatasetError, StorageError
from dosna.metadata import DatasetMetadata, Shape
from dosna.plan import ChunkTask, Plan, plan
from dosna.selection import select

if TYPE_CHECKING:
    from dosna.backends.store import StoreConnection

__all__ = [
    "ABSENT",
    "Blob",
    "ByteRange",
    "Store",
    "StoreDataChunk",
    "StoreDataset",
    "VersionConflict",
    "lock",
]

ABSENT = ""
"""The version of an object that does not exist."""

ByteRange = tuple[int, int | None]

MOST_ATTEMPTS = 1000
_STRIPES = 64
MOST_INDEXES = 1024

T = TypeVar("T")


class Blob(NamedTuple):
    """The bytes of an object, and its version: as long as that is the same, so are they."""

    data: bytes | memoryview
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

    deletes_at_once: ClassVar[int] = 1
    """How many objects `delete_many` deletes by one request."""

    @abstractmethod
    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        """Get an object or a part of its bytes; None if there is no object.

        Parameters
        ----------
        key : str
        byte_range : tuple, optional
            ``(start, stop)``, of which what lies beyond the end is left out; or ``(-n, None)``,
            the last `n` bytes.
        """

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

    # What follows is written over the methods above; a store replaces what it does better.

    def folders(self, prefix: str) -> Iterator[str]:
        """List what stands between `prefix` and the next '/' of the keys, each once."""
        seen = set()
        for key in self.list(prefix):
            folder, slash, _ = key[len(prefix) :].partition("/")
            if slash and folder not in seen:
                seen.add(folder)
                yield folder

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, some of which may be gone already."""
        for key in keys:
            self.delete(key)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        """Do `work`, which makes requests, on each item; the first error is raised.

        One after the other. A store to which requests take long does several at a time, in
        threads of its own, whatever the engine: `work` is made for that.

        Parameters
        ----------
        work : callable
        items : iterable
            Taken in the caller's thread, no sooner than their turn comes.
        nbytes : int
            What each holds in memory while it is worked on.
        """
        for item in items:
            work(item)

    def close(self) -> None:  # noqa: B027  a store without a connection has nothing to close
        """Let go of what the store holds."""


# By chunk and not by handle, because a store may have no conditional puts.
_locks = [threading.Lock() for _ in range(_STRIPES)]


def lock(*what: Any) -> threading.Lock:
    """Give the lock, within this process, on a dataset's metadata or a stored object."""
    return _locks[hash(what) % _STRIPES]


def _renew_locks() -> None:
    _locks[:] = [threading.Lock() for _ in range(_STRIPES)]


os.register_at_fork(after_in_child=_renew_locks)

_NOTHING: Array = np.empty(0, np.uint8)


class StoreDataset(BackendDataset):
    """A Zarr v3 array of a store: every chunk is one object, or many share a shard."""

    connection: StoreConnection

    def __init__(self, connection: StoreConnection, name: str, metadata: DatasetMetadata) -> None:
        super().__init__(connection, name, metadata)
        self.prepare()

    def prepare(self) -> None:
        """Make what is not sent to another process."""
        self.layout = zarr3.layout(self.metadata)
        self._indexes: dict[Shape, tuple[str, list[list[int]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("layout", "_indexes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.prepare()

    # -- what a subclass may do in another way --------------------------------------------

    @property
    def store(self) -> Store:
        """Where the objects are."""
        return self.connection.store

    def key(self, idx: Shape) -> str:
        """Key of a stored object: of chunk `idx`, or of shard `idx`."""
        return f"{self.connection.root(self.name)}/{self.layout.template % idx}"

    def hold(self, idx: Shape) -> AbstractContextManager[Any]:
        """Keep others out who change the stored object."""
        return lock(self.name, idx)

    def check_absent(self, absent: Iterable[Shape]) -> None:
        """Prove that stored objects which were not found were never written.

        They are fill if the dataset is still there, and otherwise DatasetNotFoundError.
        """
        self.connection.read_metadata(self.name)

    def check_inside(
        self, start: Sequence[int], size: Shape, key: Slices | None, whole: bool
    ) -> None:
        """Look at a write that is about to be done, under `hold`.

        It is of the part `key` of a box of `size` at `start`: of all that was inside the array
        when the write was planned, if it is `whole`; None is all that is inside now.
        """

    # -- description ----------------------------------------------------------------------

    @property
    def guarantees(self) -> Guarantees:
        store = self.store
        conditional = store.conditional_puts
        shared = self.connection.shared_between_processes
        return Guarantees(
            partial_writes="processes" if conditional and shared else "threads",
            atomic_chunks=True,
            durable=shared,
            checksum=self.layout.pipeline.checks > 0,
            notes=()
            if conditional or not shared
            else (
                "the store has no conditional puts: partial writes of several processes can "
                "be lost",
            ),
        )

    @property
    def create_options(self) -> dict[str, Any]:
        return zarr3.options_of(self.metadata)

    @property
    def grain(self) -> Shape:
        return self.layout.grain

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        """Names of the axes, or None if they have none."""
        return zarr3.dims_of(self.metadata)

    @property
    def shards(self) -> Shape | None:
        """Extent of a shard, or None if each chunk is an object."""
        return None if self.layout.shards is None else self.layout.grain

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        key = self.connection.document(self.name)
        for _ in range(MOST_ATTEMPTS):
            with suppress(VersionConflict), lock(self.name):
                old, version = self.connection.read_metadata(self.name)
                self.adopt(old)
                new = change(old)
                self.store.put(key, zarr3.to_json(new), version)
                self.metadata = new
                return
        raise StorageError(f"metadata of {self.name!r} changed {MOST_ATTEMPTS} times meanwhile")

    def refresh(self) -> None:
        self.adopt(self.connection.read_metadata(self.name)[0])

    def adopt(self, metadata: DatasetMetadata) -> None:
        """Take over metadata that were read again."""
        if not zarr3.stored_alike(metadata, self.metadata):
            raise StaleDatasetError(
                f"dataset {self.name!r} was deleted and made again since this handle was opened: "
                "get it again from its connection"
            )
        self.metadata = metadata

    # -- chunks ---------------------------------------------------------------------------

    def get_chunk(self, idx: Shape) -> StoreDataChunk:
        return StoreDataChunk(self, idx)

    def has_chunk(self, idx: Shape) -> bool:
        shards = self.layout.shards
        if shards is None:
            return self.store.get(self.key(idx), (0, 1)) is not None
        shard, local = self._place(idx)
        index = self._index(shard)
        return index is not None and index[1][shards.number(local)][0] != NO_CHUNK

    def del_chunk(self, idx: Shape) -> bool:
        if self.layout.shards is None:
            return self.del_object(idx)
        shard, local = self._place(idx)
        number = self.layout.shards.number(local)
        found = False

        def without(chunks: list[Any]) -> None:
            nonlocal found
            found = chunks[number] is not None
            chunks[number] = None

        if self.has_chunk(idx):
            self._change_shard(shard, without)
        return found

    def del_object(self, idx: Shape) -> bool:
        with self.hold(idx):
            return self.store.delete(self.key(idx))

    def object_indices(self) -> Iterator[Shape]:
        start = len(self.connection.root(self.name)) + 1
        for key in self.connection.object_keys(self.name):
            idx = self.layout.index(key[start:])
            if idx is not None:
                yield idx

    def chunk_indices(self) -> Iterator[Shape]:
        shards = self.layout.shards
        if shards is None:
            yield from self.object_indices()
            return
        for shard in self.object_indices():
            index = self._index(shard)
            if index is None:
                continue
            first = [i * n for i, n in zip(shard, shards.counts, strict=True)]
            for local, (start, _) in zip(shards.locals(), index[1], strict=True):
                if start != NO_CHUNK:
                    yield tuple(f + i for f, i in zip(first, local, strict=True))

    def verify_chunk(self, idx: Shape) -> ChunkState:
        try:
            if not self.has_chunk(idx):
                return "never written"
            self.read_chunk(idx, None)
        except ChunkCorruptError:
            return "corrupt"
        return "ok" if self.layout.pipeline.checks else "unchecked"

    # -- reading --------------------------------------------------------------------------

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        key = self.metadata.bounds(idx).chunk if slices is None else slices
        chunk = self.read_chunk(idx, key)
        if chunk is None:
            self.check_absent([idx if self.layout.shards is None else self._place(idx)[0]])
            fill = np.asarray(self.metadata.fillvalue, self.metadata.dtype)
            chunk = np.broadcast_to(fill, self.metadata.chunk_size)
        part = chunk[key]
        return part.copy() if isinstance(part, np.ndarray) else part

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        absent: list[Shape] = []
        read = self._read_task if self.layout.shards is None else self._read_shard_task
        self.store.for_each(partial(read, out, absent), tasks, self._object_nbytes)
        if absent:
            self.check_absent(absent)

    def _read_task(self, out: Array, absent: list[Shape], task: ChunkTask) -> None:
        idx, key, where, whole = task
        raw = self.straight(out, where) if whole else None
        chunk = self.read_chunk(idx, key, raw)
        if chunk is None:
            absent.append(idx)
            out[where] = self.metadata.fillvalue
        elif raw is None:
            out[where] = chunk[key]

    def straight(self, out: Array, where: Any) -> Array | None:
        """Give the bytes of a part of `out`, if a decoder can write a chunk there."""
        if not self.layout.pipeline.direct or out.dtype != self.metadata.dtype:
            return None
        target = out[where]
        if (
            not isinstance(target, np.ndarray)
            or target.nbytes != self.metadata.chunk_nbytes
            or not target.flags.c_contiguous
            or not all(type(w) is slice for w in where)
        ):
            return None
        return bytes_of(target)

    def read_chunk(self, idx: Shape, key: Slices | None, raw: Array | None = None) -> Array | None:
        """Read the part `key` of a chunk (None: all) to its place in a whole chunk.

        None if there is no such chunk.

        The array may be of the thread's scratch memory, or of bytes: it is not to be kept or
        written to. A compressed chunk is decoded into `raw`, if that is given.
        """
        if self.layout.shards is not None:
            return self.read_from_shard(*self._place(idx), raw)
        meta = self.metadata
        pipeline = self.layout.pipeline
        wanted = None
        if key is not None and pipeline.plain and not pipeline.checks:
            first, last = byte_range(meta, key)
            if 2 * (last - first) < meta.chunk_nbytes:
                wanted = (first, max(last, first + 1))
        blob = self.store.get(self.key(idx), wanted)
        if blob is None:
            return None
        if wanted is None:
            return self.decode(idx, blob.data, raw)
        memory = scratch.raw(meta.chunk_nbytes)
        first, last = wanted
        if len(blob.data) != last - first:
            self.corrupt(idx, f"it ends within bytes {first} to {last}")
        memory[first:last] = np.frombuffer(blob.data, np.uint8)
        return pipeline.array(memory)

    def decode(self, idx: Shape, data: Any, raw: Array | None = None) -> Array:
        """Decode a chunk, or raise ChunkCorruptError."""
        pipeline = self.layout.pipeline
        if raw is None:
            raw = scratch.raw(pipeline.nbytes) if pipeline.compressed else _NOTHING
        try:
            return pipeline.decode(data, raw)
        except CodecError as error:
            self.corrupt(idx, str(error))

    def corrupt(self, idx: Shape, why: str) -> NoReturn:
        """Raise the error about a chunk."""
        stored = idx if self.layout.shards is None else self._place(idx)[0]
        raise ChunkCorruptError(
            f"chunk {idx} of dataset {self.name!r} in {self.connection.name!r} is damaged: {why}. "
            f"Restore its object {self.key(stored)!r} from a copy, or delete the chunk with "
            "del_chunk to have fill values"
        )

    # -- writing --------------------------------------------------------------------------

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        values = np.asarray(values)
        if self.layout.shards is None:
            self._write(idx, values, slices, False)
            return
        shard, local = self._place(idx)
        number = self.layout.shards.number(local)

        def changed(chunks: list[Any]) -> None:
            self._check(idx, slices, False)
            chunks[number] = self._changed(idx, values, slices, chunks[number])

        self._change_shard(shard, changed)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        work = self._write_task if self.layout.shards is None else self._write_shard_task
        self.store.for_each(partial(work, values), tasks, self._object_nbytes)

    def _write_task(self, values: Array, task: ChunkTask) -> None:
        idx, key, where, whole = task
        self._write(idx, values[where], key, whole)

    def _write(self, idx: Shape, values: Array, key: Slices | None, whole: bool) -> None:
        if key is None or whole:
            with self.hold(idx):
                self._check(idx, key, whole)
                self.put(idx, self._encoded(idx, values), None)
            return

        def changed(data: bytes | memoryview | None) -> list[Any]:
            self._check(idx, key, False)
            return self._changed(idx, values, key, data)

        self.modify(idx, changed)

    def _check(self, idx: Shape, key: Slices | None, whole: bool) -> None:
        size = self.metadata.chunk_size
        start = [i * c for i, c in zip(idx, size, strict=True)]
        self.check_inside(start, size, key, whole)

    def _encoded(self, idx: Shape, values: Array) -> list[Any]:
        """Encode a whole chunk: `values` inside the array, fill outside."""
        meta = self.metadata
        if (
            values.shape != meta.chunk_size
            or values.dtype != meta.dtype
            or meta.bounds(idx).chunk != tuple(slice(0, c) for c in meta.chunk_size)
        ):
            values = self.padded(idx, values)
        return self.layout.pipeline.encode(values)

    def _changed(self, idx: Shape, values: Array, key: Slices | None, data: Any) -> list[Any]:
        """Encode a chunk of which the part `key` changes; `data` is what is stored."""
        if key is None:
            return self._encoded(idx, values)
        meta, pipeline = self.metadata, self.layout.pipeline
        if data is None:
            chunk = scratch.chunk(meta)[0]
            chunk[...] = meta.fillvalue
        else:
            stored = self.decode(idx, data[0] if isinstance(data, list) else data)
            if pipeline.direct:
                chunk = stored
            else:
                chunk = scratch.chunk(meta)[0]
                chunk[...] = stored
        chunk[key] = values
        parts = pipeline.encode(chunk)
        # A shard keeps the parts of many chunks, and scratch memory is that of one.
        return [b"".join(parts)] if self.layout.shards is not None else parts

    def modify(self, idx: Shape, change: Callable[[bytes | memoryview | None], list[Any]]) -> None:
        """Replace a stored object by what is made of it, whoever else changes it."""
        key = self.key(idx)
        with self.hold(idx):
            for _ in range(MOST_ATTEMPTS):
                blob = self.store.get(key)
                parts = change(None if blob is None else blob.data)
                with suppress(VersionConflict):
                    self.put(idx, parts, ABSENT if blob is None else blob.version)
                    return
        raise StorageError(
            f"object {key!r} of dataset {self.name!r} changed {MOST_ATTEMPTS} times while part of "
            "it was being written: too many writers on one object"
        )

    def put(self, idx: Shape, parts: list[Any], version: str | None) -> None:
        """Write a stored object, over a version if the store knows how."""
        if version is not None and not self.store.conditional_puts:
            version = None
            if self.connection.shared_between_processes:
                self.connection.warn_of_lost_writes()
        self.store.put(self.key(idx), b"".join(parts), version)

    @property
    def _object_nbytes(self) -> int:
        return math.prod(self.grain) * self.metadata.dtype.itemsize

    # -- shards ---------------------------------------------------------------------------

    def _place(self, idx: Shape) -> tuple[Shape, Shape]:
        """Give the shard of a chunk, and its place there."""
        shards = self.layout.shards
        assert shards is not None
        pairs = [divmod(i, n) for i, n in zip(idx, shards.counts, strict=True)]
        return tuple([p[0] for p in pairs]), tuple([p[1] for p in pairs])

    def _index(self, shard: Shape) -> tuple[str, list[list[int]]] | None:
        """Read the index of a shard, with the version of the shard; None if there is none."""
        shards = self.layout.shards
        assert shards is not None
        blob = self.store.get(self.key(shard), shards.index_range)
        if blob is None:
            self._indexes.pop(shard, None)
            return None
        try:
            found = blob.version, shards.index(blob.data)
        except CodecError as error:
            self.corrupt(
                shards.chunk(shard, (0,) * self.metadata.ndim),
                f"the index of its shard is: {error}",
            )
        if len(self._indexes) >= MOST_INDEXES:
            self._indexes.clear()
        self._indexes[shard] = found
        return found

    def read_from_shard(
        self, shard: Shape, local: Shape, raw: Array | None = None
    ) -> Array | None:
        """Read a chunk by its range, with the index that was read before if that still holds."""
        shards = self.layout.shards
        assert shards is not None
        key, number = self.key(shard), shards.number(local)
        index = self._indexes.get(shard)
        for _ in range(MOST_ATTEMPTS):
            known = index is not None
            if index is None:
                index = self._index(shard)
            if index is None:
                return None
            start, size = index[1][number]
            if start == NO_CHUNK:
                # Nothing is read that would tell whether what was known still holds.
                if not known:
                    return None
            else:
                blob = self.store.get(key, (start, start + size))
                if blob is not None and blob.version == index[0]:
                    return self.decode_from_shard(shard, local, blob.data, raw)
            index = None
        raise StorageError(
            f"shard {key!r} of dataset {self.name!r} changed {MOST_ATTEMPTS} times while a chunk "
            "of it was being read"
        )

    def decode_from_shard(
        self, shard: Shape, local: Shape, data: Any, raw: Array | None = None
    ) -> Array:
        """Decode a chunk of a shard, or raise ChunkCorruptError."""
        pipeline = self.layout.pipeline
        if raw is None:
            raw = scratch.raw(pipeline.nbytes) if pipeline.compressed else _NOTHING
        try:
            return pipeline.decode(data, raw)
        except CodecError as error:
            shards = self.layout.shards
            assert shards is not None
            self.corrupt(shards.chunk(shard, local), str(error))

    def _read_shard_task(self, out: Array, absent: list[Shape], task: ChunkTask) -> None:
        shard, key, where, _ = task
        selection = select(key, self.layout.grain)
        parts = plan(selection, self.metadata.chunk_size)
        if all(type(w) is slice for w in where):
            into = selection.view(out[where])
            if into is not None:
                self._read_shard(shard, into, absent, parts)
                return
        result, into = selection.allocate(self.metadata.dtype)
        self._read_shard(shard, into, absent, parts)
        out[where] = selection.finish(result)

    def _read_shard(self, shard: Shape, out: Array, absent: list[Shape], parts: Plan) -> None:
        """Read chunks of a shard: all at once if they are many; `parts` counts within it."""
        shards = self.layout.shards
        assert shards is not None
        chunks: list[memoryview | None] | None = None
        if 2 * len(parts) >= shards.total:
            blob = self.store.get(self.key(shard))
            if blob is None:
                absent.append(shard)
                out[...] = self.metadata.fillvalue
                return
            chunks = self._split(shard, blob.data)
        for local, key, where, whole in parts:
            raw = self.straight(out, where) if whole else None
            found: Array | None = None
            if chunks is None:
                found = self.read_from_shard(shard, local, raw)
            else:
                data = chunks[shards.number(local)]
                found = None if data is None else self.decode_from_shard(shard, local, data, raw)
            if found is None:
                absent.append(shard)
                out[where] = self.metadata.fillvalue
            elif raw is None:
                out[where] = found[key]

    def _split(self, shard: Shape, data: Any) -> list[memoryview | None]:
        shards = self.layout.shards
        assert shards is not None
        try:
            return shards.split(data)
        except CodecError as error:
            self.corrupt(shards.chunk(shard, (0,) * self.metadata.ndim), f"its shard is: {error}")

    def _change_shard(self, shard: Shape, change: Callable[[list[Any]], None]) -> None:
        """Change encoded chunks of a shard, in a list, and write the shard."""
        shards = self.layout.shards
        assert shards is not None

        def changed(data: bytes | memoryview | None) -> list[Any]:
            chunks: list[Any] = [None] * shards.total
            if data is not None:
                chunks = [None if c is None else [c] for c in self._split(shard, data)]
            change(chunks)
            return shards.join(chunks)

        self.modify(shard, changed)

    def _write_shard_task(self, values: Array, task: ChunkTask) -> None:
        shard, key, where, whole = task
        shards = self.layout.shards
        assert shards is not None
        selection = select(key, self.layout.grain)
        canonical = selection.spread(values[where], self.metadata.dtype)
        parts = plan(selection, self.metadata.chunk_size)

        def change(chunks: list[Any]) -> None:
            grain = self.layout.grain
            start = [i * g for i, g in zip(shard, grain, strict=True)]
            self.check_inside(start, grain, key, whole)
            for local, part, place, all_of_it in parts:
                number = shards.number(local)
                chunks[number] = self._changed(
                    shards.chunk(shard, local),
                    canonical[place],
                    None if whole or all_of_it else part,
                    chunks[number],
                )

        if not whole:
            self._change_shard(shard, change)
            return
        chunks: list[Any] = [None] * shards.total
        with self.hold(shard):
            change(chunks)
            self.put(shard, shards.join(chunks), None)

    def trim_object(self, idx: Shape) -> None:
        shards = self.layout.shards
        if shards is None:
            super().trim_object(idx)
            return

        def trimmed(chunks: list[Any]) -> None:
            for number, (local, data) in enumerate(zip(shards.locals(), chunks, strict=True)):
                at = shards.chunk(idx, local)
                if data is None or not self.metadata.contains(at):
                    chunks[number] = None
                    continue
                inside = self.metadata.bounds(at).chunk
                if tuple(s.stop for s in inside) != self.metadata.chunk_size:
                    kept = self.decode(at, data[0])[inside]
                    chunks[number] = self._encoded(at, kept)

        self._change_shard(idx, trimmed)


class StoreDataChunk(BackendDataChunk):
    """A handle on one chunk."""

    dataset: StoreDataset

    def get_data(self, slices: Slices | None = None) -> Any:
        if slices is None:
            slices = tuple(slice(0, c) for c in self.dataset.metadata.chunk_size)
        return self.dataset.get_chunk_data(self.idx, slices)

    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        if slices is None:
            slices = tuple(slice(0, c) for c in self.dataset.metadata.chunk_size)
        self.dataset.set_chunk_data(self.idx, values, slices)
