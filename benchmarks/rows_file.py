"""Rows of the file backend, beside other libraries' Zarr arrays. Nothing is synchronized."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import in_zarr
from rows import Array, Setting, compressible, planes, random, row, tiles
from timing import Case

import dosna as dn

Index = tuple[int, ...]

SMALL = (32, 32)
# Chunks of a quarter of a MiB and of a whole MiB, of float32.
LARGE = {"256k": (16, 64, 64), "1m": (64, 64, 64)}
PEERS = ("dosna", "TensorStore", "zarr")
WITH_BARE = ("dosna", "bare files", "TensorStore", "zarr")
# zarr needs a minute to prepare 10^5 files.
MANY = ("dosna", "bare files")


def reading(
    folder: Path, data: Array, chunks: Index, aims: dict[str, float], **options: Any
) -> Iterator[Case]:
    out = np.empty_like(data)
    flat = options.pop("flat", False)
    with in_zarr(folder, data, chunks, **options) as peers:
        work = {n: partial(p.read, ..., out) for n, p in peers.items()}
        count = peers["dosna"].array.total_chunks
        yield Case(f"{count} chunks", count, "chunk", work, aims, flat=flat)


def writing(
    folder: Path, data: Array, chunks: Index, aims: dict[str, float], **options: Any
) -> Iterator[Case]:
    flat = options.pop("flat", False)
    with in_zarr(folder, data, chunks, **options) as peers:
        work = {n: partial(p.write, data) for n, p in peers.items()}
        count = peers["dosna"].array.total_chunks
        yield Case(f"{count} chunks", count, "chunk", work, aims, flat=flat)


def small(setting: Setting, cases: Any, aims: Any, most: int, **options: Any) -> Iterator[Case]:
    for count in setting.counts:
        if count <= most:
            names = WITH_BARE if count <= 1000 else MANY
            with setting.fresh() as folder:
                yield from cases(
                    folder, tiles(count), SMALL, aims, names=names, flat=True, **options
                )


@row("file-read-4k", "file: read all 4 KiB chunks into an array, unchecked")
def read_small(setting: Setting) -> Iterator[Case]:
    aims = {"bare files": 1.25, "TensorStore": 0.9, "zarr": 0.1}
    return small(setting, reading, aims, 100_000, checksum=False)


@row("file-read-4k-checked", "file: the same, with a CRC-32C on all sides but the bare files")
def read_small_checked(setting: Setting) -> Iterator[Case]:
    return small(setting, reading, {"TensorStore": 0.9, "zarr": 0.1}, 1000, checksum=True)


@row("file-write-4k", "file: overwrite all 4 KiB chunks, unchecked, replaced by rename")
def write_small(setting: Setting) -> Iterator[Case]:
    return small(setting, writing, {"TensorStore": 1.8}, 10_000, checksum=False)


@row("file-write-4k-unordered", "file: the same with ordered=False, dosna's replaced by exchange")
def write_small_unordered(setting: Setting) -> Iterator[Case]:
    return small(setting, writing, {"TensorStore": 0.3}, 10_000, checksum=False, ordered=False)


def volume(setting: Setting) -> Array:
    return random((128 if setting.quick else 256, 256, 256))


def add_large(size: str, threads: int) -> None:
    where = f"{threads} core{'s' * (threads > 1)}"
    suffix = "" if threads == 1 else f"-{threads}-threads"
    names = WITH_BARE if threads == 1 else PEERS
    most = 1.0 if threads == 1 else 1.1
    options: dict[str, Any] = {"names": names, "threads": threads}

    @row(f"file-read-{size}{suffix}", f"file: read all chunks of {size}, {where}", threads)
    def read(setting: Setting) -> Iterator[Case]:
        aims = dict.fromkeys(names, most) | {"bare files": 1.15}
        with setting.fresh() as folder:
            yield from reading(folder, volume(setting), LARGE[size], aims, **options)

    @row(
        f"file-write-{size}{suffix}",
        f"file: overwrite all chunks of {size}, {where}, replaced by rename",
        threads,
    )
    def write(setting: Setting) -> Iterator[Case]:
        aims = {"TensorStore": 1.8} | ({"bare files": 1.15} if threads == 1 else {})
        with setting.fresh() as folder:
            yield from writing(folder, volume(setting), LARGE[size], aims, **options)

    @row(
        f"file-write-{size}{suffix}-unordered",
        f"file: overwrite all chunks of {size}, {where}, dosna's with ordered=False, by exchange",
        threads,
    )
    def write_unordered(setting: Setting) -> Iterator[Case]:
        with setting.fresh() as folder:
            yield from writing(
                folder,
                volume(setting),
                LARGE[size],
                {"TensorStore": 0.5},
                ordered=False,
                **options,
            )


for _threads in (1, 2):
    for _size in LARGE:
        add_large(_size, _threads)


@row("file-planes", "file: read a plane of a volume of 256 x 256 x 256 in 1 MiB chunks")
def read_planes(setting: Setting) -> Iterator[Case]:
    data = random((256, 256, 256))
    with setting.fresh() as folder, in_zarr(folder, data, LARGE["1m"], names=PEERS) as peers:
        yield from planes(peers, data)


@row("file-gzip", "file: 1 MiB chunks, gzip of level 4 on all sides")
def gzip(setting: Setting) -> Iterator[Case]:
    aims = {reading: {"h5py": 0.55, "TensorStore": 0.8}, writing: {"h5py": 0.35}}
    for cases, wanted in aims.items():
        with setting.fresh() as folder:
            data, names = compressible(setting), (*PEERS, "h5py")
            for case in cases(folder, data, LARGE["1m"], wanted, names=names, gzip=True):
                yield Case(cases.__name__, case.units, case.unit, case.work, case.aims)


@row("file-zstd", "file: 1 MiB chunks, zstd of level 3 and CRC-32C on all sides")
def zstd(setting: Setting) -> Iterator[Case]:
    for cases in (reading, writing):
        with setting.fresh() as folder:
            for case in cases(
                folder,
                compressible(setting),
                LARGE["1m"],
                {"TensorStore": 1.1, "zarr": 1.0},
                names=PEERS,
                zstd=True,
                checksum=True,
            ):
                yield Case(cases.__name__, case.units, case.unit, case.work, case.aims)


@row("file-shards", "file: 64 KiB chunks in shards of 4 MiB, CRC-32C on all sides")
def shards(setting: Setting) -> Iterator[Case]:
    data, chunks, grain = volume(setting), (16, 32, 32), (64, 128, 128)
    corners = (np.random.default_rng(1).integers(0, 100, (100, 3))).tolist()
    keys = [tuple(slice(c, c + 8) for c in corner) for corner in corners]

    def boxes(array: Any) -> None:
        for key in keys:
            np.asarray(array[key])

    with (
        setting.fresh() as folder,
        in_zarr(folder, data, chunks, names=PEERS, checksum=True, shards=grain) as peers,
    ):
        out = np.empty_like(data)
        count = peers["dosna"].array.total_chunks
        aims = {"TensorStore": 1.0, "zarr": 1.0}
        reads = {n: partial(p.read, ..., out) for n, p in peers.items()}
        yield Case(f"read {count} chunks", count, "chunk", reads, aims)
        writes = {n: partial(p.write, data) for n, p in peers.items()}
        yield Case(f"write {count} chunks", count, "chunk", writes, {"TensorStore": 1.8})
        small_boxes = {n: partial(boxes, p.array) for n, p in peers.items()}
        yield Case("read boxes of 8 x 8 x 8", 100, "box", small_boxes, aims)


@row(
    "checked-points",
    "file, hdf5: points and boxes of 8 x 8 x 8 in checked 1 MiB chunks",
)
def checked_points(setting: Setting) -> Iterator[Case]:
    data, chunks, grain = random((256, 256, 256)), (64, 64, 64), (16, 16, 16)
    places = np.random.default_rng(1).integers(0, 248, (200, 3)).tolist()
    points = [tuple(place) for place in places]
    boxes = [tuple(slice(c, c + 8) for c in place) for place in places]
    for backend in ("file", "hdf5"):
        with setting.fresh() as folder, ExitStack() as stack:

            def connect(backend: str = backend, **options: Any) -> Any:
                return stack.enter_context(dn.Connection(str(folder), backend=backend, **options))

            con = connect(engine="cpu")
            arrays = {
                "unchecked": con.create_dataset("u", data=data, chunk_size=chunks, checksum=False),
                "checked": con.create_dataset("c", data=data, chunk_size=chunks, checksum=True),
            }
            if backend == "file":
                arrays["shards"] = con.create_dataset(
                    "s", data=data, chunk_size=grain, shards=chunks, checksum=True
                )
            time.sleep(2.1)  # A cache keeps what has not just been written.
            arrays = {"dosna": connect(engine="cpu", cache="256 MiB")["c"], **arrays}
            for what, keys in (("point", points), ("box", boxes)):
                work = {n: partial(_each, array, keys) for n, array in arrays.items()}
                yield Case(f"{backend}, {what}", 200, what, work, {"unchecked": 3})


def _each(array: Any, keys: Any) -> None:
    for key in keys:
        array[key]
