"""Rows of work on all chunks: map, apply and halos, under each engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from peers import Dosna
from rows import Array, Setting, random, row
from scipy.ndimage import gaussian_filter
from timing import Case

CUBE = (64, 64, 64)
THREADS = {"engine": "joblib", "engine_kw": {"njobs": 2, "jlbackend": "threading"}}
PROCESSES = {"engine": "joblib", "engine_kw": {"njobs": 2, "jlbackend": "loky"}}
ENGINES: dict[str, dict[str, Any]] = {
    "dosna": THREADS,
    "cpu": {"engine": "cpu"},
    "loky": PROCESSES,
}

# The halo is the filter's reach on each side: SIGMA * 4, where scipy cuts it off.
SIGMA, HALO = 2, 8
smooth = partial(gaussian_filter, sigma=SIGMA)


def volume(setting: Setting) -> Array:
    return random((128, 128, 128) if setting.quick else (256, 256, 128))


def under_engines(setting: Setting, func: Any) -> Iterator[Case]:
    data = volume(setting)
    out = np.empty_like(data)
    names = map("out{}".format, count())
    with setting.fresh() as folder, ExitStack() as stack:
        arrays = {}
        for name, engine in ENGINES.items():
            (folder / name).mkdir()
            made = Dosna(stack, str(folder / name), data, CUBE, backend="hdf5", **engine)
            arrays[name] = made.array

        def map_all(array: Any) -> None:
            array.map(func, next(names)).delete()

        def whole() -> None:
            out[...] = func(data)

        chunks = arrays["dosna"].total_chunks
        maps: dict[str, Any] = {name: partial(map_all, a) for name, a in arrays.items()}
        yield Case("map", chunks, "chunk", {**maps, "in memory": whole})
        applies: dict[str, Any] = {name: partial(a.apply, func) for name, a in arrays.items()}
        yield Case("apply", chunks, "chunk", {**applies, "in memory": whole})


@row("map-sqrt", "hdf5, 1 MiB chunks: np.sqrt; dosna is joblib's 2 threads", 2)
def sqrt(setting: Setting) -> Iterator[Case]:
    return under_engines(setting, np.sqrt)


@row("map-filter", "hdf5, 1 MiB chunks: a Gaussian filter; dosna is joblib's 2 threads", 2)
def filters(setting: Setting) -> Iterator[Case]:
    return under_engines(setting, smooth)


@row("halo", "ram, 1 MiB chunks: a Gaussian filter with its halo; dosna is joblib's 2 threads", 2)
def halo(setting: Setting) -> Iterator[Case]:
    data = volume(setting)

    def map_all(array: Any) -> None:
        array.map(smooth, "out", halo=HALO).delete()

    with ExitStack() as stack:
        threads = Dosna(stack, "threads", data, CUBE, backend="ram", **THREADS).array
        one = Dosna(stack, "one", data, CUBE, backend="ram", engine="cpu").array
        smoothed = threads.map(smooth, "out", halo=HALO)
        if not np.allclose(smoothed[...], smooth(data), atol=1e-6):
            raise AssertionError("the halo gives another result than the whole array")
        smoothed.delete()
        work: dict[str, Any] = {
            "dosna": partial(map_all, threads),
            "cpu": partial(map_all, one),
            "scipy, whole": lambda: smooth(data),
        }
        yield Case(f"{one.total_chunks} chunks", one.total_chunks, "chunk", work)
