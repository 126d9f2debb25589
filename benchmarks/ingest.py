"""Compare ingest of HDF5 files with copying their bytes, a loop over h5py, and dask.

Run ``python benchmarks/ingest.py [--quick] [--folder F]``; it needs what ``run_tests.sh
--install`` installs. Each contestant makes an uncompressed Zarr array without checksums from one
file, in turn, in rounds; the shortest times count. ``x`` is dosna's time divided by theirs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dask
import dask.array
import h5py
import numpy as np
import zarr
from timing import minima

import dosna as dn

Work = Callable[[], object]
COPY_BYTES = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    planes = 16 if options.quick else 128
    seconds = 0.1 if options.quick else 10.0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for layout in LAYOUTS:
            row(Path(folder), layout, planes, seconds)


LAYOUTS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "contiguous": ({}, (16, 256, 256)),
    "contiguous, planes": ({}, (1, 1024, 1024)),
    "chunked": ({"chunks": (1, 1024, 1024)}, (1, 1024, 1024)),
    "chunked, across": ({"chunks": (1, 1024, 1024)}, (16, 256, 256)),
    "gzip": ({"chunks": (1, 1024, 1024), "compression": "gzip"}, (1, 1024, 1024)),
    "gzip and shuffle": (
        {"chunks": (16, 256, 256), "compression": "gzip", "shuffle": True},
        (16, 256, 256),
    ),
}


def row(folder: Path, layout: str, planes: int, seconds: float) -> None:
    """Print the times for one layout of the file."""
    options, chunks = LAYOUTS[layout]
    shape = (planes, 1024, 1024)
    path = folder / "scan.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        made = file.create_dataset("data", shape, "u2", **options)
        for start in range(0, planes, 16):
            made[start : start + 16] = random.poisson(200, (16, *shape[1:]))
    (folder / "store").mkdir()

    def ingest(engine: str, jobs: int) -> Work:
        engine_kw = {"njobs": jobs} if engine == "joblib" else {}

        def work() -> None:
            store = str(folder / "store")
            with dn.Connection(store, backend="file", engine=engine, engine_kw=engine_kw) as con:
                con.ingest(str(path), chunk_size=chunks, checksum=False)

        return work

    def delete() -> None:
        with dn.Connection(str(folder / "store"), backend="file") as con:
            con.del_dataset("data")

    def copy() -> None:
        with open(path, "rb", 0) as source, open(folder / "copy", "wb", 0) as target:
            buffer = bytearray(COPY_BYTES)
            while count := source.readinto(buffer):
                target.write(memoryview(buffer)[:count])

    def make() -> Any:
        return zarr.create_array(
            folder / "peer.zarr", shape=shape, chunks=chunks, dtype="u2", compressors=None
        )

    def loop() -> None:
        with h5py.File(path) as file:
            source, target = file["data"], make()
            for box in boxes(shape, chunks):
                target[box] = source[box]

    def with_dask() -> None:
        with h5py.File(path) as file, dask.config.set(scheduler="threads", num_workers=2):
            dask.array.from_array(file["data"], chunks=chunks).to_zarr(make())

    times = minima(
        {
            "dosna": ingest("cpu", 1),
            "dosna, 2 threads": ingest("joblib", 2),
            "copy of bytes": copy,
            "h5py loop": loop,
            "dask, 2 threads": with_dask,
        },
        seconds,
        {
            "dosna": delete,
            "dosna, 2 threads": delete,
            "copy of bytes": lambda: os.unlink(folder / "copy"),
            "h5py loop": lambda: shutil.rmtree(folder / "peer.zarr"),
            "dask, 2 threads": lambda: shutil.rmtree(folder / "peer.zarr"),
        },
    )
    best = min(times["dosna"], times["dosna, 2 threads"])
    size = planes << 21
    print(f"{layout}, to chunks of {chunks}: {size / 1e6:.0f} MB", flush=True)
    for name, time in times.items():
        ratio = "" if name.startswith("dosna") else f", {best / time:.2f} x"
        print(f"    {name}: {size / time / 1e6:.0f} MB/s{ratio}", flush=True)
    print(
        f"    two threads: {times['dosna'] / times['dosna, 2 threads']:.2f} times one", flush=True
    )
    shutil.rmtree(folder / "store")


def boxes(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Return the boxes of the chunks of an array."""
    grid = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
    return [
        tuple(slice(s, s + c) for s, c in zip(at, chunks, strict=True))
        for at in np.ndindex(*map(len, grid))
        for at in [tuple(g[i] for g, i in zip(grid, at, strict=True))]
    ]


if __name__ == "__main__":
    main()
