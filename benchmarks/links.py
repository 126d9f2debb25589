"""Compare reading a linked dataset with reading its HDF5 file by dosna's source and by h5py.

Run ``python benchmarks/links.py [--quick] [--folder F]``; it needs what ``run_tests.sh
--install`` installs. All contestants read the same data, in turn, in rounds, with one thread and
from the page cache; the shortest times count. ``x`` is the time of the linked dataset divided by
theirs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import h5py
import numpy as np
from timing import minima

import dosna as dn
from dosna.sources import open_source

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (1, 512, 512)},
    "gzip": {"chunks": (1, 512, 512), "compression": "gzip"},
    "gzip and shuffle": {"chunks": (16, 128, 128), "compression": "gzip", "shuffle": True},
    "zstd": {"chunks": (1, 512, 512), "plugin": "Zstd"},
    "bitshuffle": {"chunks": (1, 512, 512), "plugin": "Bitshuffle"},
}
KEYS: dict[str, Any] = {
    "all": ...,
    "one plane": (5,),
    "a plane across": (slice(None), slice(None), 7),
    "a box": (slice(3, 14), slice(100, 300), slice(200, 400)),
    "one element": (7, 300, 200),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    planes = 16 if options.quick else 128
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for layout, how in LAYOUTS.items():
            row(Path(folder), layout, dict(how), planes, 0.1 if options.quick else 2.0)
        many(Path(folder), 10_000 if options.quick else 1_000_000)


def row(folder: Path, layout: str, how: dict[str, Any], planes: int, seconds: float) -> None:
    """Print the times for one layout of the file."""
    if "plugin" in how:
        import hdf5plugin

        how |= getattr(hdf5plugin, how.pop("plugin"))()
    path = folder / "scan.h5"
    values = np.random.default_rng(0).poisson(200, (planes, 512, 512)).astype("u2")
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, **how)
    print(f"{layout}: {values.nbytes / 1e6:.0f} MB", flush=True)
    with dn.Connection("links", backend="ram") as con, open_source(path) as source:
        shutil.copy(path, folder / "other.h5")
        con.link(path, overwrite=True)
        linked, direct = con["data"], source["data"]
        with h5py.File(folder / "other.h5", rdcc_nbytes=0) as file:
            for what, key in KEYS.items():
                work: dict[str, Callable[[], object]] = {
                    "linked": lambda key=key: linked[key],
                    "source": lambda key=key: direct[key],
                    "h5py": lambda key=key: file["data"][key],
                }
                times = minima(work, seconds)
                ours = times["linked"]
                print(
                    f"    {what}: {ours * 1e6:.0f} µs; "
                    + "; ".join(
                        f"{name} {times[name] * 1e6:.0f}, {ours / times[name]:.2f} x"
                        for name in ("source", "h5py")
                    ),
                    flush=True,
                )
        del con["data"]


def many(folder: Path, count: int) -> None:
    """Print the cost of many chunks."""
    path = folder / "many.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("data", (count, 8), "u1", chunks=(1, 8), compression="gzip")
        for number in range(count):
            data.id.write_direct_chunk((number, 0), zlib.compress(bytes(range(8))))
    (folder / "store").mkdir()
    with dn.Connection(str(folder / "store"), backend="file") as con:
        begin = time.perf_counter()
        con.link(path)
        linked = time.perf_counter()
        con["data"][count // 2]
        read = time.perf_counter()
    size = sum(p.stat().st_size for p in (folder / "store").rglob("*") if p.is_file())
    print(
        f"{count} chunks: linked in {linked - begin:.1f} s, places take {size / 1e6:.2f} MB; "
        f"opened and read one in {(read - linked) * 1e3:.1f} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
