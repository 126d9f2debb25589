"""Compare a level of a pyramid with dask.array.coarsen, with NumPy in memory, and with plain I/O.

Run ``python benchmarks/pyramid.py [--quick] [--folder F]``; it needs ``dosna[dask,test]``. All
of them make one level, of cells of 2 x 2 x 2, from an array in chunks of 64^3 without compression
and checksums. dosna and dask read Zarr and write Zarr; NumPy has the array in memory, and keeps
the result there; plain I/O is ``ds[...]`` of the array and one write of a level, and no mean. Dask
has as many threads as the engine joblib. They take turns; the shortest times count. Small arrays
show what dosna does once for a level: about ten files of metadata are synchronized to the disk.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dask
import dask.array as da
import numpy as np
from timing import minima

import dosna as dn

CHUNK = (64, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    side, seconds = (256, 1.0) if options.quick else (512, 30.0)
    for dtype in ("u1", "f4"):
        for threads in (1, 2):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                row(Path(folder), np.dtype(dtype), side, threads, seconds)


def row(folder: Path, dtype: np.dtype[Any], side: int, threads: int, seconds: float) -> None:
    shape = (side,) * 3
    data = np.random.default_rng(0).integers(0, 200, shape, "u1").astype(dtype)
    half = np.empty([n // 2 for n in shape], dtype)
    engine: dict[str, Any] = {"engine": "cpu"}
    if threads > 1:
        engine = {"engine": "joblib", "engine_kw": {"njobs": threads}}
    with dn.Connection(str(folder), backend="file", **engine) as con:
        stored = {"chunk_size": CHUNK, "checksum": False}
        ds = con.create_dataset("data", data=data, **stored)
        plain = con.create_dataset("plain", half.shape, dtype, **stored)
        into = np.empty_like(data)

        def dosna(method: str = "mean") -> None:
            ds.pyramid(1, method=method, overwrite=True)

        def coarsen() -> None:
            source = da.from_zarr(str(folder / "data"))
            cells = da.coarsen(np.mean, source, dict.fromkeys(range(3), 2))
            target = folder / "dask"
            shutil.rmtree(target, ignore_errors=True)
            with dask.config.set(scheduler="threads", num_workers=threads):
                cells.astype(dtype).rechunk(CHUNK).to_zarr(str(target), zarr_format=3)

        def numpy() -> None:
            split = data.reshape([n for whole in half.shape for n in (whole, 2)])
            half[...] = split.mean(axis=(1, 3, 5))

        def io() -> None:
            into[...] = ds[...]
            plain[...] = half

        work: dict[str, Callable[[], object]] = {
            "dosna": dosna,
            "dosna, mode": partial(dosna, "mode"),
            "dask.array.coarsen": coarsen,
            "NumPy in memory": numpy,
            "plain I/O": io,
        }
        best = minima(work, seconds)
    times = ", ".join(f"{name} {1e3 * time:.0f} ms" for name, time in best.items())
    ratios = []
    for other, aim in (("dask.array.coarsen", 1.0), ("NumPy in memory", 1.0), ("plain I/O", None)):
        ratio = best["dosna"] / best[other]
        wanted = "" if aim is None else f" (aim {aim}){' !' * (ratio > aim)}"
        ratios.append(f"{ratio:.2f} x {other}{wanted}")
    what = f"pyramid {dtype} {side}^3, {threads} thread{'s' * (threads > 1)}"
    print(f"{what}: {times}; {'; '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
