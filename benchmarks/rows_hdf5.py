"""Rows of the hdf5 backend, beside other libraries' files. Nothing is synchronized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import in_files
from rows import Array, Setting, compressible, planes, random, row, tiles
from timing import Case

Index = tuple[int, ...]

SMALL = (32, 32)
# Chunks of a quarter of a MiB and of a whole MiB, of float32.
LARGE = {"256k": (16, 64, 64), "1m": (64, 64, 64)}
ALL = ("dosna", "bare files", "TensorStore", "zarr", "h5py")
# zarr needs a minute to prepare 10^5 files.
MANY = ("dosna", "bare files", "h5py")


def reading(
    folder: Path, data: Array, chunks: Index, aims: dict[str, float], **options: Any
) -> Iterator[Case]:
    out = np.empty_like(data)
    flat = options.pop("flat", False)
    with in_files(folder, data, chunks, **options) as peers:
        work = {n: partial(p.read, ..., out) for n, p in peers.items()}
        count = peers["dosna"].array.total_chunks
        yield Case(f"{count} chunks", count, "chunk", work, aims, flat=flat)


def writing(
    folder: Path, data: Array, chunks: Index, aims: dict[str, float], **options: Any
) -> Iterator[Case]:
    flat = options.pop("flat", False)
    with in_files(folder, data, chunks, writable=True, **options) as peers:
        work = {n: partial(p.write, data) for n, p in peers.items()}
        count = peers["dosna"].array.total_chunks
        yield Case(f"{count} chunks", count, "chunk", work, aims, flat=flat)


def small(
    setting: Setting, cases: Callable[..., Iterator[Case]], aims: Any, most: int, **options: Any
) -> Iterator[Case]:
    for count in setting.counts:
        if count > most:
            return
        names = ALL if count <= 1000 else MANY
        with setting.fresh() as folder:
            yield from cases(folder, tiles(count), SMALL, aims, names=names, flat=True, **options)


@row("hdf5-read-4k", "hdf5: read all 4 KiB chunks into an array")
def read_small(setting: Setting) -> Iterator[Case]:
    aims = {"bare files": 1.25, "TensorStore": 0.9, "zarr": 0.1, "h5py": 1.8}
    return small(setting, reading, aims, 100_000)


@row("hdf5-write-4k", "hdf5: overwrite all 4 KiB chunks; replaced by rename, h5py in place")
def write_small(setting: Setting) -> Iterator[Case]:
    # Ten times as many chunks would take a minute for each round.
    return small(setting, writing, {"TensorStore": 1.8}, 10_000)


@row("hdf5-write-4k-unordered", "hdf5: the same with ordered=False, dosna's replaced by exchange")
def write_small_unordered(setting: Setting) -> Iterator[Case]:
    return small(setting, writing, {"TensorStore": 0.3}, 10_000, ordered=False)


def add_large(size: str, threads: int) -> None:
    where = f"{threads} core{'s' * (threads > 1)}"
    suffix = "" if threads == 1 else f"-{threads}-threads"
    names = ALL if threads == 1 else ("dosna", "TensorStore", "zarr", "h5py")
    most = 1.0 if threads == 1 else 1.1

    def data(setting: Setting) -> Array:
        return random((128 if setting.quick else 256, 256, 256))

    @row(f"hdf5-read-{size}{suffix}", f"hdf5: read all chunks of {size}, {where}", threads)
    def read(setting: Setting) -> Iterator[Case]:
        aims = dict.fromkeys(names, most) | {"bare files": 1.15}
        with setting.fresh() as folder:
            yield from reading(
                folder, data(setting), LARGE[size], aims, names=names, threads=threads
            )

    @row(
        f"hdf5-write-{size}{suffix}",
        f"hdf5: overwrite all chunks of {size}, {where}; replaced by rename, h5py in place",
        threads,
    )
    def write(setting: Setting) -> Iterator[Case]:
        aims = {"TensorStore": 1.8} | ({"bare files": 1.15} if threads == 1 else {})
        with setting.fresh() as folder:
            yield from writing(
                folder, data(setting), LARGE[size], aims, names=names, threads=threads
            )

    @row(
        f"hdf5-write-{size}{suffix}-unordered",
        f"hdf5: overwrite all chunks of {size}, {where}, dosna's with ordered=False, by exchange",
        threads,
    )
    def write_unordered(setting: Setting) -> Iterator[Case]:
        options = {"names": names, "threads": threads, "ordered": False}
        with setting.fresh() as folder:
            yield from writing(folder, data(setting), LARGE[size], {"TensorStore": 0.5}, **options)


for _threads in (1, 2):
    for _size in LARGE:
        add_large(_size, _threads)


@row("hdf5-box", "hdf5: read and write 100 boxes of 16 x 16 x 16 inside 1 MiB chunks")
def boxes(setting: Setting) -> Iterator[Case]:
    data = random((128, 128, 128))
    corners = (np.random.default_rng(1).integers(0, 2, (100, 3)) * 64 + 7).tolist()
    keys = [tuple(slice(c, c + 16) for c in corner) for corner in corners]
    block = random((16, 16, 16))

    def read(array: Any) -> None:
        for key in keys:
            np.asarray(array[key])

    def write(array: Any) -> None:
        for key in keys:
            array[key] = block

    names = ("dosna", "TensorStore", "zarr", "h5py")
    with (
        setting.fresh() as folder,
        in_files(folder, data, LARGE["1m"], names=names, writable=True) as peers,
    ):
        writes = {name: partial(write, peer.array) for name, peer in peers.items()}
        yield Case("write", 100, "box", writes, {"TensorStore": 1.8})
        reads = {name: partial(read, peer.array) for name, peer in peers.items()}
        yield Case("read", 100, "box", reads, {"TensorStore": 1, "zarr": 1})


@row("hdf5-planes", "hdf5: read a plane of a volume of 256 x 256 x 256 in 1 MiB chunks")
def read_planes(setting: Setting) -> Iterator[Case]:
    data = random((256, 256, 256))
    names = ("dosna", "TensorStore", "zarr", "h5py")
    with setting.fresh() as folder, in_files(folder, data, LARGE["1m"], names=names) as peers:
        yield from planes(peers, data)


def filtered(
    setting: Setting, aims: dict[Any, dict[str, float]], names: tuple[str, ...], **options: Any
) -> Iterator[Case]:
    for cases, wanted in aims.items():
        with setting.fresh() as folder:
            data = compressible(setting)
            for case in cases(folder, data, LARGE["1m"], wanted, names=names, **options):
                yield Case(cases.__name__, case.units, case.unit, case.work, case.aims)


@row("hdf5-gzip", "hdf5: 1 MiB chunks, gzip of level 4 on all sides")
def gzip(setting: Setting) -> Iterator[Case]:
    aims = {reading: {"h5py": 0.55, "TensorStore": 0.8}, writing: {"h5py": 0.35}}
    return filtered(setting, aims, ("dosna", "TensorStore", "zarr", "h5py"), gzip=True)


@row("hdf5-checksum", "hdf5: 1 MiB chunks, Fletcher-32 (dosna, h5py) or CRC-32C (the others)")
def checksum(setting: Setting) -> Iterator[Case]:
    aims = {reading: {"h5py": 1.2}, writing: {"h5py": 1.2}}
    return filtered(setting, aims, ALL, checksum=True)
