"""Compare the cost of operations in a small dataset or connection with that in a large one.

    python benchmarks/growth.py [--quick] [--folder DIR]

Small and large take turns in one run, and the figures are minima. The ratio should be near 1 for
operations that do not concern existing chunks or datasets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dosna as dn

AIM = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller, within some seconds")
    parser.add_argument("--folder", type=Path, help="where files are written (a temporary one)")
    options = parser.parse_args()
    small, large = (50, 1000) if options.quick else (100, 9000)
    with tempfile.TemporaryDirectory(prefix="dosna-", dir=options.folder) as folder:
        for backend in ("ram", "hdf5", "file"):
            place = Path(folder) / backend
            place.mkdir()
            with dn.Connection(str(place), backend=backend, engine="cpu") as con:
                appending(con, backend, small, large)
        creating(10, 1000 if options.quick else 10_000)
        for backend in ("ram", "hdf5", "file"):
            with dn.Connection(str(Path(folder) / backend), backend=backend, engine="cpu") as con:
                sparse(con, backend)
    return 0


def appending(con: dn.Connection, backend: str, small: int, large: int) -> None:
    """Append and resize along the first axis, at few chunks and at many."""
    made = {}
    for count in (small, large):
        data = np.zeros((count, 8), "f4")
        made[count] = con.create_dataset(f"x{count}", data=data, chunk_size=(1, 8))
    row = np.ones((1, 8), "f4")
    for what, work in {
        "append a chunk": lambda ds: ds.append(row),
        "grow by a chunk": lambda ds: ds.resize((ds.shape[0] + 1, 8)),
        "shrink by a chunk": lambda ds: ds.resize((ds.shape[0] - 1, 8)),
    }.items():
        times: dict[int, list[float]] = {small: [], large: []}
        for _ in range(12):
            for count, ds in made.items():
                times[count].append(took(lambda ds=ds, work=work: work(ds)))
        show(f"{backend}: {what}", f"{small} chunks", times[small], f"{large}", times[large])


def creating(few: int, many: int) -> None:
    """Create a dataset in memory beside few others, and beside many."""
    times: dict[int, list[float]] = {few: [], many: []}
    with dn.Connection("few", backend="ram") as one, dn.Connection("many", backend="ram") as other:
        for con, count in ((one, few), (other, many)):
            for n in range(count):
                con.create_dataset(f"entry/scan{n}/data", shape=(1,), dtype="f4")
        for n in range(50):
            for con, count in ((one, few), (other, many)):
                name = f"entry/more{n}/data"
                times[count].append(
                    took(lambda con=con, name=name: con.create_dataset(name, (1,), "f4"))
                )
                con.del_dataset(name)
    show("ram: create a dataset", f"beside {few}", times[few], f"{many}", times[many])


def sparse(con: dn.Connection, backend: str) -> None:
    """List, shrink and clear an array of (2**31, 2**31) with three written chunks."""
    side = 2**31
    ds = con.create_dataset("sparse", shape=(side, side), dtype="u1", chunk_size=(1024, 1024))
    for at in (0, side // 2, side - 1):
        ds[at, at] = 1
    parts = {
        "list": ds.written_chunks,
        "shrink": lambda: ds.resize((side // 2, side)),
        "clear": ds.clear,
    }
    print(f"{backend}: a (2^31, 2^31) array of three chunks (aim: less than 1 s each)")
    for what, work in parts.items():
        print(f"    {what}: {1e3 * took(work):.1f} ms")


def took(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def show(what: str, small: str, few: list[float], large: str, many: list[float]) -> None:
    a, b = 1e3 * min(few), 1e3 * min(many)
    print(f"{what}: {small} {a:.3f} ms; {large} {b:.3f} ms, {b / a:.2f} x (aim {AIM})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
