"""Compare the delivery service and its transformers with plain loops over uproot and pyarrow.

Run ``python benchmarks/delivery.py [--quick] [--only ROW] [--folder F]``; it needs what
``run_tests.sh --install`` installs. Files are in the page cache. The contestants take turns; the
shortest times count. Aims are ratios to the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import awkward as ak
import numpy as np
import uproot
from pyarrow import parquet
from rows_delivery import URL, Client, polls, service, watched
from timing import minima

import dosna as dn
from dosna.columns import find_trees
from dosna.delivery.transform import TransformRequest, transform

COLUMNS = ["run", "MET_pt", "nMuon", "Muon_pt", "Muon_eta"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer files and rounds")
    parser.add_argument("--only", default="", help="the row: " + ", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    for name, row in ROWS.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                row(name, Path(folder), options.quick)


def show(
    row: str, work: Mapping[str, Callable[[], object]], rounds: int, aims: Mapping[str, float]
) -> None:
    """Print the shortest times, and dosna's beside those of others."""
    best = minima(work, 0.0, least=rounds)
    times = ", ".join(f"{name} {1e3 * time:.1f} ms" for name, time in best.items())
    ratios = [
        f"{best['dosna'] / best[other]:.2f} x {other} (aim {aim})"
        + " !" * (best["dosna"] / best[other] > aim)
        for other, aim in aims.items()
    ]
    print("; ".join([f"{row}: {times}", *ratios]), flush=True)


def write_events(path: Path, entries: int, seed: int) -> None:
    """Write a file with twenty columns, numbers and lists; 330,000 entries are 20 MB."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 4, entries)
    lists = {
        f"Muon_{name}": ak.unflatten(random.random(counts.sum(), "f4"), counts)
        for name in ("pt", "eta", "phi", "dxy")
    }
    numbers = {f"x{n}": random.integers(0, 1 << 10, entries).astype("f4") for n in range(12)}
    events = {"run": np.arange(entries, dtype="u4"), "MET_pt": random.random(entries, "f4")}
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        types = {
            n: a.type.content if isinstance(a, ak.Array) else a.dtype
            for n, a in {**events, **numbers, **lists}.items()
        }
        tree = file.mktree("Events", types, counter_name=lambda _: "nMuon")
        for start in range(0, entries, 50_000):
            part = slice(start, start + 50_000)
            tree.extend({n: a[part] for n, a in {**events, **numbers, **lists}.items()})


def plain(source: str, target: str) -> int:
    """Write five columns of a file to Parquet by uproot and pyarrow, as a script would."""
    writer = None
    for arrays in uproot.iterate({source: "Events"}, COLUMNS, step_size="100 MB"):
        table = ak.to_arrow_table(arrays)
        writer = writer or parquet.ParquetWriter(target, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return os.path.getsize(target)


def ours(source: str, target: str, cut: str | None = None) -> int:
    """Do the same by a transformer."""
    selection = json.dumps([{"treename": "Events", "filter_name": COLUMNS, "cut": cut}])
    folder, name = os.path.split(target)
    return transform(
        TransformRequest(source, "uproot-raw", selection, "parquet", folder, name)
    ).size


def empty(row: str, folder: Path, quick: bool) -> None:
    """One file of which nothing is selected: what a transformation costs beside its work."""
    path = folder / "events.root"
    write_events(path, 1000, 0)
    work = {
        "dosna": lambda: ours(str(path), str(folder / "ours"), "MET_pt > 2"),
        "plain loop": lambda: plain(str(path), str(folder / "plain")),
    }
    show(row, work, 20 if quick else 100, {})


def files(row: str, folder: Path, quick: bool) -> None:
    """Files of 20 MB, five columns of twenty to Parquet, by two processes."""
    count = 12 if quick else 100
    for seed in range(4):
        write_events(folder / f"{seed}", 330_000, seed)
    sources = [str(folder / f"{n}.root") for n in range(count)]
    for source, seed in zip(sources, itertools.cycle(range(4)), strict=False):
        os.link(folder / str(seed), source)
    targets = [str(folder / f"{n}.parquet") for n in range(count)]
    size = os.path.getsize(sources[0]) / 1e6
    with ProcessPoolExecutor(2, get_context("spawn")) as pool, ThreadPoolExecutor(2) as threads:
        work = {
            "dosna": lambda: list(threads.map(ours, sources, targets)),
            "plain loop": lambda: list(pool.map(plain, sources, targets)),
        }
        show(f"{row}: {count} files of {size:.0f} MB", work, 3, {"plain loop": 1.15})


def request(row: str, folder: Path, quick: bool) -> None:
    """One file of which nothing is selected, through the service: what a request costs."""
    (folder / "data").mkdir()
    path = folder / "data" / "events.root"
    write_events(path, 1000, 0)
    selection = json.dumps([{"treename": "Events", "filter_name": COLUMNS, "cut": "MET_pt > 2"}])
    with service(folder) as client:
        work = {
            "dosna": lambda: client.deliver([str(path)], selection),
            "transformer": lambda: ours(str(path), str(folder / "ours"), "MET_pt > 2"),
        }
        best = minima(work, 0.0, least=20 if quick else 100)
    cost = 1e3 * (best["dosna"] - best["transformer"])
    times = ", ".join(f"{name} {1e3 * time:.1f} ms" for name, time in best.items())
    print(f"{row}: {times}; overhead {cost:.1f} ms (aim 150)" + " !" * (cost > 150), flush=True)


def delivered(row: str, folder: Path, quick: bool) -> None:
    """Files of 20 MB through the service, beside the loop by two processes."""
    count = 12 if quick else 100
    data = folder / "data"
    data.mkdir()
    for seed in range(4):
        write_events(folder / f"{seed}", 330_000, seed)
    sources = [str(data / f"{n}.root") for n in range(count)]
    for source, seed in zip(sources, itertools.cycle(range(4)), strict=False):
        os.link(folder / str(seed), source)
    targets = [str(folder / f"{n}.parquet") for n in range(count)]
    selection = json.dumps([{"treename": "Events", "filter_name": COLUMNS}])
    with service(folder) as client, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        work = {
            "dosna": lambda: client.deliver(sources, selection, 0.05),
            "plain loop": lambda: list(pool.map(plain, sources, targets)),
        }
        show(f"{row}: {count} files", work, 3, {"plain loop": 1.15})


def many(row: str, folder: Path, quick: bool) -> None:
    """Many small files in one request: the service's memory, and the cost of a file."""
    with small(folder) as (client, path):
        repeated(row, client, path, quick, lambda count: "object-store")


def into(row: str, folder: Path, quick: bool) -> None:
    """Many small files into a connection, where they become one tree."""
    columns = folder / "columns"
    columns.mkdir()
    with small(folder, "--destination", f"file:{columns}") as (client, path):
        repeated(row, client, path, quick, lambda count: f"dosna:file:{columns}//of{count}")
    with dn.Connection(str(columns), backend="file", mode="r") as con:
        for name, tree in find_trees(con).items():
            assert tree.entries == 100 * len(tree.files), name


@contextmanager
def small(folder: Path, *options: str) -> Iterator[tuple[Client, str]]:
    """Run a service that serves a small file, whose path is given, too."""
    (folder / "data").mkdir()
    path = folder / "data" / "events.root"
    write_events(path, 100, 0)
    with service(folder, *options) as client:
        yield client, str(path)


def repeated(
    row: str, client: Client, path: str, quick: bool, place: Callable[[int], str]
) -> None:
    """Print the cost of a file, when there are few and when there are many."""
    selection = json.dumps([{"treename": "Events", "filter_name": ["run"]}])
    client.deliver([path], selection, into=place(1))
    costs = []
    for count in (100, 1000) if quick else (1000, 10_000):
        seconds, memory = watched(
            client,
            lambda count=count: client.deliver([path] * count, selection, 0.5, place(count)),
        )
        costs.append(1e3 * seconds / count)
        print(
            f"{row}: {count} files: {costs[-1]:.1f} ms a file; the service has "
            f"{memory / 2**20:.0f} MiB (aim 300)" + " !" * (memory > 300 << 20),
            flush=True,
        )
    ratio = costs[1] / costs[0]
    print(f"{row}: cost of a file {ratio:.2f} x (aim 1.1)" + " !" * (ratio > 1.1), flush=True)


def polled(row: str, folder: Path, quick: bool) -> None:
    """Poll the status by 50 clients, while a request runs."""
    (folder / "data").mkdir()
    path = folder / "data" / "events.root"
    write_events(path, 100, 0)
    selection = json.dumps([{"treename": "Events", "filter_name": ["run"]}])
    with service(folder) as client:
        id = client.submit([str(path)] * 100_000, selection)
        rate, failures, slowest = polls(client, f"{URL}/{id}", 50, 5 if quick else 20)
        client.http.delete(f"{URL}/{id}")
    print(
        f"{row}: {rate:.0f} polls a second (aim 300), {failures} failed, the slowest took "
        f"{1e3 * slowest:.0f} ms" + " !" * (rate < 300 or failures > 0),
        flush=True,
    )


ROWS: dict[str, Callable[[str, Path, bool], None]] = {
    "empty": empty,
    "files": files,
    "request": request,
    "delivered": delivered,
    "many": many,
    "into": into,
    "polls": polled,
}

if __name__ == "__main__":
    main()
