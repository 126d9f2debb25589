"""Simulate what work costs on object stores, from a thousand chunks to many millions.

Run ``python benchmarks/scale.py [--most CHUNKS]``. The planner, the engine and the datasets are
dosna's own; only the store is simulated: it keeps documents and the names of chunks, and tells how
long requests would take. Each worker has 16 requests under way. A request waits for its turn at
the store's rate limit, then for the latency, then for its share of the bandwidth. Time is that of
the simulation, but "µs a chunk", which is what this machine's processor takes.

Counts are exact for the sizes that are run. The last table extends them to sizes that are not: it
is printed only if requests, bytes and processor time per chunk are the same at the two largest
sizes, within a fifth.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import dosna as dn
from dosna.backends import Backend, registry
from dosna.backends.stores.connection import ABSENT, StoreConnection
from dosna.backends.stores.store import Blob, Store, VersionConflict
from dosna.engines import Engine
from dosna.engines import registry as engines
from dosna.engines.base import Runner

CHUNK_BYTES = 1 << 20
ELEMENTS = 2  # that stand for a chunk, so that a million of them fit into memory
IN_FLIGHT = 16


@dataclass
class Cloud:
    """The limits of a simulated store, in seconds, bytes per second and requests per second."""

    latency: float = 0.03
    bandwidth: float = 10e9
    rate: float = 5500.0
    workers: int = 1


@dataclass
class Used:
    """What the requests of some work came to."""

    requests: Counter[str] = field(default_factory=Counter)
    nbytes: int = 0
    documents: int = 0


class Simulated(Store):
    """A store that keeps names and documents, and counts what requests cost."""

    shared_between_processes = True
    conditional_puts = True
    deletes_at_once = 1000

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.used = cloud, Used()
        self.blobs: dict[str, Blob] = {}
        self.sharing = 1
        """The workers that share the rate and the bandwidth at present."""
        self._keys: list[str] = []
        self._version = 0
        self.start(0.0)

    def start(self, now: float) -> None:
        """Begin again at a time at which nothing is under way."""
        self.now = self._turn = self._link = now

    def _request(self, kind: str, key: str, nbytes: int) -> None:
        cloud = self.cloud
        if "/c/" in key:
            nbytes = CHUNK_BYTES if nbytes else 0
        else:
            self.used.documents += nbytes
        self.used.requests[kind] += 1
        self.used.nbytes += nbytes
        self._turn = max(self.now, self._turn) + self.sharing / cloud.rate
        self._link = max(self._turn + cloud.latency, self._link)
        self._link += nbytes * self.sharing / cloud.bandwidth
        self.now = self._link

    def get(self, key: str, byte_range: Any = None) -> Blob | None:
        blob = self.blobs.get(key)
        self._request("GET", key, 0 if blob is None else len(blob.data))
        if blob is None or byte_range is None:
            return blob
        return Blob(blob.data[slice(*byte_range)], blob.version, blob.mark)

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        self.put_marked(key, data, expected, None)

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> None:
        self._request("PUT", key, len(data))
        found = self.blobs[key].version if key in self.blobs else ABSENT
        if expected is not None and found != expected:
            raise VersionConflict(f"{key} has version {found!r}, not {expected!r}")
        if found == ABSENT:
            insort(self._keys, key)
        self._version += 1
        self.blobs[key] = Blob(bytes(data), str(self._version), mark)

    def delete(self, key: str) -> bool:
        self._request("DELETE", key, 0)
        return self._remove(key)

    def _remove(self, key: str) -> bool:
        if self.blobs.pop(key, None) is None:
            return False
        del self._keys[bisect_left(self._keys, key)]
        return True

    def delete_many(self, keys: Iterable[str], until: float = 0) -> None:
        found = list(keys)
        for start in range(0, len(found), self.deletes_at_once):
            self._request("POST", "", 0)
            for key in found[start : start + self.deletes_at_once]:
                self._remove(key)

    def list(self, prefix: str) -> Iterator[str]:
        first = bisect_left(self._keys, prefix)
        found = self._keys[first : bisect_left(self._keys, prefix + chr(0x10FFFF))]
        for start in range(0, max(1, len(found)), 1000):
            self._request("LIST", "", 100 * len(found[start : start + 1000]))
            yield from found[start : start + 1000]

    def for_each(
        self, work: Callable[[Any], object], items: Iterable[Any], nbytes: int = 0
    ) -> None:
        begin = self.now
        lanes = [begin] * IN_FLIGHT
        for item in items:
            self.now = heapq.heappop(lanes)
            work(item)
            heapq.heappush(lanes, self.now)
        self.now = max(lanes)


class SimulatedConnection(StoreConnection):
    """A connection to a simulated store."""

    shared_between_processes = True
    place: Simulated

    def open_store(self) -> Store:
        return type(self).place


class ManyWorkers(Runner):
    """Workers that begin together, each with its share of the tasks, in simulated time."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = SimulatedConnection.place.cloud.workers

    def map(self, work: Any, tasks: Any) -> list[Any]:
        return [work(tasks)]

    def spread(
        self, work: Any, tasks: Any, *, workers: Any = None, report: Any = None, **_: Any
    ) -> list[Any]:
        store = SimulatedConnection.place
        begin, results, ends = store.now, [], [store.now]
        parts = tasks.split(self.workers) if hasattr(tasks, "split") else [tasks]
        store.sharing = max(1, len(parts))
        for part in parts:
            store.start(begin)
            results.append(work(part))
            ends.append(store.now)
        store.sharing = 1
        store.start(max(ends))
        return results


registry.register(Backend("simulated", SimulatedConnection))
engines.register(Engine("many", ManyWorkers))


@dataclass
class Cost:
    """What one operation on an array or connection of a size came to."""

    requests: int
    nbytes: int
    documents: int
    seconds: float
    processor: float


def measured(store: Simulated, work: Callable[[], object]) -> Cost:
    store.used = Used()
    begin, before = time.process_time(), store.now
    work()
    processor = time.process_time() - begin
    used = store.used
    seconds = store.now - before
    return Cost(sum(used.requests.values()), used.nbytes, used.documents, seconds, processor)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=100_000, help="the most chunks that are run")
    options = parser.parse_args()
    sizes = [n for n in (1024, 10_000, 99_856, 1_000_000) if n <= options.most]
    cloud = Cloud()
    on_chunks(100, cloud)  # imports and caches
    table("One worker", sizes, [on_chunks(n, cloud) for n in sizes], "chunk")
    many = Cloud(workers=1000)
    table("1,000 workers", sizes, [on_chunks(n, many) for n in sizes], "chunk")
    counts = [n for n in (100, 1000, 10_000) if n <= options.most]
    table("Datasets of one chunk", counts, [on_datasets(n, cloud) for n in counts], "dataset")


if __name__ == "__main__":
    main()
