"""Compare ingest of HDF5 files with copying their bytes, a loop over h5py, and dask.

Run ``python benchmarks/ingest.py [--quick] [--folder F]``; it needs what ``run_tests.sh
--install`` installs. Each contestant makes an uncompressed Zarr array without checksums from one
file, in turn, in rounds; the shortest times count. ``x`` is dosna's time divided by theirs.

Then come files of thousands of arrays of 24 bytes, in a group as MATLAB has it. The bare loop
visits and reads them by h5py, and writes the two files of a Zarr array for each, with one syncfs
at the end, as dosna does.

The last rows are of many small arrays in memory that become datasets in a bucket of one radosgw
on loopback, with and without a proxy that delays each request. The bare loops put the two objects
that a dataset consists of.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import dask
import dask.array
import h5py
import numpy as np
import obstore
import zarr
from obstore.store import S3Store
from services import aws_environment, start_ceph
from services.proxy import Proxy
from timing import minima

import dosna as dn
from dosna.io.files import sync_file_system

Work = Callable[[], object]
COPY_BYTES = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    planes = 16 if options.quick else 128
    seconds = 0.1 if options.quick else 10.0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for layout in LAYOUTS:
            row(Path(folder), layout, planes, seconds)
        for count in (250, 1000) if options.quick else (1000, 4000, 16_000):
            many(Path(folder), count, seconds)
    with start_ceph("--gateway") as ceph, aws_environment(ceph.access_key, ceph.secret_key):
        for delay in (0.0, 0.02):
            with Proxy(ceph.endpoint_url, lambda _, delay=delay: delay or None) as proxy:
                small(proxy.url, delay, 64 if options.quick else 512, seconds)


LAYOUTS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "contiguous": ({}, (16, 256, 256)),
    "contiguous, planes": ({}, (1, 1024, 1024)),
    "chunked": ({"chunks": (1, 1024, 1024)}, (1, 1024, 1024)),
    "chunked, across": ({"chunks": (1, 1024, 1024)}, (16, 256, 256)),
    "gzip": ({"chunks": (1, 1024, 1024), "compression": "gzip"}, (1, 1024, 1024)),
    "gzip and shuffle": (
        {"chunks": (16, 256, 256), "compression": "gzip", "shuffle": True},
        (16, 256, 256),
    ),
}


def row(folder: Path, layout: str, planes: int, seconds: float) -> None:
    """Print the times for one layout of the file."""
    options, chunks = LAYOUTS[layout]
    shape = (planes, 1024, 1024)
    path = folder / "scan.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        made = file.create_dataset("data", shape, "u2", **options)
        for start in range(0, planes, 16):
            made[start : start + 16] = random.poisson(200, (16, *shape[1:]))
    (folder / "store").mkdir()

    def ingest(engine: str, jobs: int) -> Work:
        kw: dict[str, Any] = {"engine": engine}
        if engine == "joblib":
            kw["engine_kw"] = {"njobs": jobs}

        def work() -> None:
            # As the others do, it does not wait for the disk.
            store = str(folder / "store")
            with dn.Connection(store, backend="file", ordered=False, **kw) as con:
                con.ingest(str(path), chunk_size=chunks, checksum=False)

        return work

    def delete() -> None:
        with dn.Connection(str(folder / "store"), backend="file") as con:
            con.del_dataset("data")

    def copy() -> None:
        with open(path, "rb", 0) as source, open(folder / "copy", "wb", 0) as target:
            buffer = bytearray(COPY_BYTES)
            while count := source.readinto(buffer):
                target.write(memoryview(buffer)[:count])

    def make() -> Any:
        return zarr.create_array(
            folder / "peer.zarr", shape=shape, chunks=chunks, dtype="u2", compressors=None
        )

    def loop() -> None:
        with h5py.File(path) as file:
            source, target = file["data"], make()
            for box in boxes(shape, chunks):
                target[box] = source[box]

    def with_dask() -> None:
        with h5py.File(path) as file, dask.config.set(scheduler="threads", num_workers=2):
            dask.array.from_array(file["data"], chunks=chunks).to_zarr(make())

    times = minima(
        {
            "dosna": ingest("cpu", 1),
            "dosna, 2 threads": ingest("joblib", 2),
            "copy of bytes": copy,
            "h5py loop": loop,
            "dask, 2 threads": with_dask,
        },
        seconds,
        {
            "dosna": delete,
            "dosna, 2 threads": delete,
            "copy of bytes": lambda: os.unlink(folder / "copy"),
            "h5py loop": lambda: shutil.rmtree(folder / "peer.zarr"),
            "dask, 2 threads": lambda: shutil.rmtree(folder / "peer.zarr"),
        },
    )
    best = min(times["dosna"], times["dosna, 2 threads"])
    size = planes << 21
    print(f"{layout}, to chunks of {chunks}: {size / 1e6:.0f} MB", flush=True)
    for name, time in times.items():
        ratio = "" if name.startswith("dosna") else f", {best / time:.2f} x"
        print(f"    {name}: {size / time / 1e6:.0f} MB/s{ratio}", flush=True)
    print(
        f"    two threads: {times['dosna'] / times['dosna, 2 threads']:.2f} times one", flush=True
    )
    shutil.rmtree(folder / "store")


def many(folder: Path, count: int, seconds: float) -> None:
    """Print the times for a file of many small arrays into memory and into folders."""
    path = folder / "many.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("#refs#")
        for number in range(count):
            group[f"x{number:05d}"] = np.arange(3.0)

    def visit() -> dict[str, np.ndarray]:
        found = {}

        def read(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item[()]

        with h5py.File(path) as file:
            file.visititems(read)
        return found

    def write() -> None:
        for name, values in visit().items():
            (folder / "peer" / name / "c").mkdir(parents=True)
            (folder / "peer" / name / "zarr.json").write_bytes(b"x" * 1000)
            (folder / "peer" / name / "c/0").write_bytes(values.tobytes())
        place = os.open(folder, os.O_RDONLY)
        try:
            sync_file_system(place)
        finally:
            os.close(place)

    def ingest(backend: str) -> Work:
        def work() -> None:
            (folder / backend).mkdir(exist_ok=True)
            with dn.Connection(str(folder / backend), backend=backend, engine="cpu") as con:
                con.ingest(str(path))

        return work

    def forget() -> None:
        with dn.Connection(str(folder / "ram"), backend="ram", engine="cpu") as con:
            for name in list(con):
                con.del_dataset(name)

    times = minima(
        {
            "dosna, ram": ingest("ram"),
            "dosna, file": ingest("file"),
            "dosna, hdf5": ingest("hdf5"),
            "h5py, visited and read": visit,
            "… and two files each": write,
        },
        seconds,
        {
            "dosna, ram": forget,
            "dosna, file": lambda: shutil.rmtree(folder / "file"),
            "dosna, hdf5": lambda: shutil.rmtree(folder / "hdf5"),
            "… and two files each": lambda: shutil.rmtree(folder / "peer"),
        },
    )
    peers = {"dosna, ram": "h5py, visited and read", "dosna, file": "… and two files each"}
    print(f"{count} arrays of 24 bytes in a file of HDF5", flush=True)
    for name, time in times.items():
        ratio = f", {time / times[peers[name]]:.2f} x {peers[name]}" if name in peers else ""
        print(f"    {name}: {1000 * time / count:.3f} ms an array{ratio}", flush=True)


def small(url: str, delay: float, count: int, seconds: float) -> None:
    """Print the times for many small arrays into S3."""
    client = boto3.Session().client("s3", endpoint_url=url, region_name="us-east-1")
    bucket = f"small-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket)
    objects = S3Store(
        bucket,
        endpoint=url,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    arrays = {f"array{n}": np.arange(n, n + 1000.0) for n in range(count)}
    runs = itertools.count()

    def ingest() -> None:
        with dn.Connection("ours", backend="s3", endpoint_url=url, bucket=bucket) as con:
            con.ingest(arrays, f"run{next(runs)}", checksum=False)

    def put_both(put: Callable[[str, bytes], object]) -> Callable[[str], None]:
        def work(name: str) -> None:
            put(f"theirs/{name}/zarr.json", b"x" * 1000)
            put(f"theirs/{name}/c/0", arrays[name].tobytes())

        return work

    by_obstore = put_both(lambda key, data: obstore.put(objects, key, data, use_multipart=False))
    by_boto = put_both(lambda key, data: client.put_object(Bucket=bucket, Key=key, Body=data))
    with ThreadPoolExecutor(16) as pool:
        times = minima(
            {
                "dosna": ingest,
                "bare obstore, 16 at a time": lambda: list(pool.map(by_obstore, arrays)),
                "bare boto3 loop": lambda: list(map(by_boto, arrays)),
            },
            seconds,
        )
    print(f"{count} arrays of 8 kB into S3, {1000 * delay:.0f} ms for a request", flush=True)
    for name, time in times.items():
        ratio = "" if name == "dosna" else f", {times['dosna'] / time:.2f} x"
        print(f"    {name}: {1000 * time / count:.2f} ms an array{ratio}", flush=True)
    client.close()


def boxes(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Return the boxes of the chunks of an array."""
    grid = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
    return [
        tuple(slice(s, s + c) for s, c in zip(at, chunks, strict=True))
        for at in np.ndindex(*map(len, grid))
        for at in [tuple(g[i] for g, i in zip(grid, at, strict=True))]
    ]


if __name__ == "__main__":
    main()
