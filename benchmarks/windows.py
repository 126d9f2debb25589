"""Compare work over all chunks with a plain read or write, on a gateway that answers late.

Run ``python benchmarks/windows.py [--quick] [--latency MS]``; it needs what ``run_tests.sh
--install`` installs. A proxy on loopback, in a process of its own, hands each request to radosgw
after 30 ms. dosna works with engine cpu, and has 16 requests under way, or 16 reads and 16 writes;
dask works with 16 threads, and with 32. All work on the same float32 array in chunks of 1 MiB. A
row is one kind of work; the target is 1.3 times what the plain ``ds[...]`` of the same bytes
takes, for reading, for writing into the same chunks, or for both together; for exports together
with writing the bytes to a file of the local disk. An ingest with "own chunks" chooses them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import dask
import dask.array
import numpy as np
import zarr
from late import late
from obstore.store import S3Store
from services import Ceph, aws_environment, start_ceph
from timing import minima
from zarr.core.sync import sync
from zarr.storage import ObjectStore

import dosna as dn

BUCKET = "windows"
CHUNK = (1, 512, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="64 chunks only")
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--only", nargs="+", default=[], help="kinds of work, such as map")
    parser.add_argument("--rounds", type=int, help="default 3, or 1 for many chunks")
    parser.add_argument("--latency", type=float, default=30, help="milliseconds for each request")
    options = parser.parse_args()
    with start_ceph("--gateway") as ceph, aws_environment(ceph.access_key, ceph.secret_key):
        boto3.Session().client("s3", endpoint_url=ceph.endpoint_url).create_bucket(Bucket=BUCKET)
        with late(ceph.endpoint_url, options.latency / 1000) as url:
            for chunks in (64,) if options.quick else options.chunks:
                rows(ceph, url, chunks, options.only, options.rounds)


def remove(path: str) -> None:
    """Remove a file or a folder."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def rows(ceph: Ceph, url: str, chunks: int, only: list[str], rounds: int | None) -> None:
    """Print the rows for an array of so many chunks, and the bases of their ratios."""
    shape = (chunks, *CHUNK[1:])
    values = np.random.default_rng(0).random(shape, np.float32)
    out = values.copy()  # not empty: memory that was never touched costs more
    store = ObjectStore(
        S3Store(
            BUCKET,
            endpoint=url,
            access_key_id=ceph.access_key,
            secret_access_key=ceph.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )
    )
    with (
        dn.Connection(
            f"of{chunks}", backend="s3", engine="cpu", endpoint_url=url, bucket=BUCKET
        ) as con,
        tempfile.TemporaryDirectory() as folder,
    ):
        ds = con.create_dataset("a", shape, "f4", chunk_size=CHUNK, data=values)
        other = ds.clone("b", data=True)
        theirs = zarr.open_array(store, path=f"of{chunks}/a")
        np.save(f"{folder}/values.npy", values)
        con.ingest(f"{folder}/values.npy", "c")
        cubes = con["c"]

        def dask_of(array: Any) -> Any:
            return dask.array.from_array(array, chunks=CHUNK)

        def with_dask(work: Callable[[], Any], threads: int = 16) -> Callable[[], Any]:
            def run() -> Any:
                with dask.config.set(scheduler="threads", num_workers=threads):
                    return work()

            return run

        def made() -> Any:
            options = {"shape": shape, "chunks": CHUNK, "dtype": "f4", "compressors": None}
            return zarr.create_array(store, name="z", **options)

        def loop() -> None:
            target = made()
            for n in range(chunks):
                target[n] = np.sqrt(theirs[n])

        # As those of dosna, these make their output first.
        def root() -> None:
            dask.array.store(np.sqrt(dask_of(theirs)), made(), lock=False)

        makes: dict[str, Callable[[], Any]] = {
            "map": lambda: ds.map(np.sqrt, "map"),
            "copy": lambda: ds.copy(con, "copy"),
            "clone": lambda: ds.clone("clone", data=True),
            "ingest": lambda: con.ingest(f"{folder}/values.npy", "ingest", chunk_size=CHUNK),
            "ingest, own chunks": lambda: con.ingest(f"{folder}/values.npy", "ingest, own chunks"),
        }
        works: dict[str, Callable[[], Any]] = {
            "read": lambda: ds.read(out=out),
            "write": lambda: ds.__setitem__(..., values),
            "write, own chunks": lambda: cubes.__setitem__(..., values),
            "sum": ds.sum,
            "verify": ds.verify,
            "compare": lambda: ds.compare(other),
            "apply": lambda: other.apply(np.negative),
            **makes,
            "dask sum": with_dask(lambda: dask_of(theirs).sum().compute()),
            "dask map": with_dask(root),
            "dask map, 32 threads": with_dask(root, 32),
        }

        def save() -> None:
            with open(f"{folder}/saved", "wb") as file:
                file.write(values)
                os.fsync(file.fileno())

        def write_zarr() -> None:
            os.mkdir(f"{folder}/zarr")
            with dn.Connection(f"{folder}/zarr", backend="file", engine="cpu") as local:
                made = local.create_dataset("a", shape, "f4", chunk_size=CHUNK, data=values)
                made.flush()

        exports = {
            f"export {suffix}": partial(ds.export, f"{folder}/x{suffix}")
            for suffix in (".h5", ".zarr", ".npy")
        }
        works |= {**exports, "save": save, "write .zarr": write_zarr}
        after: dict[str, Callable[[], Any]] = {
            **{name: partial(con.del_dataset, name) for name in makes},
            "dask map": lambda: sync(store.delete_dir("z")),
            "dask map, 32 threads": lambda: sync(store.delete_dir("z")),
            **{name: partial(remove, work.args[0]) for name, work in exports.items()},
            "write .zarr": lambda: shutil.rmtree(f"{folder}/zarr"),
        }
        if only:
            wanted = {"read", "write", "write, own chunks", "save", "write .zarr", *only}
            works = {name: work for name, work in works.items() if name in wanted}
        best = minima(works, 1, after, rounds or (3 if chunks < 1000 else 1))
        if chunks < 1000 and not only:  # takes minutes otherwise
            begin = time.perf_counter()
            loop()
            best["zarr loop map"] = time.perf_counter() - begin
            sync(store.delete_dir("z"))
        read, write = best["read"], best["write"]
        both = {"apply", "copy", "clone", *(name for name in best if name.endswith("map"))}
        both.add("dask map, 32 threads")
        bases = {
            **dict.fromkeys(("sum", "verify", "dask sum"), read),
            **dict.fromkeys(exports, read + best["save"]),
            "export .zarr": read + best["write .zarr"],
            "compare": 2 * read,
            "ingest": write,
            "ingest, own chunks": best["write, own chunks"],
            **dict.fromkeys(both, read + write),
        }
        for name in ("a", "b", "c"):
            con.del_dataset(name)
        own = f"in own chunks {best['write, own chunks']:.2f} s"
        print(f"{chunks} chunks of 1 MiB: read {read:.2f} s, write {write:.2f} s, {own}")
        for name in (name for name in best if name in bases):
            seconds = best[name]
            print(f"  {name}: {seconds:.2f} s, {seconds / bases[name]:.2f} x plain")
        for name in ("sum", "map"):
            for other in (each for each in best if each.startswith((f"dask {name}", "zarr loop"))):
                if name in best and name in other:
                    ratio = best[name] / best[other]
                    print(f"  {name}: {ratio:.2f} x {other} over zarr and obstore")


if __name__ == "__main__":
    main()
