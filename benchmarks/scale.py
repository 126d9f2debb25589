"""Simulate what work costs on object stores, from a thousand chunks to many millions.

Run ``python benchmarks/scale.py [--most CHUNKS] [--only TABLE ...]``. The planner, the engine and
the datasets are dosna's own; only the store is simulated: it keeps documents and the names of
chunks, and tells how long requests would take. Each worker has 16 reads and 16 writes under way. A
request waits for its turn at the store's rate limit, then for the latency, then for its share of
the bandwidth. Time is that of the simulation, but "µs a chunk", which is what this machine's
processor takes.

Counts are exact for the sizes that are run. A table extends them to sizes that are not: a row is
printed only if the requests, and the bytes of documents and lists, that each further chunk costs
are the same between the two largest sizes and between the two before, within a fifth; others are
named. Memory is what Python allocates at most, in a run of its own. ``--checked`` runs loads and
reads against radosgw on loopback too, behind a proxy with the latency that is simulated, and
compares requests and times.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from simulated import IN_FLIGHT, Cloud, Simulated, SimulatedConnection, Used

import dosna as dn

TABLES = ("chunks", "memory", "datasets")
ELEMENTS = 2  # that stand for a chunk, so that a million of them fit into memory


@dataclass
class Cost:
    """What one operation on an array or connection of a size came to."""

    requests: int
    waits: int
    nbytes: int
    documents: int
    seconds: float
    processor: float
    memory: int = 0


def measured(store: Simulated, work: Callable[[], object]) -> Cost:
    store.start(store.now)
    store.used, held = Used(), 0
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
    begin, before = time.process_time(), store.now
    work()
    processor = time.process_time() - begin
    memory = tracemalloc.get_traced_memory()[1] - held if tracemalloc.is_tracing() else 0
    used = store.used
    seconds = store.now - before
    requests = sum(used.requests.values())
    return Cost(requests, used.waits, used.nbytes, used.documents, seconds, processor, memory)


class Zeros:
    """An array of zeros that is never in memory."""

    dtype = np.dtype("f8")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __getitem__(self, key: Any) -> Any:
        return np.zeros([len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)])


def on_chunks(chunks: int, cloud: Cloud) -> dict[str, Cost]:
    """Measure work over all chunks of an array."""
    store = SimulatedConnection.place = Simulated(cloud)
    side = round(chunks**0.5)
    shape = (side, side * ELEMENTS)
    found = {}
    with dn.Connection("scale", backend="simulated", engine="many") as con:
        ds = con.create_dataset("a", shape, "f8", chunk_size=(1, ELEMENTS))
        works: dict[str, Callable[[], object]] = {
            "load": lambda: ds.load(Zeros(shape)),
            "sum": ds.sum,
            "verify": ds.verify,
            "map": lambda: ds.map(np.negative, "b"),
            "clone": lambda: ds.clone("c", data=True),
            "row": lambda: ds[0],
            "point": lambda: ds[0, 0],
            "append a row": lambda: ds.append(np.zeros((1, shape[1]))),
            "written_chunks": ds.written_chunks,
            "clear": lambda: con["b"].clear(),
            "delete": lambda: con.del_dataset("c"),
        }
        for name, work in works.items():
            found[name] = measured(store, work)
    return found


def in_memory(chunks: int) -> dict[str, Cost]:
    """Measure the memory of work that adds nothing to the simulated store."""
    store = SimulatedConnection.place = Simulated(Cloud())
    side, most = round(chunks**0.5), "2 MiB"
    with dn.Connection("scale", backend="simulated", engine="cpu") as con:
        ds = con.create_dataset("a", (side, side * 128), "f8", chunk_size=(1, 128))
        zeros = Zeros(ds.shape)
        ds.load(zeros)
        works: dict[str, Callable[[], object]] = {
            "load": lambda: ds.load(zeros, memory_limit=most),
            "load what is missing": lambda: ds.load(zeros, missing=True, memory_limit=most),
            "sum": ds.sum,
            "verify": ds.verify,
            "apply": lambda: ds.apply(np.negative, memory_limit=most),
            "compare": lambda: ds.compare(zeros, memory_limit=most),
            "written_chunks": ds.written_chunks,
            "clear": ds.clear,
        }
        return {name: measured(store, work) for name, work in works.items()}


def on_datasets(count: int, cloud: Cloud) -> dict[str, Cost]:
    """Measure work over many datasets of one chunk."""
    store = SimulatedConnection.place = Simulated(cloud)
    found = {}
    with dn.Connection("scale", backend="simulated") as con:
        arrays = {f"entry/d{n}": np.zeros(2) for n in range(count)}
        found["ingest"] = measured(store, lambda: con.ingest(arrays, "all"))
        found["create one more"] = measured(store, lambda: con.create_dataset("x", (2,)))
        found["open one"] = measured(store, lambda: con["all/entry/d0"])
        found["list all"] = measured(store, lambda: list(con))
        found["the store's own list"] = measured(store, lambda: list(store.list("")))
        found["delete one"] = measured(store, lambda: con.del_dataset("x"))
    return found


def table(title: str, sizes: list[int], costs: list[dict[str, Cost]], unit: str) -> None:
    print(f"\n{title}\n")
    print(f"| work | {unit}s | requests | MB | of documents, KB | simulated s | µs a {unit} |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name in costs[0]:
        for size, cost in zip(sizes, costs, strict=True):
            c = cost[name]
            print(
                f"| {name} | {size:,} | {c.requests:,} | {c.nbytes / 1e6:,.1f} | "
                f"{c.documents / 1e3:,.1f} | {c.seconds:,.2f} | {c.processor / size * 1e6:,.1f} |"
            )


def memory_table(sizes: list[int]) -> None:
    """Print the memory that work takes, and what it takes more for each further chunk."""
    tracemalloc.start()
    costs = [in_memory(n) for n in sizes]
    tracemalloc.stop()
    print(
        "\nMemory\n\n| work | " + " | ".join(f"{n:,} chunks" for n in sizes) + " | bytes a chunk |"
    )
    print("| --- |" + " --: |" * (len(sizes) + 1))
    for name in costs[0]:
        cells = [f"{cost[name].memory / 1024:,.0f} KiB" for cost in costs]
        more = (costs[-1][name].memory - costs[-2][name].memory) / (sizes[-1] - sizes[-2])
        print(f"| {name} | {' | '.join(cells)} | {max(0.0, more):,.1f} |")


def extended(sizes: list[int], costs: list[dict[str, Cost]], cloud: Cloud) -> None:
    """Print what work over all chunks costs for more of them than were run."""
    print(f"\nExtended, {cloud.workers:,} workers\n")
    print("| work | chunks | requests | TB | of documents and lists, MB | least time, h |")
    print("| --- | --: | --: | --: | --: | --: |")
    for name in costs[0]:
        c = [cost[name] for cost in costs[-3:]]
        n = sizes[-3:]
        steps = [
            [(b.requests - a.requests) / (m - k), (b.documents - a.documents) / (m - k)]
            for a, b, k, m in zip(c, c[1:], n, n[1:], strict=False)
        ]
        (one, _), (two, _) = steps
        if max(one, two) > 1.2 * min(one, two):
            print(f"| {name} | not as many as the chunks | | | | |")
            continue
        for chunks in (10**6, 10**7, 10**8, 10**9):
            requests = c[-1].requests + (chunks - n[-1]) * steps[-1][0]
            documents = c[-1].documents + (chunks - n[-1]) * max(0.0, steps[-1][1])
            nbytes = c[-1].nbytes / n[-1] * chunks
            waits = requests * c[-1].waits / c[-1].requests
            seconds = max(
                requests / cloud.rate,
                nbytes / cloud.bandwidth,
                waits * cloud.latency / (cloud.workers * IN_FLIGHT),
            )
            print(
                f"| {name} | {chunks:.0e} | {requests:.2e} | {nbytes / 1e12:,.1f} | "
                f"{documents / 1e6:,.1f} | {seconds / 3600:,.1f} |"
            )


def check() -> None:
    """Compare requests and times with those of radosgw behind a proxy with a latency."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from services import aws_environment, start_ceph
    from services.proxy import Proxy
    from services.s3 import make_client

    cloud, side = Cloud(bandwidth=math.inf, rate=math.inf), 16
    shape = (side, side * ELEMENTS)

    def works(con: dn.Connection) -> dict[str, Callable[[], object]]:
        con.create_dataset("first", data=[0])  # which learns what the server honours
        ds = con.create_dataset("a", shape, "f8", chunk_size=(1, ELEMENTS))
        return {
            "create": lambda: con.create_dataset("x", data=np.zeros(2)),
            "ingest one": lambda: con.ingest(np.zeros(2), "y"),
            "load": lambda: ds.load(Zeros(shape)),
            "sum": ds.sum,
            "verify": ds.verify,
            "map": lambda: ds.map(np.negative, "b"),
            "written_chunks": ds.written_chunks,
            "list": lambda: list(con),
            "open": lambda: con["a"],
            "delete": lambda: con.del_dataset("b"),
        }

    print(f"\nChecked: {side * side} chunks, {cloud.latency * 1e3:g} ms of latency\n")
    print("| work | requests, simulated | measured | s, simulated | measured |")
    print("| --- | --: | --: | --: | --: |")
    store = SimulatedConnection.place = Simulated(cloud)
    with (
        start_ceph("--gateway") as ceph,
        aws_environment(ceph.access_key, ceph.secret_key),
        Proxy(ceph.endpoint_url, lambda request: cloud.latency) as proxy,
        dn.Connection("scale", backend="simulated", engine="cpu") as con,
    ):
        make_client(ceph.endpoint_url).create_bucket(Bucket="scale")
        simulated = {name: measured(store, work) for name, work in works(con).items()}
        options: Any = {"endpoint_url": proxy.url, "bucket": "scale"}
        with dn.Connection("scale", backend="s3", engine="cpu", **options) as real:
            for name, work in works(real).items():
                proxy.reset()
                proxy.fault = lambda request: cloud.latency
                begin = time.perf_counter()
                work()
                seconds, cost = time.perf_counter() - begin, simulated[name]
                print(
                    f"| {name} | {cost.requests} | {len(proxy.requests)} | {cost.seconds:.2f} | "
                    f"{seconds:.2f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=16_384, help="the most chunks that are run")
    parser.add_argument("--datasets", type=int, default=3000, help="the most datasets")
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, help="the tables that are printed"
    )
    parser.add_argument("--checked", action="store_true", help="compare with radosgw as well")
    options = parser.parse_args()
    sizes = [n for n in (1024, 4096, 16_384, 99_856, 1_000_000) if n <= options.most]
    cloud = Cloud()
    on_chunks(100, cloud)  # imports and caches
    workers = ((cloud, "One worker"), (Cloud(workers=1000), "1,000 workers"))
    for each, title in workers if "chunks" in options.only else ():
        costs = [on_chunks(n, each) for n in sizes]
        table(title, sizes, costs, "chunk")
        if len(sizes) > 2:
            extended(sizes, costs, each)
    if "memory" in options.only:
        memory_table([4096, 16_384, 36_864])
    if "datasets" in options.only:
        counts = [n for n in (300, 3000, 10_000, 100_000) if n <= options.datasets]
        table("Datasets of one chunk", counts, [on_datasets(n, cloud) for n in counts], "dataset")
    if options.checked:
        check()


if __name__ == "__main__":
    main()
