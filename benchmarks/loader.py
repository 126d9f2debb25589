"""Compare loading many small files with a plain loop that gets each object's bytes.

Run ``python benchmarks/loader.py [--quick] [--files N] [--latency MS ...]``; it needs what
``run_tests.sh --install`` installs. A Ceph gateway holds the files. The loops get each object by
boto3, or by obstore; the bare loops make the same requests as the loader, in the same order and
with as many under way, and do nothing else: no loader can be faster. The loader makes two datasets
of each file, in a folder or in a bucket, in one or two processes with some files at a time.
``x`` is the time of a file while all processes work, divided by that of the loop over boto3 with
the same latency. The latency is the milliseconds that each request waits, like a request to a
remote server. ``--folder /dev/shm`` leaves out the disk. ``--below scans/7/`` gives the files keys
in folders, as most have.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from services import aws_environment, start_ceph
from services.proxy import Proxy
from services.s3 import make_client

from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.loader import Config, open_inventory, watch

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer files, one round")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--latency", type=float, nargs="*", default=[0, 20], metavar="MS")
    parser.add_argument("--below", default="", help="the folders of the bucket that files are in")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    files, rounds = (40, 1) if options.quick else (options.files, 2)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        start_ceph("--gateway") as ceph,
        aws_environment(ceph.access_key, ceph.secret_key),
    ):
        client = make_client(ceph.endpoint_url)
        for bucket in ("raw", "out"):
            client.create_bucket(Bucket=bucket)
        for number in range(files):
            key = f"{options.below}{number}.h5"
            client.put_object(Bucket="raw", Key=key, Body=image(number))
        for latency in options.latency:
            with reached(ceph.endpoint_url, latency / 1000) as url:
                table(Path(folder), url, files, rounds, latency, options.below)


@contextmanager
def reached(url: str, seconds: float) -> Iterator[str]:
    """Yield the URL by which a server is reached with a latency."""
    if not seconds:
        yield url
        return
    with Proxy(url, lambda request: seconds) as proxy:
        yield proxy.url


def image(number: int) -> bytes:
    """Return the bytes of a file with an array of 4 KiB, a number, and two groups."""
    import h5py

    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        random = np.random.default_rng(number)
        file["entry/data/frame"] = random.integers(0, 4000, (32, 64), "u2")
        file["entry/energy"] = 12.4
    return written.getvalue()


def table(folder: Path, url: str, files: int, rounds: int, latency: float, below: str) -> None:
    """Print the times with one latency."""
    client, other = make_client(url), open_client(S3Options(url), "raw")

    def by_boto3() -> None:
        for number in range(files):
            client.get_object(Bucket="raw", Key=f"{below}{number}.h5")["Body"].read()

    def by_obstore() -> None:
        for number in range(files):
            other.get(f"raw/{below}{number}.h5")

    # A document of a dataset is put when its chunk and the groups above it are there.
    first = ("zarr.json", "entry/zarr.json", "entry/data/zarr.json")
    first += ("entry/data/frame/c/0/0", "entry/energy/c")
    last = ("entry/data/frame/zarr.json", "entry/energy/zarr.json")

    def bare(jobs: int) -> None:
        here = str(next(_serial))

        def load(number: int) -> None:
            there = f"{here}/{number}.h5/"
            looked = looks.submit(other.has_below, "out", there)
            other.get(f"raw/{below}{number}.h5")
            looked.result()
            for keys in (first, last):
                list(puts.map(lambda k: other.put_once(f"out/{there}{k}", data, "create"), keys))

        data = bytes(700)
        with (
            ThreadPoolExecutor(jobs) as gets,
            ThreadPoolExecutor(jobs) as looks,
            ThreadPoolExecutor(16) as puts,
        ):
            list(gets.map(load, range(files)))

    def timed(work: Callable[[], None]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    work: dict[str, Callable[[], float]] = {
        "loop over boto3": lambda: timed(by_boto3),
        "loop over obstore": lambda: timed(by_obstore),
        "bare loop, 4 at a time": lambda: timed(lambda: bare(4)),
        "bare loop, 16 at a time": lambda: timed(lambda: bare(16)),
    }
    for target in ("file", "s3"):
        for processes, jobs in ((1, 4), (2, 4), (1, 16)):
            name = f"into {target}, {processes} x {jobs} at a time"
            work[name] = lambda t=target, p=processes, j=jobs: (
                files * loading(folder, url, t, p, j)
            )
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, do in work.items():
            best[name] = min(best[name], do())
    print(f"{files} files, {latency:g} ms of latency", flush=True)
    for name, seconds in best.items():
        ratio = seconds / best["loop over boto3"]
        print(f"    {name}: {seconds / files * 1000:.2f} ms a file, {ratio:.2f} x", flush=True)


_serial = iter(range(1 << 30))


def loading(folder: Path, url: str, target: str, processes: int, jobs: int) -> float:
    """Load all files; return the seconds for each file."""
    here = folder / str(next(_serial))
    here.mkdir()
    where = {"file": f"file:{here}/out", "s3": f"s3://out/{here.name}?endpoint_url={url}"}
    given = {
        "src_bucket": "raw",
        "aws_s3_gateway": url,
        "target": where[target],
        "inventory": f"sqlite:///{here}/inventory.sqlite",
        "jobs": str(jobs),
        "log_level": "warning",
    }
    config = Config.read(environ={}, **given)
    watch(config, once=True)
    options = [word for k, v in given.items() for word in (f"--{k.replace('_', '-')}", v)]
    command = [sys.executable, "-m", "dosna", "loader", "load", "--once", "--quiet", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        for _ in range(processes)
    ]
    for process in running:
        if process.wait():
            raise SystemExit("a loader failed")
    with open_inventory(config) as inventory:
        rows = inventory.rows()
    shutil.rmtree(here)
    assert all(row.load_status == "done" for row in rows)
    # Counted from the start of the last process.
    began: dict[str | None, float] = {}
    for row in rows:
        at = row.load_start or 0.0
        began[row.load_worker] = min(at, began.get(row.load_worker, at))
    ended = sorted(f for row in rows if (f := row.load_finish or 0.0) > max(began.values()))
    return (ended[-1] - max(began.values())) / len(ended)


if __name__ == "__main__":
    main()
