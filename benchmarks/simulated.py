"""A simulated object store for `scale.py`: it keeps names and documents, and counts requests."""

from __future__ import annotations

import hashlib
import heapq
import threading
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dosna.backends import Backend, registry
from dosna.backends.stores.connection import ABSENT, StoreConnection
from dosna.backends.stores.store import Beside, Blob, Sized, Store, VersionConflict
from dosna.engines import Engine
from dosna.engines import registry as engines
from dosna.engines.base import Runner
from dosna.io.parallel import current_lane

CHUNK_BYTES = 1 << 20
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
    """The requests of each lane."""
    nbytes: int = 0
    documents: int = 0

    @property
    def waits(self) -> int:
        """The requests that one has to wait for, as reads and writes go on side by side."""
        lanes = self.requests
        return lanes[""] + max(lanes["reading"], lanes["writing"])


@dataclass
class Lane:
    """The time in one lane of requests, those ahead of, behind and in the caller's thread."""

    now: float
    turn: float
    link: float


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
        self._lock = threading.RLock()  # threads read ahead and write behind
        self.start(0.0)

    def start(self, now: float) -> None:
        """Begin again at a time at which nothing is under way."""
        self._lanes: dict[str, Lane] = {}
        self._read: deque[float] = deque()  # when batches that were read ahead had ended
        self._begun, self._least = now, 0.0

    @property
    def now(self) -> float:
        """The time at which all requests have ended."""
        # Lanes side by side share the limits of the store.
        least = self._begun + self._least if len(self._lanes) > 1 else self._begun
        return max([least, *(lane.now for lane in self._lanes.values())])

    def _lane(self) -> Lane:
        name = current_lane()
        if self._lanes and bool(name) == ("" in self._lanes):
            self.start(self.now)
        begun = self._begun
        return self._lanes.setdefault(name, Lane(begun, begun, begun))

    def _request(self, key: str, nbytes: int) -> None:
        cloud, is_chunk = self.cloud, "/c/" in key
        if is_chunk:
            nbytes = CHUNK_BYTES if nbytes else 0
        with self._lock:
            lane, used = self._lane(), self.used
            used.documents += 0 if is_chunk else nbytes
            used.requests[current_lane()] += 1
            used.nbytes += nbytes
            turn, link = self.sharing / cloud.rate, nbytes * self.sharing / cloud.bandwidth
            self._least += max(turn, link)
            lane.turn = max(lane.now, lane.turn) + turn
            lane.link = max(lane.turn + cloud.latency, lane.link) + link
            lane.now = lane.link

    def get(self, key: str, byte_range: Any = None) -> Blob | None:
        blob = self.blobs.get(key)
        self._request(key, 0 if blob is None else len(blob.data))
        if blob is None or byte_range is None:
            return blob
        return Blob(blob.data[slice(*byte_range)], blob.version, blob.mark)

    def put(self, key: str, data: bytes, expected: str | None = None) -> str:
        return self.put_marked(key, data, expected, None)

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> str:
        self._request(key, len(data))
        found = self.blobs[key].version if key in self.blobs else ABSENT
        if expected is not None and found != expected:
            raise VersionConflict(f"{key} has version {found!r}, not {expected!r}")
        if found == ABSENT:
            insort(self._keys, key)
        # As ETags are, versions are of the bytes alone.
        version = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.blobs[key] = Blob(bytes(data), version, mark)
        return version

    def delete(self, key: str) -> bool:
        self._request(key, 0)
        return self._remove(key)

    def _remove(self, key: str) -> bool:
        if self.blobs.pop(key, None) is None:
            return False
        del self._keys[bisect_left(self._keys, key)]
        return True

    def delete_many(self, keys: Iterable[str], until: float = 0) -> None:
        found = list(keys)
        for start in range(0, len(found), self.deletes_at_once):
            self._request("", 0)
            for key in found[start : start + self.deletes_at_once]:
                self._remove(key)

    def pages(self, prefix: str) -> Iterator[Sized]:
        first = bisect_left(self._keys, prefix)
        end = bisect_left(self._keys, prefix + chr(0x10FFFF))
        for start in range(first, max(first + 1, end), 1000):
            found = self._keys[start : min(end, start + 1000)]
            self._request("", 100 * len(found))
            yield [(key, len(self.blobs[key].data)) for key in found]

    def list(self, prefix: str) -> Iterator[str]:
        for page in self.pages(prefix):
            yield from (key for key, _ in page)

    def beside(self, folder: str, part: str, document: str = "") -> Beside | None:
        self._request("", 100)
        first = f"{folder}{part}/"
        at = bisect_left(self._keys, first)
        taken = at < len(self._keys) and self._keys[at].startswith(first)
        found = self.blobs.get(folder + document)
        return Beside(taken, ABSENT if found is None else found.version)

    def for_each(
        self, work: Callable[[Any], object], items: Iterable[Any], nbytes: int = 0
    ) -> None:
        with self._lock:
            lane, name = self._lane(), current_lane()
            if name == "writing" and self._read:
                lane.now = max(lane.now, self._read.popleft())  # what is written was read before
            ends = [lane.now] * IN_FLIGHT
            for item in items:
                lane.now = heapq.heappop(ends)
                work(item)
                heapq.heappush(ends, lane.now)
            lane.now = max(ends)
            if name == "reading":
                self._read.append(lane.now)


class SimulatedConnection(StoreConnection):
    """A connection to a simulated store."""

    shared_between_processes = True
    creates_together = True
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
