"""Compare queries on Ceph: by the OSDs' object class, and by chunks that are shipped.

Run ``python benchmarks/query_ceph.py [--quick]``; it needs what ``run_tests.sh --install``
installs. A tree of four columns of float32 lies in a pool of three OSDs that keep their objects
in memory; a query tests one column and returns three others. Contestants take turns, in rounds:
the query with the class, the same without it, and `read_columns` with NumPy. After them, so that
they put no chunks into the processor's caches for the others, come the calls of the class alone,
each time behind a query without it: those that test all chunks, and then those that take rows,
whose answers nobody looks at. No query by the class is faster. The minima, the bytes of chunks and
answers that reach the client, with what it sent to the class, and the ratios of the minima are
printed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from services import start_ceph

import dosna as dn
from dosna.backends.ceph.store import CephStore
from dosna.backends.stores.store import MethodCall
from dosna.columns import Branch, Tree, read_columns
from dosna.query.ceph_class.__main__ import build

POOL = "benchmark"
TREE = "Events"
NAMES = ("x", "a", "b", "c")
CHUNK = 1 << 20  # entries
Work = Callable[[], Any]


class Traffic:
    """Counts the bytes of chunks and of the object class, of all stores of this process."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.closed = False
        self.calls: list[tuple[CephStore, MethodCall]] = []
        get, execute, can = CephStore.get, CephStore.execute, CephStore.can_execute

        def counted_get(store: Any, key: str, byte_range: Any = None) -> Any:
            blob = get(store, key, byte_range)
            if blob is not None and "/c/" in key:
                self.nbytes += len(blob.data)
            return blob

        def counted_execute(store: Any, calls: Any) -> Any:
            answers = execute(store, calls)
            self.nbytes += sum(len(call.request) for call in calls)
            self.nbytes += sum(len(answer) for answer in answers if isinstance(answer, bytes))
            self.calls += [(store, call) for call in calls]
            return answers

        def can_execute(store: Any) -> bool:
            return not self.closed and can(store)

        replaced: Any = CephStore
        replaced.get, replaced.execute = counted_get, counted_execute
        replaced.can_execute = can_execute

    @contextlib.contextmanager
    def without_class(self) -> Iterator[None]:
        """Let no store use the class."""
        self.closed = True
        yield
        self.closed = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer entries and rounds")
    parser.add_argument("--osds", type=int, default=3)
    parser.add_argument("--engine", default="cpu")
    options = parser.parse_args()
    entries, rounds = (1 << 21, 3) if options.quick else (10 << 20, 9)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), "g++")
        with (
            start_ceph(f"--osds={options.osds}", f"--pool={POOL}", f"--classes={folder}") as ceph,
            dn.Connection(
                POOL, backend="ceph", engine=options.engine, conffile=ceph.conf, timeout=60
            ) as con,
        ):
            make(con, entries)
            print(f"{entries} entries; ms, MB, and the time of each divided by the class's")
            traffic = Traffic()
            for share in (0.00001, 0.01, 0.1, 1.0):
                row(con, share, traffic, rounds)


def make(con: Any, entries: int) -> None:
    """Write the tree."""
    form = {"class": "NumpyArray", "primitive": "float32", "inner_shape": [], "parameters": {}}
    branches = tuple(Branch(name, form, "float", "", n) for n, name in enumerate(NAMES))
    generator = np.random.default_rng(0)
    for name in NAMES:
        values = generator.random(entries, np.float32)
        con.create_dataset(f"{TREE}/{name}", data=values, chunk_size=CHUNK)
    tree = Tree("test", TREE, entries, branches, chunk_entries=CHUNK)
    con.set_group_attrs(TREE, tree.to_attrs())


def row(con: Any, share: float, traffic: Traffic, rounds: int) -> None:
    """Print the row of a selectivity."""
    where, columns = f"x < {share}", list(NAMES[1:])

    def with_class() -> Any:
        return con.query(TREE, where, columns).to_numpy()

    def without() -> Any:
        with traffic.without_class():
            return with_class()

    def by_hand() -> Any:
        with traffic.without_class():
            array = read_columns(con, TREE, [*NAMES])
        kept = np.asarray(array["x"]) < np.float32(share)
        return {name: np.asarray(array[name])[kept] for name in columns}

    traffic.calls.clear()
    with_class()
    store = traffic.calls[0][0]
    calls = [call for _, call in traffic.calls]
    phases = [[call for call in calls if call.method == method] for method in ("mask", "take")]

    def by_calls() -> Any:
        for phase in phases:
            store.execute(phase)

    work: dict[str, Work] = {"class": with_class, "shipped": without, "read_columns": by_hand}
    times: dict[str, list[float]] = {name: [] for name in work}
    nbytes: dict[str, int] = {}
    results: dict[str, Any] = {}
    names = list(work)
    order = random.Random(0)
    for turn in range(rounds + 1):
        # What ran before decides what is in the processor's caches: not always the same does.
        for name in order.sample(names, len(names)):
            traffic.nbytes, begin = 0, time.perf_counter()
            results[name] = work[name]()
            if turn:
                times[name].append(time.perf_counter() - begin)
            nbytes[name] = traffic.nbytes
    for name in names[1:]:
        for column in columns:
            np.testing.assert_array_equal(results[name][column], results["class"][column])
    best = {name: min(taken) for name, taken in times.items()}
    alone = []
    for _ in range(rounds):
        without()
        begin = time.perf_counter()
        by_calls()
        alone.append(time.perf_counter() - begin)
    cells = [
        f"{name} {best[name] * 1e3:.0f} ms, {nbytes[name] / 1e6:.1f} MB"
        f" ({nbytes['class'] / max(1, nbytes[name]):.1%}), {best[name] / best['class']:.2f} x"
        for name in names
    ]
    cells.append(f"calls alone {min(alone) * 1e3:.0f} ms")
    print(f"{share:.3%} selected: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
