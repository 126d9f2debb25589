"""Compare the engine dask with one thread, with dask.array and with rechunker's way.

Run ``python benchmarks/dask_engine.py [--quick] [--only PART] [--folder PATH]
[--rechunker PYTHON]``; it needs ``pip install -e '.[all,test]'``. rechunker 0.5.4 works with zarr
2 only, and PYTHON is that of an environment of its own, with ``rechunker 'zarr<3'
'numcodecs<0.16' 'dask[array,distributed]'``; without it, it is left out. A cluster on this machine
has two workers of one thread each, which both dosna and
dask.array use. Everybody reads and writes Zarr in the same folder, uncompressed, in chunks of
1 MiB (float32), through the page cache. Rows:

- map of a compute-bound function on two workers, beside the engine cpu: the efficiency is half of
  cpu's time divided by dask's; 0.9 is wanted (a ratio of 0.56).
- map of np.sqrt, map of a Gaussian with a halo, and a copy from planes to cubes, beside
  ``da.from_zarr`` → ``map_blocks``, ``map_overlap``, ``rechunk`` → ``to_zarr``; 0.7 is wanted. The
  peak memory of all processes together beside theirs; 0.5 is wanted. The copy has a memory limit
  for each worker, and rechunker, whose two workers are its own, has the same.
- what scheduling costs for each of very many chunks of 64 KiB: 50 µs are wanted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dask
import dask.array as da
import numpy as np
import psutil
import zarr
from distributed import Client, LocalCluster
from timing import minima

import dosna as dn
from dosna.core.plan import every_chunk
from dosna.engines import registry
from dosna.io.allocator import MMAP_THRESHOLD, TRIM_THRESHOLD


def compute(block: Any) -> Any:
    """Work for some 20 ms on 1 MiB."""
    for _ in range(150):
        block = np.arctan(block) + 1
    return block


def gauss(block: Any) -> Any:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(block, 1.0, truncate=2.0)


class Peak:
    """The most memory that all processes of a tree had together, by their own pages."""

    def __init__(self) -> None:
        self._processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        self._stop = threading.Event()
        self.nbytes = 0

    def _now(self) -> int:
        total = 0
        for process in self._processes:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue
        return total

    def __enter__(self) -> Peak:
        self._before = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.nbytes = max(self.nbytes, self._now() - self._before)

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


LIMIT = 256 << 20

_RECHUNKER = """
import shutil, sys
import dask, rechunker, zarr
from distributed import Client, LocalCluster

if __name__ == "__main__":
    folder, side, size, limit = sys.argv[1], *map(int, sys.argv[2:])
    source = zarr.open(folder + "/source.zarr2", mode="r")
    out, between = folder + "/theirs", folder + "/between"
    options = dict(n_workers=2, threads_per_worker=1, memory_limit=0, host="127.0.0.1")
    with LocalCluster(**options, dashboard_address=":0", silence_logs=50) as local, Client(local):
        print("ready", flush=True)
        for line in sys.stdin:
            plain = dict(compressor=None)
            rechunker.rechunk(
                source, (size,) * 3, limit, out, plain, between, plain
            ).execute()
            shutil.rmtree(between, ignore_errors=True)
            print("done", flush=True)
"""


@contextmanager
def rechunker(
    python: str | None, folder: str, side: int, cubes: tuple[int, ...]
) -> Iterator[Callable[[], object] | None]:
    """Start rechunker with two workers, and give what makes it work once; None without it."""
    if python is None:
        print("no rechunker: give --rechunker PYTHON to compare with it", flush=True)
        yield None
        return
    script = Path(folder) / "rechunker_row.py"
    script.write_text(_RECHUNKER)
    planes = np.random.default_rng(0).random((side, side, side), dtype="f4")
    source = zarr.create_array(
        os.path.join(folder, "source.zarr2"),
        shape=planes.shape,
        chunks=(1, side, side),
        dtype="f4",
        zarr_format=2,
        compressors=None,
    )
    source[...] = planes
    del planes
    command = [python, "-W", "ignore", str(script), folder, *map(str, (side, cubes[0], LIMIT))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        given, told = process.stdin, process.stdout

        def work() -> None:
            given.write("go\n")
            given.flush()
            if told.readline() != "done\n":
                raise SystemExit("rechunker has failed")

        if told.readline() != "ready\n":
            raise SystemExit(f"{python} has no rechunker: see the head of this file")
        yield work
        given.close()


@contextmanager
def cluster() -> Iterator[Client]:
    # As docs/dask.md advises: Dask's own value makes workers map each temporary array anew.
    environment = "distributed.nanny.pre-spawn-environ"
    malloc = {"MALLOC_TRIM_THRESHOLD_": TRIM_THRESHOLD, "MALLOC_MMAP_THRESHOLD_": MMAP_THRESHOLD}
    with (
        dask.config.set({environment: {**dask.config.get(environment), **malloc}}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=0,
            host="127.0.0.1",
            dashboard_address=":0",
            silence_logs=50,
        ) as local,
        Client(local, set_as_default=True) as client,
    ):
        yield client


only = {"part": ""}


def row(
    label: str,
    work: dict[str, Callable[[], object]],
    clean: Callable[[], object],
    aim: float,
    memory_aim: float | None = None,
) -> None:
    if only["part"] not in label:
        return
    after = dict.fromkeys(work, clean)
    best = minima(work, 0.0, after, least=3)
    ours, *others = work
    for other in others:
        ratio = best[ours] / best[other]
        mark = " !" if ratio > aim else ""
        print(f"{label}: {ours} {best[ours]:.2f} s; {other} {best[other]:.2f} s, {ratio:.2f} x "
              f"(aim {aim}){mark}", flush=True)  # fmt: skip
        if memory_aim is not None:
            peaks = {}
            for name in (ours, other):
                with Peak() as peak:
                    work[name]()
                clean()
                peaks[name] = peak.nbytes / 2**20
            share = peaks[ours] / max(1.0, peaks[other])
            mark = " !" if share > memory_aim else ""
            print(f"    memory: {ours} {peaks[ours]:.0f} MiB; {other} {peaks[other]:.0f} MiB, "
                  f"{share:.2f} x (aim {memory_aim}){mark}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="125 chunks instead of 1,000")
    parser.add_argument("--only", default="", help="a part of the name of the rows")
    parser.add_argument("--rechunker", metavar="PYTHON", help="a Python that has rechunker")
    parser.add_argument("--folder", help="where files go; a temporary folder by default")
    options = parser.parse_args()
    only["part"] = options.only
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    side = 320 if options.quick else 640
    folder = tempfile.mkdtemp(prefix="dosna-bench-", dir=options.folder)
    try:
        with cluster() as client:
            rows(client, folder, side, options.rechunker)
            if options.only in "scheduling":
                scheduling(client, 10_000 if options.quick else 100_000)
    finally:
        shutil.rmtree(folder)


def rows(client: Client, folder: str, side: int, python: str | None) -> None:
    cubes, planes = (64, 64, 64), (1, side, side)
    volume = np.random.default_rng(0).random((side, side, side), dtype="f4")
    by_dask = dn.Connection(folder, backend="file", engine="dask", engine_kw={"client": client})
    by_cpu = dn.Connection(folder, backend="file", engine="cpu")
    # Its own cluster sets what Dask's lacks for work of many temporary arrays; see docs/dask.md.
    own = {"n_workers": 2, "threads_per_worker": 1, "timeout": 120}
    by_own = dn.Connection(folder, backend="file", engine="dask", engine_kw=own)
    with by_dask as con, by_cpu as one, by_own as ours:
        for name, chunk_size in (("cubes", cubes), ("planes", planes)):
            one.create_dataset(name, data=volume, chunk_size=chunk_size, compression=None)
        del volume
        ds, alone = con["cubes"], one["cubes"]
        chunks = len(ds.written_chunks())
        source = da.from_zarr(os.path.join(folder, "cubes"))
        out = os.path.join(folder, "theirs")

        def clean() -> None:
            for name in ("out", "theirs"):
                if name in one:
                    one.del_dataset(name)
            shutil.rmtree(out, ignore_errors=True)

        def theirs(array: Any) -> None:
            array.to_zarr(out, zarr_format=3, compressors=None, compute=True)

        clean()
        row(
            f"map, compute-bound, {chunks} chunks",
            {
                "dask": lambda: ours["cubes"].map(compute, "out", dtype="f4"),
                "cpu": lambda: alone.map(compute, "out", dtype="f4"),
            },
            clean,
            0.56,
        )
        row(
            f"map np.sqrt, {chunks} chunks",
            {
                "dosna": lambda: ds.map(np.sqrt, "out", dtype="f4"),
                "dask.array": lambda: theirs(source.map_blocks(np.sqrt, dtype="f4")),
            },
            clean,
            0.7,
            0.5,
        )
        row(
            f"map Gaussian, halo 2, {chunks} chunks",
            {
                "dosna": lambda: ds.map(gauss, "out", dtype="f4", halo=2),
                "dask.array": lambda: theirs(
                    source.map_overlap(gauss, depth=2, boundary="reflect", dtype="f4")
                ),
            },
            clean,
            0.7,
            0.5,
        )
        planewise = da.from_zarr(os.path.join(folder, "planes"))

        def rechunked(method: str) -> None:
            with dask.config.set({"array.rechunk.method": method}):
                theirs(planewise.rechunk(cubes))

        copies: dict[str, Callable[[], object]] = {
            "dosna": lambda: con["planes"].copy(con, "out", chunk_size=cubes, memory_limit=LIMIT),
            "dask.array by tasks": lambda: rechunked("tasks"),
            "dask.array by P2P": lambda: rechunked("p2p"),
        }
        if only["part"] not in f"copy planes to cubes, {chunks} chunks":
            return
        with rechunker(python, folder, side, cubes) as rechunk:
            if rechunk is not None:
                copies["rechunker"] = rechunk
            row(f"copy planes to cubes, {chunks} chunks", copies, clean, 0.7, 0.5)


def scheduling(client: Client, chunks: int) -> None:
    runner = registry.get("dask").runner(client=client)
    tasks = every_chunk((chunks,), (1,))

    def work(some: Any) -> int:
        return sum(1 for _ in some)

    runner.spread(work, tasks)
    begin = time.perf_counter()
    counted = sum(runner.spread(work, tasks))
    each = (time.perf_counter() - begin) / chunks * 1e6
    assert counted == chunks
    print(f"scheduling {chunks} chunks: {each:.1f} µs a chunk (aim 50){' !' if each > 50 else ''}")


if __name__ == "__main__":
    main()
