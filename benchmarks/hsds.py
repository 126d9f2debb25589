"""Compare ingest of a domain of HSDS with a loop over h5pyd, and export with h5pyd's writing.

Run ``python benchmarks/hsds.py [--quick]``; it needs what ``run_tests.sh --install`` installs,
and starts a server of its own. The contestants read one domain into memory, or write one, in
turn, in rounds; the shortest times count. ``x`` is the others' time divided by dosna's.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import h5pyd
import numpy as np
from services import Hsds, hsds_environment, start_hsds
from timing import minima

import dosna as dn
import dosna.sources.hsds.source
from dosna.hsds import HsdsClient, HsdsOptions

PLANE = (512, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    options = parser.parse_args()
    planes, seconds = (32, 0.1) if options.quick else (256, 20.0)
    with start_hsds() as server, hsds_environment(server):
        for chunks in ((2, *PLANE), (16, 128, 256)):
            reading(server, "read", planes, chunks, seconds)
        writing(server, planes // 4, seconds)
        memory(server, planes)
    # As over a network: each access to the store takes a while, and not all data are cached.
    what = "read, where the server's store takes 50 ms"
    slow = start_hsds(POSIX_DELAY="0.05", CHUNK_MEM_CACHE_SIZE="8m")
    with slow as server, hsds_environment(server):
        reading(server, what, planes // 2, (2, *PLANE), seconds)


def opened(server: Hsds, url: str, mode: str) -> h5pyd.File:
    # h5pyd reads the environment only once.
    return h5pyd.File(
        url, mode, endpoint=server.endpoint, username="test", password=server.users["test"]
    )


def show(what: str, nbytes: int, times: dict[str, float]) -> None:
    print(f"{what}: {nbytes / 1e6:.0f} MB", flush=True)
    for name, time in times.items():
        ratio = "" if name == "dosna" else f", {time / times['dosna']:.2f} x"
        print(f"    {name}: {nbytes / time / 1e6:.0f} MB/s{ratio}", flush=True)


def make(url: str, planes: int, chunks: tuple[int, ...]) -> int:
    """Create a domain of random frames, and return its size in bytes."""
    random = np.random.default_rng(0)
    with dn.Connection("frames", backend="ram", engine="cpu") as con:
        frames = random.integers(0, 4000, (planes, *PLANE), "u2")
        ds = con.create_dataset("data", data=frames, chunk_size=chunks)
        con.export(url, overwrite=True)
        con.del_dataset("data")
        return int(ds.nbytes)


def ingest(url: str) -> None:
    with dn.Connection("ingested", backend="ram", engine="cpu") as con:
        con.ingest(url)
        con.del_dataset("data")


def one_at_a_time(url: str) -> None:
    with mock.patch.object(dosna.sources.hsds.source, "IN_FLIGHT", 1):
        ingest(url)


def reading(server: Hsds, what: str, planes: int, chunks: tuple[int, ...], seconds: float) -> None:
    """Print the times of reading a domain."""
    url = f"hdf5:/{server.home}/frames.h5"
    nbytes = make(url, planes, chunks)

    def loop() -> None:
        with opened(server, url, "r") as file:
            source = file["data"]
            out = np.empty(source.shape, source.dtype)
            for box in source.iter_chunks():
                out[box] = source[box]

    times = minima(
        {
            "dosna": lambda: ingest(url),
            "dosna, one request at a time": lambda: one_at_a_time(url),
            "h5pyd loop over chunks": loop,
        },
        seconds,
    )
    show(f"{what}, chunks of {chunks}", nbytes, times)


def writing(server: Hsds, planes: int, seconds: float) -> None:
    """Print the times of writing a domain: dosna's is flushed and read back."""
    url = f"hdf5:/{server.home}/written.h5"
    frames = np.random.default_rng(0).integers(0, 4000, (planes, *PLANE), "u2")
    chunks = (2, *PLANE)
    with dn.Connection("frames", backend="ram", engine="cpu") as con:
        con.create_dataset("data", data=frames, chunk_size=chunks)

        def loop() -> None:
            with opened(server, url, "w") as file:
                made = file.create_dataset("data", frames.shape, frames.dtype, chunks=chunks)
                for start in range(0, planes, 2):
                    made[start : start + 2] = frames[start : start + 2]
                file.flush()

        work = {"dosna": lambda: con.export(url, overwrite=True), "h5pyd loop over chunks": loop}
        times = minima(work, seconds / 2)
        con.del_dataset("data")
    show("write", frames.nbytes, times)


def memory(server: Hsds, planes: int) -> None:
    """Print the peak memory of ingest into files, for a domain and one 10 times larger."""
    import tempfile

    for factor in (1, 10):
        url = f"hdf5:/{server.home}/frames.h5"
        nbytes = make(url, planes // 4 * factor, (2, *PLANE))
        with (
            tempfile.TemporaryDirectory() as folder,
            dn.Connection(folder, backend="file", engine="cpu") as con,
        ):
            tracemalloc.start()
            con.ingest(url, memory_limit="32M")
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        print(f"memory_limit 32M, {nbytes / 1e6:.0f} MB: {most / 1e6:.0f} MB held", flush=True)
    client = HsdsClient(HsdsOptions())
    client.delete("/", f"{server.home}/frames.h5")


if __name__ == "__main__":
    main()
