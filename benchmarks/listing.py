"""Compare listing many datasets with the store's own list of everything that is there.

Run ``python benchmarks/listing.py [--datasets N] [--folder PATH] [--backends …]``; it needs what
``run_tests.sh --install`` installs. The datasets have one chunk each, in 20 groups. On all
backends but ram, those beyond the first hundred are copies of the files or objects of one of
these. The own list is the sorted keys of a dict, a walk through all folders, the pages of boto3,
or librados' list of the pool. ``open`` is the time to open one of the datasets, another each
time, and one of ten that are alone in another place. Times are the shortest of rounds in which
everybody works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from services import aws_environment, start_ceph
from services.s3 import make_client
from timing import OURS, minima

import dosna as dn
from dosna.backends.ceph.names import ENTRIES

BACKENDS = ["ram", "file", "hdf5", "s3", "ceph"]
AIM = 2.0
SECONDS = 5.0
FEW = 10
INGESTED = 100
PAGE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", type=int, default=10_000)
    parser.add_argument("--folder", help="where files are; a temporary folder by default")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    options = parser.parse_args()
    count, backends = options.datasets, options.backends
    if "ram" in backends:
        names = dict.fromkeys(f"run/group{n % 20}/d{n}" for n in range(count))
        row(count, "listing", lambda: sorted(names), "ram")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for backend in [name for name in ("file", "hdf5") if name in backends]:
            place = f"{folder}/{backend}"
            os.makedirs(place)
            os.makedirs(f"{place}-few")
            row(count, place, lambda place=place: walk(place), backend)
    if not {"s3", "ceph"} & set(backends):
        return
    with (
        start_ceph("--gateway", "--pool=kit", "--pool=kit-few") as ceph,
        aws_environment(ceph.access_key, ceph.secret_key),
    ):
        client = make_client(ceph.endpoint_url)
        client.create_bucket(Bucket="out")
        pages = client.get_paginator("list_objects_v2")

        def keys() -> list[str]:
            found = pages.paginate(Bucket="out", Prefix="x/")
            return [item["Key"] for page in found for item in page["Contents"]]

        where: dict[str, Any] = {"endpoint_url": ceph.endpoint_url, "bucket": "out"}
        if "s3" in backends:
            row(count, "x", keys, "s3", **where)
        if "ceph" in backends:
            row(count, "kit", None, "ceph", conffile=ceph.conf)


def row(
    count: int, place: str, own: Callable[[], object] | None, backend: str, **options: Any
) -> None:
    """Print a row for one backend."""
    names = [f"group{n % 20}/d{n}" for n in range(count)]
    first = names if backend == "ram" else names[:INGESTED]
    arrays = {name: np.zeros(2) for name in first}
    few = {f"group{n}/d{n}": np.zeros(2) for n in range(FEW)}
    options |= {"backend": backend, "engine": "cpu"}
    with dn.Connection(place, **options) as con, dn.Connection(f"{place}-few", **options) as small:
        small.ingest(few, "run")
        begin = time.perf_counter()
        con.ingest(arrays, "run")
        if more := names[len(first) :]:
            copy(con, backend, place, f"run/{names[1]}", [f"run/{name}" for name in more])
        made = time.perf_counter() - begin
        if own is None:
            objects = con.instance.raw_store._handle().objects
            own = lambda: [found.key for found in objects.list_objects()]  # noqa: E731
        assert len(list(con)) == count
        best = minima({OURS: lambda: list(con), "own": own}, SECONDS)
        many, ten = (cycle(f"run/{name}" for name in found) for found in (names, few))
        best |= minima({"many": lambda: con[next(many)], "few": lambda: small[next(ten)]}, 2.0)
    ratio = best[OURS] / best["own"]
    print(
        f"{backend}, {count} datasets: dosna {best[OURS] * 1e3:.1f} ms; own list "
        f"{best['own'] * 1e3:.1f}, {ratio:.2f} x (aim {AIM:g}{'!' if ratio > AIM else ''}); open "
        f"{best['many'] * 1e3:.2f}, of {FEW} {best['few'] * 1e3:.2f}; made in {made:.0f} s",
        flush=True,
    )


def copy(con: dn.Connection, backend: str, place: str, name: str, copies: list[str]) -> None:
    """Copy what is stored for a dataset, under other names."""
    if backend in ("file", "hdf5"):
        for other in copies:
            shutil.copytree(f"{place}/{name}", f"{place}/{other}")
        return
    store = con.instance.raw_store
    folder = con.instance.document(name).removesuffix("zarr.json")
    parts = {key: bytes(store.get(key).data) for key in store.list(folder)}
    assert len(parts) == 2
    keys = [(part.replace(name, other), part) for other in copies for part in parts]
    store.for_each(lambda key: store.put(key[0], parts[key[1]]), keys)
    if backend == "ceph":
        (entry,) = store.entries_of(ENTRIES, [f"+{name}"]).values()
        for begin in range(0, len(copies), PAGE):
            page = copies[begin : begin + PAGE]
            store.change_entries(ENTRIES, {}, {f"+{other}": entry for other in page})


def walk(path: str) -> int:
    """Count all files and folders below a folder."""
    found = 0
    with os.scandir(path) as entries:
        for entry in entries:
            found += 1 + (walk(entry.path) if entry.is_dir(follow_symlinks=False) else 0)
    return found


if __name__ == "__main__":
    main()
