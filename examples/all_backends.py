"""The same small job on every backend under every engine: its time, and the guarantees.

    python examples/all_backends.py [--side 128]

It loads a cube, filters it with a halo, sums it up and reads a slice. The results are equal.
The times are those of one run on this machine, and are not a benchmark.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

import dosna as dn


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--side", type=int, default=128, help="of the cube (default 128)")
    cube = volume(parser.parse_args(arguments).side)
    expected = uniform_filter(cube, 5)

    # s3 would need a server, and might find one that charges money.
    local = [backend for backend in dn.backends.AVAILABLE if backend != "s3"]
    pairs = [(backend, *engine) for backend in local for engine in engines()]
    results = []
    for number, (backend, engine, engine_kw) in enumerate(pairs):
        label = " ".join([engine, *map(str, engine_kw.values())])
        try:
            with connection(f"trial-{number}", backend, engine, engine_kw) as con:
                times, total, promised = job(con, cube, expected)
        except (dn.errors.ConfigurationError, dn.errors.MissingDependencyError) as error:
            print(f"{backend:8} {label:18} not possible: {error}")
            continue
        results.append(total)
        shown = "  ".join(f"{what} {seconds * 1000:5.0f} ms" for what, seconds in times.items())
        print(f"{backend:8} {label:18} {shown}")
        print(f"{'':8} {'':18} {describe(promised)}")
    same = len(set(results)) == 1
    print(f"{len(results)} results, {'all equal' if same else 'which DIFFER'}")
    return 0 if same else 1


def engines() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name in dn.engines.AVAILABLE:
        if name == "mpi":
            continue  # for programs under mpiexec
        if name == "joblib":
            found += [(name, {"jlbackend": kind}) for kind in ("threading", "loky")]
        else:
            found.append((name, {}))
    return found


@contextmanager
def connection(name: str, backend: str, engine: str, engine_kw: Any) -> Iterator[Any]:
    options: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "directory" in signature(dn.backends.registry.get(backend).connection).parameters:
            Path(folder, name).mkdir()
            options["directory"] = folder
        made = dn.Connection(name, backend=backend, engine=engine, engine_kw=engine_kw, **options)
        with made as con:
            yield con


def volume(side: int) -> Any:
    return np.random.default_rng(0).random((side, side, side), dtype="f4")


def job(con: Any, cube: Any, expected: Any) -> tuple[dict[str, float], float, Any]:
    begin = time.perf_counter()
    ds = con.create_dataset("cube", data=cube, chunk_size=[max(1, n // 3) for n in cube.shape])
    loaded = time.perf_counter()
    smooth = ds.map(partial(uniform_filter, size=5), "smooth", halo=2)
    mapped = time.perf_counter()
    total = float(smooth.sum())
    summed = time.perf_counter()
    np.testing.assert_allclose(smooth[:, 5, ::-1], expected[:, 5, ::-1], rtol=1e-5)
    times = {"load": loaded - begin, "map": mapped - loaded, "sum": summed - mapped}
    times["slice"] = time.perf_counter() - summed
    return times, total, ds.guarantees


def describe(promised: Any) -> str:
    words = [f"partial writes safe among {promised.partial_writes}"]
    words += ["chunks old or new"] * promised.atomic_chunks
    words += ["durable"] * promised.durable + ["checksum"] * promised.checksum
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main())
