"""Rows of the ram backend, beside other libraries' memory stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import h5py
import numpy as np
from peers import in_memory
from rows import Setting, random, row, tiles
from timing import Case

from dosna.core.plan import every_chunk

SMALL, CUBE = (32, 32), (64, 64, 64)
IN_PLACE = 64 << 10


def names(count: int) -> tuple[str, ...]:
    # zarr takes seconds for 10^5 chunks, and there would be few rounds of 10^4.
    return ("dosna", "TensorStore", "zarr")[: 3 if count <= 1000 else 2]


def bare_loop(
    data: Any, chunk_size: tuple[int, ...]
) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    """Return a reader and a writer of a dict of arrays, by prepared indices: Python's own cost."""
    places = [(task.idx, task.out) for task in every_chunk(data.shape, chunk_size)]
    chunks = {idx: data[place].copy() for idx, place in places}

    def read(out: Any) -> None:
        for idx, place in places:
            out[place] = chunks[idx]

    def write(values: Any) -> None:
        for idx, place in places:
            if chunks[idx].nbytes < IN_PLACE:
                chunks[idx] = values[place].copy()
            else:
                chunks[idx][...] = values[place]

    return read, write


@row("ram-read-4k", "ram: read all 4 KiB chunks into an array")
def read_small(setting: Setting) -> Iterator[Case]:
    for count in setting.counts:
        data = tiles(count)
        out = np.empty_like(data)
        with in_memory(data, SMALL, names=names(count)) as peers:
            work: dict[str, Any] = {n: partial(p.read, ..., out) for n, p in peers.items()}
            work["bare loop"] = partial(bare_loop(data, SMALL)[0], out)
            work["memcpy"] = partial(np.copyto, out, data)
            chunks = peers["dosna"].array.total_chunks
            yield Case(
                f"{chunks} chunks", chunks, "chunk", work,
                {"TensorStore": 0.35, "zarr": 0.05}, limit=0.6, flat=True,
            )  # fmt: skip


@row("ram-write-4k", "ram: overwrite all 4 KiB chunks")
def write_small(setting: Setting) -> Iterator[Case]:
    for count in setting.counts:
        data = tiles(count)
        with in_memory(data, SMALL, names=names(count)) as peers:
            work: dict[str, Any] = {n: partial(p.write, data) for n, p in peers.items()}
            work["bare loop"] = partial(bare_loop(data, SMALL)[1], data)
            chunks = peers["dosna"].array.total_chunks
            yield Case(
                f"{chunks} chunks", chunks, "chunk", work,
                {"TensorStore": 0.35, "zarr": 0.05}, limit=1.2, flat=True,
            )  # fmt: skip


@row("ram-points", "ram: read 1000 single elements, one index each")
def read_points(setting: Setting) -> Iterator[Case]:
    data = random((64, 64, 64))
    places = [tuple(p) for p in np.random.default_rng(1).integers(0, 64, (1000, 3)).tolist()]

    def read(array: Any) -> None:
        for place in places:
            array[place]

    def read_tensorstore(peer: Any) -> None:
        for place in places:
            peer.point(place)

    with setting.fresh() as folder, in_memory(data, (16, 16, 16)) as peers:
        with h5py.File(folder / "one.h5", "w") as file:
            file.create_dataset("data", data=data, chunks=(16, 16, 16))
        with h5py.File(folder / "one.h5", "r") as file:
            work: dict[str, Any] = {
                "dosna": partial(read, peers["dosna"].array),
                "TensorStore": partial(read_tensorstore, peers["TensorStore"]),
                "h5py": partial(read, file["data"]),
                "NumPy": partial(read, data),
            }
            yield Case(
                "1000 points", 1000, "point", work,
                {"TensorStore": 0.1, "h5py": 0.5, "NumPy": 6},
            )  # fmt: skip


def cubes(setting: Setting) -> Any:
    side = 256 if setting.quick else 384
    return random((side, side, 256))


@row("ram-read-1m", "ram: read all 1 MiB chunks into an array")
def read_cubes(setting: Setting) -> Iterator[Case]:
    data = cubes(setting)
    out = np.empty_like(data)
    with in_memory(data, CUBE) as peers:
        work: dict[str, Any] = {n: partial(p.read, ..., out) for n, p in peers.items()}
        work["bare loop"] = partial(bare_loop(data, CUBE)[0], out)
        work["memcpy"] = partial(np.copyto, out, data)
        chunks = peers["dosna"].array.total_chunks
        yield Case(
            f"{chunks} chunks", chunks, "chunk", work,
            {"TensorStore": 1, "zarr": 1, "memcpy": 1.4},
        )  # fmt: skip


@row("ram-load-1m", "ram: load all 1 MiB chunks from an array, over older ones")
def load_cubes(setting: Setting) -> Iterator[Case]:
    data = cubes(setting)
    out = np.empty_like(data)
    with in_memory(data, CUBE) as peers:
        work: dict[str, Any] = {n: partial(p.write, data) for n, p in peers.items()}
        work["dosna"] = partial(peers["dosna"].load, data)
        work["bare loop"] = partial(bare_loop(data, CUBE)[1], data)
        work["memcpy"] = partial(np.copyto, out, data)
        chunks = peers["dosna"].array.total_chunks
        yield Case(f"{chunks} chunks", chunks, "chunk", work, {"TensorStore": 1.1, "memcpy": 1.7})


@row("ram-box", "ram: read and write 1000 boxes of 16 x 16 x 16 inside 1 MiB chunks")
def boxes(setting: Setting) -> Iterator[Case]:
    data = random((128, 128, 128))
    corners = (np.random.default_rng(1).integers(0, 2, (1000, 3)) * 64 + 7).tolist()
    keys = [tuple(slice(c, c + 16) for c in corner) for corner in corners]
    block = random((16, 16, 16))

    def read(array: Any) -> None:
        for key in keys:
            np.asarray(array[key])

    def write(array: Any) -> None:
        for key in keys:
            array[key] = block

    def copy() -> None:
        for key in keys:
            data[key].copy()

    names = ("dosna", "TensorStore")
    with in_memory(data, CUBE, names=names) as peers:
        arrays = {name: peer.array for name, peer in peers.items()}
        reads: dict[str, Any] = {n: partial(read, a) for n, a in arrays.items()}
        yield Case("read", 1000, "box", {**reads, "NumPy": copy}, {"TensorStore": 1})
        writes: dict[str, Any] = {n: partial(write, a) for n, a in arrays.items()}
        writes["NumPy"] = partial(write, data)
        yield Case("write", 1000, "box", writes, {"TensorStore": 1})


@row("ram-random-points", "ram: a million random points at once, over 10^4 chunks")
def random_points(setting: Setting) -> Iterator[Case]:
    count = 100_000 if setting.quick else 1_000_000
    data = tiles(10_000)
    rng = np.random.default_rng(1)
    key = tuple(rng.integers(0, n, count) for n in data.shape)
    number = key[0] // 32 * (data.shape[1] // 32) + key[1] // 32

    def grouped() -> None:
        # The time of NumPy when the points are sorted by chunk first.
        order = np.argsort(number, kind="stable")
        result = np.empty(count, data.dtype)
        result[order] = data[key[0][order], key[1][order]]

    with in_memory(data, SMALL, names=("dosna",)) as peers:
        array = peers["dosna"].array
        work = {
            "dosna": lambda: array[key],
            "NumPy, grouped": grouped,
            "NumPy": lambda: data[key],
        }
        yield Case(f"{count} points", count, "point", work, {"NumPy, grouped": 3})
