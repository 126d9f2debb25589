"""The same array in other libraries, behind the few methods that are timed.

There is no compression unless requested, and nothing is synchronized to the disk. All libraries
read into memory of the caller, because fresh memory can cost more than the reading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore as ts
import zarr
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

import dosna as dn
from dosna.core.plan import every_chunk

Array = np.ndarray[Any, Any]
Index = tuple[Any, ...]

GZIP_LEVEL = 4
ZSTD_LEVEL = 3


class Peer:
    """An array that holds `data`; its attribute `array` is indexed like a NumPy array."""

    array: Any

    def read(self, key: Any, out: Array) -> None:
        out[...] = self.array[key]

    def write(self, values: Array) -> None:
        self.array[...] = values


class Dosna(Peer):
    """dosna, on any backend and engine."""

    def __init__(self, stack: ExitStack, name: str, data: Array, chunks: Index, **options: Any):
        made = {
            k: options.pop(k)
            for k in ("compression", "compression_level", "checksum", "shards")
            if k in options
        }
        connection = stack.enter_context(dn.Connection(name, **options))
        self.array = connection.create_dataset("data", data=data, chunk_size=chunks, **made)
        stack.callback(self.array.delete)

    def read(self, key: Any, out: Array) -> None:
        self.array.read(key, out)

    def load(self, values: Array) -> None:
        self.array.load(values)


class Zarr(Peer):
    """zarr-python."""

    def __init__(
        self, store: Any, data: Array, chunks: Index, compressors: Any, shards: Index | None = None
    ):
        self.array = zarr.create_array(
            store,
            shape=data.shape,
            dtype=data.dtype,
            chunks=chunks,
            compressors=compressors,
            shards=shards,
        )
        self.array[...] = data

    def read(self, key: Any, out: Array) -> None:
        self.array.get_basic_selection(key, out=NDBuffer.from_numpy_array(out))


class TensorStore(Peer):
    """TensorStore, also in the Zarr format."""

    def __init__(
        self,
        kvstore: Any,
        data: Array,
        chunks: Index,
        threads: int,
        codecs: list[Any],
        shards: Index | None = None,
    ):
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        codecs = [little, *codecs]
        if shards is not None:
            inner = {"chunk_shape": chunks, "codecs": codecs}
            codecs = [{"name": "sharding_indexed", "configuration": inner}]
        spec = {
            "driver": "zarr3",
            "kvstore": kvstore,
            "metadata": {
                "shape": data.shape,
                "data_type": data.dtype.name,
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": shards or chunks},
                },
                "codecs": codecs,
            },
            "context": {
                "data_copy_concurrency": {"limit": threads},
                "file_io_concurrency": {"limit": threads},
                "file_io_sync": False,
            },
        }
        self.array = ts.open(spec, create=True).result()
        self.write(data)

    def read(self, key: Any, out: Array) -> None:
        target = ts.array(out, copy=False, write=True)
        target.write(self.array[key]).result()

    def write(self, values: Array) -> None:
        self.array.write(values).result()

    def point(self, idx: Index) -> Any:
        return self.array[idx].read().result()


class H5py(Peer):
    """h5py, with all chunks in one file, which is opened for reading unless `writable`.

    HDF5's cache of decoded chunks holds one chunk, because the other libraries have no cache.
    Without any, HDF5 would read and write small pieces of chunks.
    """

    def __init__(
        self,
        stack: ExitStack,
        path: Path,
        data: Array,
        chunks: Index,
        writable: bool,
        options: dict[str, Any],
    ):
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=data, chunks=chunks, **options)
        one = prod(chunks) * data.itemsize
        file = stack.enter_context(h5py.File(path, "r+" if writable else "r", rdcc_nbytes=one))
        self.array = file["data"]

    def read(self, key: Any, out: Array) -> None:
        self.array.read_direct(out, key)


class BareFiles:
    """A loop over one file for each chunk, written to a temporary file that is renamed."""

    def __init__(self, folder: Path, data: Array, chunks: Index):
        folder.mkdir()
        self.folder = str(folder)
        self.places = [
            (f"{self.folder}/{i}", task.out)
            for i, task in enumerate(every_chunk(data.shape, chunks))
        ]
        self.scratch = np.empty(chunks, data.dtype)
        self.write(data)

    def read(self, key: Any, out: Array) -> None:
        scratch = self.scratch
        for name, place in self.places:
            target = out[place]
            direct = target.flags.c_contiguous
            file = os.open(name, os.O_RDONLY)
            os.preadv(file, (target if direct else scratch,), 0)  # type: ignore[arg-type]
            os.close(file)
            if not direct:
                target[...] = scratch

    def write(self, values: Array) -> None:
        scratch = self.scratch
        temporary = f"{self.folder}/temporary"
        for name, place in self.places:
            source = values[place]
            if not source.flags.c_contiguous:
                scratch[...] = source
                source = scratch
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(file, source)  # type: ignore[arg-type]
            os.close(file)
            os.rename(temporary, name)


@contextmanager
def in_memory(
    data: Array, chunks: Index, *, names: tuple[str, ...] = ("dosna", "TensorStore", "zarr")
) -> Iterator[dict[str, Any]]:
    """Yield an array in each library's memory store."""
    makers: dict[str, Callable[[ExitStack], Any]] = {
        "dosna": lambda stack: Dosna(stack, "memory", data, chunks, backend="ram", engine="cpu"),
        "TensorStore": lambda _: TensorStore({"driver": "memory"}, data, chunks, 1, []),
        "zarr": lambda _: Zarr(MemoryStore(), data, chunks, None),
    }
    with ExitStack() as stack:
        yield {name: makers[name](stack) for name in names}


@contextmanager
def in_zarr(
    folder: Path,
    data: Array,
    chunks: Index,
    *,
    names: tuple[str, ...] = ("dosna", "bare files", "TensorStore", "zarr"),
    threads: int = 1,
    zstd: bool = False,
    gzip: bool = False,
    checksum: bool = False,
    shards: Index | None = None,
    ordered: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yield a Zarr v3 array of each library, all with the same codecs, and a file of h5py's."""
    level = {"level": ZSTD_LEVEL, "checksum": False}
    ts_level = {"level": ZSTD_LEVEL}
    ts_codecs = [{"name": "zstd", "configuration": ts_level}] * zstd
    ts_codecs += [{"name": "gzip", "configuration": {"level": GZIP_LEVEL}}] * gzip
    ts_codecs += [{"name": "crc32c"}] * checksum
    zarr_codecs: Any = [ZstdCodec(**level)] * zstd + [GzipCodec(level=GZIP_LEVEL)] * gzip
    zarr_codecs += [Crc32cCodec()] * checksum
    ours: dict[str, Any] = {"compression": {"name": "zstd", **level} if zstd else None}
    if gzip:
        ours = {"compression": {"name": "gzip", "level": GZIP_LEVEL}}
    hdf5 = {"compression": "gzip", "compression_opts": GZIP_LEVEL} if gzip else {}
    engine: dict[str, Any] = {"engine": "cpu"}
    if threads > 1:
        engine = {"engine": "joblib", "engine_kw": {"njobs": threads, "jlbackend": "threading"}}
    makers: dict[str, Callable[[ExitStack], Any]] = {
        "dosna": lambda stack: Dosna(
            stack,
            str(folder),
            data,
            chunks,
            backend="file",
            checksum=checksum,
            shards=shards,
            ordered=ordered,
            **ours,
            **engine,
        ),
        "bare files": lambda _: BareFiles(folder / "bare", data, chunks),
        "TensorStore": lambda _: TensorStore(
            {"driver": "file", "path": f"{folder}/tensorstore/"},
            data,
            chunks,
            threads,
            ts_codecs,
            shards,
        ),
        "zarr": lambda _: Zarr(
            LocalStore(folder / "zarr"), data, chunks, zarr_codecs or None, shards
        ),
        "h5py": lambda stack: H5py(stack, folder / "one.h5", data, chunks, True, hdf5),
    }
    with ExitStack() as stack:
        yield {name: makers[name](stack) for name in names}


@contextmanager
def in_files(
    folder: Path,
    data: Array,
    chunks: Index,
    *,
    names: tuple[str, ...] = ("dosna", "bare files", "TensorStore", "zarr", "h5py"),
    threads: int = 1,
    writable: bool = False,
    gzip: bool = False,
    checksum: bool = False,
    ordered: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yield an array in each library's files: one file for each chunk, for h5py one for all."""
    level = {"level": GZIP_LEVEL}
    ts_codecs = [{"name": "gzip", "configuration": level}] * gzip + [{"name": "crc32c"}] * checksum
    zarr_codecs: Any = [GzipCodec(**level)] * gzip + [Crc32cCodec()] * checksum
    hdf5: dict[str, Any] = {"compression": "gzip", "compression_opts": GZIP_LEVEL} if gzip else {}
    ours: dict[str, Any] = {"compression": "gzip", "compression_level": GZIP_LEVEL} if gzip else {}
    engine: dict[str, Any] = {"engine": "cpu"}
    if threads > 1:
        engine = {"engine": "joblib", "engine_kw": {"njobs": threads, "jlbackend": "threading"}}

    def dosna(stack: ExitStack) -> Dosna:
        options = {"backend": "hdf5", "checksum": checksum, "ordered": ordered, **ours, **engine}
        return Dosna(stack, str(folder), data, chunks, **options)

    makers: dict[str, Callable[[ExitStack], Any]] = {
        "dosna": dosna,
        "bare files": lambda _: BareFiles(folder / "bare", data, chunks),
        "TensorStore": lambda _: TensorStore(
            {"driver": "file", "path": f"{folder}/tensorstore/"}, data, chunks, threads, ts_codecs
        ),
        "zarr": lambda _: Zarr(LocalStore(folder / "zarr"), data, chunks, zarr_codecs or None),
        "h5py": lambda stack: H5py(
            stack,
            folder / "one.h5",
            data,
            chunks,
            writable,
            {**hdf5, "fletcher32": checksum},
        ),
    }
    with ExitStack() as stack:
        yield {name: makers[name](stack) for name in names}
