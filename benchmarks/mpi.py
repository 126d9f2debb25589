"""Compare MPI ranks with one process and with threads, on the same work in one run.

    python benchmarks/mpi.py [--quick] [--folder DIR]

The program starts itself on four ranks, which form groups of 1, 2 and 4. The groups, the engine
cpu and the engine joblib take turns; ranks without a turn sleep. Seconds are minima. Efficiency is
the speed-up over cpu, divided by the number of processes or, if there are fewer, of processors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dosna as dn

RANKS = (1, 2, 4)
AIM = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data, within a minute")
    parser.add_argument("--folder", type=Path, help="where files are written (a temporary one)")
    parser.add_argument("--on-ranks", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_ranks:
        measure(options)
        return 0
    mpiexec = Path(sys.executable).parent / "mpiexec"
    with tempfile.TemporaryDirectory(prefix="dosna-", dir=options.folder) as folder:
        command = [sys.executable, "-m", "mpi4py", __file__, "--on-ranks", "--folder", folder]
        return subprocess.call(
            [mpiexec if mpiexec.exists() else "mpiexec", "-n", str(max(RANKS)), *command]
            + ["--quick"] * options.quick
        )


def measure(options: argparse.Namespace) -> None:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    groups = {n: world.Split(0 if world.rank < n else MPI.UNDEFINED) for n in RANKS}
    root = world.rank == 0
    processors = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        contestants: dict[str, tuple[int, Any]] = {}

        def enter(label: str, workers: int, **choice: Any) -> None:
            path = options.folder / label.replace(" ", "-")
            path.mkdir(exist_ok=True)
            con = dn.Connection(str(path), backend="hdf5", **choice)
            contestants[label] = (workers, stack.enter_context(con))

        if root:
            enter("cpu", 1, engine="cpu")
            threads = {"njobs": 2, "jlbackend": "threading"}
            enter("joblib 2 threads", 2, engine="joblib", engine_kw=threads)
        for n, comm in groups.items():
            if comm != MPI.COMM_NULL:
                enter(f"mpi {n}", n, engine="mpi", comm=comm)
        labels = world.bcast(list(contestants))
        if root:
            print(f"{processors} processors; s: seconds, e: efficiency", flush=True)
        for name, what, work in works(options.quick):
            best = dict.fromkeys(labels, float("inf"))
            rounds = 2 if options.quick else 7
            for number in range(rounds + 1):  # the first is not counted
                turn = number % len(labels)
                for label in labels[turn:] + labels[:turn]:
                    seconds = None
                    if label in contestants:
                        seconds = work(contestants[label][1])
                    wait_asleep(world)
                    if root and number and seconds is not None:
                        best[label] = min(best[label], seconds)
            if root:
                report(name, what, best, contestants, processors)
        for n, comm in groups.items():
            if comm != MPI.COMM_NULL:
                cost = empty_collective(contestants[f"mpi {n}"][1])
                if root:
                    print(f"collective on an empty dataset, {n} ranks: {cost:.0f} µs", flush=True)
            wait_asleep(world)


def works(quick: bool) -> Iterator[tuple[str, str, Callable[[Any], float]]]:
    """Yield names, descriptions, and functions that return the seconds on a connection."""
    from scipy.ndimage import gaussian_filter

    edge = 64 if quick else 192
    volume = np.random.default_rng(0).random((edge, edge, edge), np.float32)
    chunk = edge // 4
    what = f"{volume.nbytes / 2**20:.0f} MiB in 64 chunks"
    smooth = partial(gaussian_filter, sigma=2)

    def timed(con: Any, act: Callable[[Any], object]) -> float:
        ds = con.create_dataset("in", volume.shape, "f4", chunk_size=(chunk,) * 3)
        if act is not load:
            ds.load(volume)
        begin = time.perf_counter()
        act(ds)
        seconds = time.perf_counter() - begin
        for name in ("in", "out"):
            if act is not load or name == "in":
                con.del_dataset(name)
        return seconds

    def load(ds: Any) -> None:
        ds.load(volume)

    yield "load", what, partial(timed, act=load)
    yield "map", f"{what}, compute-bound", partial(timed, act=lambda d: d.map(busy, "out", "f4"))
    yield (
        *("convolution", f"{what}, Gaussian of sigma 2 with halo 8"),
        partial(timed, act=lambda d: d.map(smooth, "out", "f4", halo=8)),
    )


def busy(block: Any) -> Any:
    for _ in range(200):
        block = np.sin(block)
    return block


def report(name: str, what: str, best: Any, contestants: Any, processors: int) -> None:
    print(f"\n{name}: {what}")
    for label, seconds in best.items():
        workers = min(contestants[label][0], processors)
        efficiency = best["cpu"] / seconds / workers
        aim = ""
        if (name, label) == ("map", "mpi 2"):
            aim = f" (aim {AIM}{'!' * (efficiency < AIM)})"
        print(f"  {label:>16}: {seconds:.4f} s, {efficiency:.2f} e{aim}", flush=True)


def empty_collective(con: Any) -> float:
    """Return the microseconds of a call that has nothing to do."""
    ds = con.create_dataset("empty", (0,), "f4")
    best = float("inf")
    for _ in range(10):
        begin = time.perf_counter()
        for _ in range(20):
            ds.apply(abs)
        best = min(best, (time.perf_counter() - begin) / 20)
    con.del_dataset("empty")
    return best * 1e6


def wait_asleep(comm: Any) -> None:
    """Wait for all ranks without using a processor that others need."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


if __name__ == "__main__":
    raise SystemExit(main())
