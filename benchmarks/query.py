"""Compare queries of trees with Polars, DuckDB and pyarrow on Parquet, Awkward, and uproot.

Run ``python benchmarks/query.py [--quick] [--only ROW] [--folder F] [--processor-time]``; it needs
what ``run_tests.sh --install`` installs. Everybody has two threads and files in the page cache;
Parquet is compressed as the tree is, in groups of 1 Mi rows. dosna makes Zarr arrays without
checksums, as Parquet has none; `dosna, checked` has those that it makes by default. `bare` is a
plain loop that reads the same bytes and does the least NumPy work (``query_bare.py``). They take
turns; the shortest times count. Aims are ratios to the best of the others.

``--processor-time``, for a machine that others use, is the time of both threads together: who
keeps them busy at the same time is not in it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("POLARS_MAX_THREADS", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import awkward as ak
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import query_bare
import root
import uproot
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet
from timing import minima

import dosna as dn
from dosna import query as dosna_query
from dosna.columns import Branch, Tree

Work = Mapping[str, Callable[[], object]]

GROUP = CHUNK = 1 << 17
THREADS = {"engine": "joblib", "engine_kw": {"njobs": 2}}
LISTS = {"class": "ListOffsetArray", "offsets": "i64", "content": "float32"}


clock: dict[str, Callable[[], float]] = {"now": time.perf_counter}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--only", default="", help="the row: " + ", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    parser.add_argument("--processor-time", action="store_true", help="of all threads together")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)
    if options.processor_time:
        clock["now"] = time.process_time
    pa.set_cpu_count(2)
    duckdb.sql("set threads = 2")
    rounds = 0.1 if options.quick else 10.0
    for name, row in ROWS.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                row(Path(folder), options.quick, rounds)
    return None


def connect(folder: Path, **options: Any) -> dn.Connection:
    folder.mkdir(exist_ok=True)
    con = dn.Connection(str(folder), backend="file", **THREADS, **options)
    con.connect()
    return con


def keep(con: dn.Connection, data: Mapping[str, Any], **options: Any) -> None:
    """Keep columns as the tree ``Events``."""
    branches, entries = [], 0
    for index, (name, values) in enumerate(data.items()):
        parts, form = {"": values}, str(getattr(values, "dtype", ""))
        entries = len(values)
        if isinstance(values, ak.Array):
            layout = ak.to_packed(values).layout
            parts = {
                "/offsets": np.asarray(layout.offsets.data),
                "/content": np.asarray(layout.content.data),
            }
            form = LISTS
        branches.append(Branch(name, form, "", "", index))
        for path, rows in parts.items():
            con.create_dataset(f"Events/{name}{path}", data=rows, chunk_size=CHUNK, **options)
    tree = Tree("test", "Events", entries, tuple(branches), chunk_entries=CHUNK)
    con.set_group_attrs("Events", tree.to_attrs())


def show(row: str, work: Work, seconds: float, aims: Mapping[str, float]) -> dict[str, float]:
    """Print times, and the ratios to those others that have an aim or to the best of all."""
    best = minima(work, seconds, clock=clock["now"])
    ours = best["dosna"]
    times = ", ".join(f"{name} {1e3 * time:.1f} ms" for name, time in best.items())
    ratios = []
    for other, aim in aims.items():
        peers = [n for n in best if not n.startswith(("dosna", "bare"))]
        name = other if other in best else min(peers, key=best.__getitem__)
        ratio = ours / best[name]
        ratios.append(f"{ratio:.2f} x {name} (aim {aim}){' !' * (ratio > aim)}")
    print(f"{row}: {times}; {'; '.join(ratios)}", flush=True)
    return best


def peers(path: Path, column: str, low: float, high: float) -> dict[str, Any]:
    """Return the work of the others: rows of ``low < column <= high``, and three columns."""
    names = ["x1", "x2", "x3"]
    field = arrow_dataset.field(column)

    def polars() -> object:
        found = pl.scan_parquet(path).filter(pl.col(column) > low, pl.col(column) <= high)
        return found.select(names).collect()

    def sql() -> object:
        text = f"from '{path}' where {column} > {low} and {column} <= {high}"
        return duckdb.sql(f"select x1, x2, x3 {text}").to_arrow_table()

    def pyarrow() -> object:
        chosen = (field > low) & (field <= high)
        return arrow_dataset.dataset(path).to_table(columns=names, filter=chosen)

    return {"Polars": polars, "DuckDB": sql, "pyarrow": pyarrow}


def flat(folder: Path, quick: bool, seconds: float) -> None:
    """Select by one of ten columns of float32, with three others in the result."""
    rows = 1 << 20 if quick else 10 << 20
    random = np.random.default_rng(0)
    data = {f"x{n}": random.random(rows, "f4") for n in range(10)}
    for compression, aims in (
        (None, {"0.1": 1.0, "1": 1.0, "10": 1.0, "100": 1.5}),
        ("zstd", {"0.1": 1.2, "1": 1.2, "10": 1.2, "100": 1.2}),
    ):
        path = folder / f"{compression}.parquet"
        parquet.write_table(
            pa.table(data),
            path,
            compression=compression or "none",
            compression_level=None if compression is None else 1,
            use_dictionary=False,
            row_group_size=1 << 20,
        )
        options = {} if compression is None else {"compression": {"name": "zstd", "level": 1}}
        plain, checked = connect(folder / f"{compression}"), connect(folder / f"{compression}c")
        keep(plain, data, checksum=False, **options)
        keep(checked, data, **options)
        for percent, aim in aims.items():
            low = 1 - float(percent) / 100 if percent != "100" else -1.0
            names = ["x1", "x2", "x3"]
            show(
                f"flat {compression or 'uncompressed'} {percent} %",
                {
                    "dosna": plain.query("Events", f"{low} < x0 <= 2", names).to_arrow,
                    "dosna, checked": checked.query("Events", f"{low} < x0 <= 2", names).to_arrow,
                    **peers(path, "x0", low, 2.0),
                },
                seconds,
                {"the best": aim},
            )
        plain.disconnect()
        checked.disconnect()


def zones(folder: Path, quick: bool, seconds: float) -> None:
    """Ask for 0.1 % of a sorted column."""
    rows = 1 << 20 if quick else 10 << 20
    random = np.random.default_rng(0)
    data = {"run": np.arange(rows, dtype="i4")}
    data |= {f"x{n}": random.random(rows, "f4") for n in range(1, 5)}
    path = folder / "sorted.parquet"
    parquet.write_table(
        pa.table(data), path, compression="none", use_dictionary=False, row_group_size=GROUP
    )
    with connect(folder / "tree") as con, connect(folder / "plain") as plain:
        keep(con, data, checksum=False)
        keep(plain, data, checksum=False)
        dosna_query.index(con, "Events")
        low, high = rows // 2, rows // 2 + rows // 1000
        where, names = f"{low} < run <= {high}", ["x1", "x2", "x3"]
        show(
            "zones, a sorted run, 0.1 %",
            {
                "dosna": lambda: con.query("Events", where, names).to_arrow(),
                "dosna without zones": lambda: plain.query("Events", where, names).to_arrow(),
                "bare": query_bare.zones(
                    folder / "tree" / "Events", CHUNK, rows // CHUNK, low, high
                ),
                **peers(path, "run", low, high),
            },
            seconds,
            {"dosna without zones": 0.1, "the best": 1.0},
        )


def lists(folder: Path, quick: bool, seconds: float) -> None:
    """Select events with any muon above 50."""
    entries = 200_000 if quick else 5_000_000
    random = np.random.default_rng(0)
    lengths = random.integers(0, 5, entries)
    muons = ak.unflatten(random.exponential(20, lengths.sum()).astype("f4"), lengths)
    path = folder / "lists.root"
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree("Events", {"Muon_pt": "var * float32"})
        for start in range(0, entries, 500_000):
            tree.extend({"Muon_pt": muons[start : start + 500_000]})

    def with_uproot() -> object:
        with uproot.open(path) as file:
            found = file["Events"].arrays(["Muon_pt"])
        return found[ak.any(found["Muon_pt"] > 50, axis=1)]

    with connect(folder / "tree") as con:
        keep(con, {"Muon_pt": muons}, checksum=False)
        query = con.query("Events", "any(Muon_pt > 50)", ["Muon_pt"])
        show(
            f"lists, any(Muon_pt > 50), {entries} events",
            {
                "dosna": query.to_awkward,
                "bare": query_bare.lists(folder, muons, 50),
                "Awkward in memory": lambda: muons[ak.any(muons > 50, axis=1)],
                "uproot": with_uproot,
            },
            seconds,
            {"Awkward in memory": 0.8, "uproot": 0.1},
        )


def plan(folder: Path, quick: bool, seconds: float) -> None:
    """Parse and plan a query of a tree of 1600 branches."""
    data = {f"branch_{n}": np.zeros(10, "f4") for n in range(1600)}
    with connect(folder / "tree") as con:
        keep(con, data, checksum=False)
        where, names = "branch_5 > 3 && branch_2 < 5 * branch_7", ["branch_1", "branch_9"]
        best = minima(
            {"dosna": lambda: con.query("Events", where, names).scan()},
            seconds,
            clock=clock["now"],
        )
        ours = 1e3 * best["dosna"]
        print(f"plan, 1600 branches: dosna {ours:.1f} ms (aim 20){' !' * (ours > 20)}", flush=True)


def ingest(folder: Path, quick: bool, seconds: float) -> None:
    """Ingest a ROOT file with zones, and without."""
    path = folder / "events.root"
    root.write(path, 1 if quick else 8, uproot.LZ4(1))

    def ingested(name: str) -> Callable[[], object]:
        def work() -> object:
            with connect(folder / name) as con:
                return con.ingest(f"{path}:Events", overwrite=True, checksum=False)

        return work

    def without() -> object:
        with mock.patch("dosna.ingest.running.maker_for", return_value=None):
            return ingested("without")()

    def fresh(work: Callable[[], object], name: str) -> Callable[[], object]:
        def do() -> object:
            subprocess.run(["rm", "-rf", str(folder / name)], check=True)
            return work()

        return do

    work = {"dosna": fresh(ingested("with"), "with"), "without zones": fresh(without, "without")}
    show("ingest of ROOT with zones", work, seconds, {"without zones": 1.03})


def memory(folder: Path, quick: bool, seconds: float) -> None:
    """Measure the memory that a process takes for a result, beyond what it had before."""
    rows = 1 << 20 if quick else 10 << 20
    random = np.random.default_rng(0)
    with connect(folder / "tree") as con:
        keep(con, {f"x{n}": random.random(rows, "f4") for n in range(4)}, checksum=False)
    for percent in (1, 100):
        command = [sys.executable, __file__, "--measure", str(folder / "tree"), str(percent)]
        subprocess.run(command, check=True)


def measure(folder: str, percent: str) -> None:
    """Print the peak of the additional memory of a query."""
    low = 1 - float(percent) / 100 if percent != "100" else -1.0
    with connect(Path(folder)) as con:
        query = con.query("Events", f"x0 > {low}", ["x1", "x2", "x3"])
        con.query("Events", "x0 > 2", ["x1"]).to_arrow()
        before = peak()
        table = query.to_arrow()
        most = peak() - before
    aim = 1.5 * table.nbytes + (64 << 20)
    print(
        f"memory, {percent} %: result {table.nbytes / 2**20:.0f} MiB, at most {most / 2**20:.0f} "
        f"MiB more (aim {aim / 2**20:.0f}){' !' * (most > aim)}",
        flush=True,
    )


def peak() -> int:
    """Return the most bytes of memory that this process has had."""
    lines: Iterable[str] = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


ROWS = {
    "flat": flat,
    "zones": zones,
    "lists": lists,
    "plan": plan,
    "ingest": ingest,
    "memory": memory,
}

if __name__ == "__main__":
    main()
