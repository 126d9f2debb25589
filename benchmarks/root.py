"""Compare ingest of a NanoAOD-like ROOT file with uproot reading it plus writing the bytes.

Run ``python benchmarks/root.py [--quick] [--folder F]``; it needs what ``run_tests.sh --install``
installs. dosna makes Zarr arrays without checksums. uproot reads all branches, by entry ranges of
the same size, and every buffer of its arrays is appended to a file. dosna waits until its data are
on the disk, before it marks them as complete; uproot's loop does that in one row and does not in
the other. A bare loop knows where the baskets are, decompresses them, turns the bytes of their
numbers around and appends them, and the offsets of lists, to files for each branch, with and
without waiting for the disk: no reader is much faster. They take turns; the shortest times count,
without the removal of what was written. With ``--processor-time``, that of all threads counts in
their place, which other programs disturb less.
The additional memory of a process that ingests a file, and one of ten times the size, is printed
at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import awkward as ak
import cramjam
import numpy as np
import uproot
from timing import minima

import dosna as dn
from dosna.io.files import sync_file_system

Work = Callable[[], object]

CLUSTER = 50_000
COLLECTIONS = {"Muon": 1.2, "Electron": 0.8, "Jet": 5.5, "Tau": 0.9}
FIELDS = ("pt", "eta", "phi", "mass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    parser.add_argument("--processor-time", action="store_true", help="in place of elapsed time")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    clusters = 1 if options.quick else 8
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for compression in ("ZLIB", "LZ4"):
            path = folder / f"{compression}.root"
            write(path, clusters, getattr(uproot, compression)(1))
            clock = time.process_time if options.processor_time else time.perf_counter
            compare(folder, path, 0.1 if options.quick else 20.0, clock)
        for factor in (1, 10):
            path = folder / f"{factor}.root"
            write(path, clusters * factor, uproot.LZ4(1))
            memory(path)
    return None


def write(path: Path, clusters: int, compression: object) -> None:
    """Write a file of `clusters` clusters."""
    random = np.random.default_rng(0)
    with uproot.recreate(path, compression=compression) as file:
        types = {"run": "u4", "event": "u8", "MET_pt": "f4", "HLT_IsoMu24": "bool"}
        lists = {
            name: ak.types.from_datashape(
                "var * {" + ", ".join(f"{field}: float32" for field in FIELDS) + "}",
                highlevel=False,
            )
            for name in COLLECTIONS
        }
        tree = file.mktree("Events", {**types, **lists})
        for number in range(clusters):
            flat = {
                "run": np.full(CLUSTER, 1, "u4"),
                "event": np.arange(CLUSTER, dtype="u8") + number * CLUSTER,
                "MET_pt": random.exponential(30, CLUSTER).astype("f4"),
                "HLT_IsoMu24": random.random(CLUSTER) < 0.2,
            }
            for name, mean in COLLECTIONS.items():
                counts = random.poisson(mean, CLUSTER)
                total = int(counts.sum())
                values = {f: random.normal(0, 20, total).astype("f4") for f in FIELDS}
                # Like measured values: a few significant bits, which compress.
                rounded = {f: np.round(v, 1) for f, v in values.items()}
                flat[name] = ak.unflatten(ak.zip(rounded), counts)
            tree.extend(flat)


Places = dict[str, tuple[int, list[tuple[int, int, int, int]]]]
"""For each branch the bytes of a number, and of its baskets the place, the bytes, those of the
header, and those of the rest unpacked."""


def baskets(path: Path) -> Places:
    """Look where the baskets of a file are."""

    def size_of(kind: Any) -> int:
        return int(getattr(kind, "content", kind).from_dtype.itemsize)

    with uproot.open({path: None}) as file:
        return {
            name: (
                size_of(branch.interpretation),
                [
                    (
                        int(branch.member("fBasketSeek")[number]),
                        key.fNbytes,
                        key.fKeylen,
                        key.fObjlen,
                    )
                    for number in range(branch.num_baskets)
                    for key in [branch.basket_key(number)]
                ],
            )
            for name, branch in file["Events"].items()
        }


def blocks(data: memoryview) -> Iterator[bytes]:
    """Yield the unpacked blocks of a basket; checksums are not looked at."""
    at = 0
    while at < len(data):
        kind = bytes(data[at : at + 2])
        packed, size = (int.from_bytes(data[at + n : at + n + 3], "little") for n in (3, 6))
        end = at + 9 + packed
        if kind == b"L4":
            yield cramjam.lz4.decompress_block(data[at + 17 : end], output_len=size)
        else:
            yield zlib.decompress(data[at + 9 : end])
        at = end


def bare(path: Path, places: Places, store: Path) -> None:
    """Decompress all baskets, and append their numbers and offsets to files for each branch."""
    with open(path, "rb", buffering=0) as file:
        for name, (itemsize, found) in places.items():
            total = np.int64(0)
            for place, nbytes, keylen, objlen in found:
                raw = memoryview(os.pread(file.fileno(), nbytes, place))
                data = raw[keylen:]
                whole = data if len(data) == objlen else b"".join(blocks(data))
                # The bytes of the numbers; behind them is where each entry begins.
                border = int.from_bytes(raw[keylen - 5 : keylen - 1], "big") - keylen
                with open(store / name, "ab", buffering=0) as out:
                    numbers = np.frombuffer(whole, f"u{itemsize}", border // itemsize)
                    out.write(memoryview(numbers.byteswap()).cast("B"))
                if border < objlen:
                    with open(store / f"{name}-offsets", "ab", buffering=0) as out:
                        begins = np.frombuffer(whole, ">i4", offset=border)[2:] - keylen
                        begins[-1] = border
                        offsets = begins // itemsize + total
                        total = offsets[-1]
                        out.write(memoryview(offsets).cast("B"))


def ingest(path: Path, store: Path, engine: str, jobs: int) -> None:
    """Ingest all trees of a file."""
    engine_kw = {"njobs": jobs} if engine == "joblib" else {}
    with dn.Connection(str(store), backend="file", engine=engine, engine_kw=engine_kw) as con:
        con.ingest(str(path), checksum=False)


def compare(
    folder: Path, path: Path, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Print the times for a file."""
    written = folder / "written"

    def with_dosna(engine: str, jobs: int) -> Work:
        def work() -> None:
            written.mkdir()
            ingest(path, written, engine, jobs)

        return work

    def with_uproot(synced: bool) -> None:
        written.mkdir()
        with uproot.open({path: None}) as file:
            tree = file["Events"]
            for start in range(0, int(tree.num_entries), 2 * CLUSTER):
                arrays = tree.arrays(
                    entry_start=start, entry_stop=start + 2 * CLUSTER, array_cache=None
                )
                for field in arrays.fields:
                    _, _, buffers = ak.to_buffers(arrays[field])
                    for part, buffer in buffers.items():
                        with open(written / f"{field}-{part}", "ab") as out:
                            out.write(memoryview(buffer).cast("B"))
        if synced:
            sync()

    def sync() -> None:
        place = os.open(folder, os.O_RDONLY)
        try:
            sync_file_system(place)
        finally:
            os.close(place)

    places = baskets(path)

    def with_bare(synced: bool) -> None:
        written.mkdir()
        bare(path, places, written)
        if synced:
            sync()

    work: dict[str, Work] = {
        "dosna": with_dosna("cpu", 1),
        "dosna, 2 threads": with_dosna("joblib", 2),
        "bare loop": lambda: with_bare(False),
        "bare loop and sync": lambda: with_bare(True),
        "uproot and write": lambda: with_uproot(False),
        "uproot, write and sync": lambda: with_uproot(True),
    }
    times = minima(work, seconds, dict.fromkeys(work, lambda: shutil.rmtree(written)), clock=clock)
    best = min(times["dosna"], times["dosna, 2 threads"])
    print(f"{path.stem}: {path.stat().st_size / 1e6:.0f} MB compressed", flush=True)
    for name, seconds in times.items():
        ratio = "" if name.startswith("dosna") else f", dosna takes {best / seconds:.2f} x"
        print(f"    {name}: {seconds:.2f} s{ratio}", flush=True)


def memory(path: Path) -> None:
    """Print the additional memory of an ingest, in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    size = path.stat().st_size / 1e6
    print(f"{size:.0f} MB: {done.stdout.strip()} MiB of memory in addition", flush=True)


def measure(path: Path) -> None:
    import psutil

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        small, store = Path(name) / "small.root", Path(name) / "store"
        write(small, 1, uproot.LZ4(1))
        store.mkdir()
        ingest(small, store, "joblib", 2)
        shutil.rmtree(store)
        store.mkdir()
        process = psutil.Process()
        before, most = process.memory_info().rss, 0

        def watch(done: int, total: int) -> None:
            nonlocal most
            most = max(most, process.memory_info().rss)

        with dn.Connection(
            str(store), backend="file", engine="joblib", engine_kw={"njobs": 2}
        ) as con:
            con.ingest(str(path), checksum=False, progress=watch)
        print(round((most - before) / (1 << 20)))


if __name__ == "__main__":
    main()
