"""Measure work on an S3 server that answers 503 SlowDown above a fixed rate of requests.

Run ``python benchmarks/throttle.py [--quick]``; it needs what ``run_tests.sh --install`` installs.
The server is a mock on loopback, behind a proxy that hands on as many requests a second as a row
says. The share is that of the handed-on requests in what the proxy would have taken from the first
refusal on; wasted are those that it refused, and those of them that came in the first second are
in brackets. Two processes work at the same time, on half of the data each. boto3 writes objects by
16 threads, with its own limit (``retries={"mode": "adaptive"}``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import h5py
import numpy as np
from botocore.config import Config
from services import aws_environment
from services.moto import start_moto
from services.proxy import Proxy, Throttle
from services.s3 import make_bucket
from timing import OURS

import dosna as dn

IN_FLIGHT = 16
WIDTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    quick = parser.parse_args().quick
    with (
        tempfile.TemporaryDirectory() as folder,
        aws_environment("any", "any"),
        start_moto() as url,
        Proxy(url) as proxy,
    ):
        bucket = make_bucket(proxy.url)
        for rate in (50,) if quick else (50, 150):
            count = rate * (6 if quick else 20)
            for name, work in WORK.items():
                for processes in (1, 2):
                    row(proxy, bucket, Path(folder), (name, work), rate, count, processes)


def connect(url: str, bucket: str, name: str) -> dn.Connection:
    return dn.Connection(name, backend="s3", engine="cpu", endpoint_url=url, bucket=bucket)


def load(url: str, bucket: str, name: str, count: int, path: str) -> None:
    with connect(url, bucket, name) as con:
        ds = con.create_dataset("loaded", (count, WIDTH), "f4", chunk_size=(1, WIDTH))
        ds.load(np.ones((count, WIDTH), np.float32))


def apply_map(url: str, bucket: str, name: str, count: int, path: str) -> None:
    """Read and write half as many chunks."""
    with connect(url, bucket, name) as con:
        con["source"].map(np.negative, "mapped")


def ingest(url: str, bucket: str, name: str, count: int, path: str) -> None:
    with connect(url, bucket, name) as con:
        con.ingest(path, chunk_size=(1, WIDTH))


def by_boto3(url: str, bucket: str, name: str, count: int, path: str) -> None:
    client = boto3.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(
            max_pool_connections=IN_FLIGHT, retries={"mode": "adaptive", "total_max_attempts": 20}
        ),
    )
    body = bytes(4 * WIDTH)

    def put(number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"{name}/{number}", Body=body)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(put, range(count)))


Work = Callable[[str, str, str, int, str], None]
WORK: dict[str, Work] = {
    f"{OURS} load": load,
    f"{OURS} map": apply_map,
    f"{OURS} ingest": ingest,
    "boto3 put": by_boto3,
}


def failed(work: Work, *arguments: Any) -> str:
    """Do the work in another process, and return its error, or an empty text."""
    try:
        work(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def row(
    proxy: Proxy,
    bucket: str,
    folder: Path,
    named: tuple[str, Work],
    rate: int,
    count: int,
    processes: int,
) -> None:
    """Print what was reached by a number of processes."""
    label, work = named
    each = count // processes
    names = [f"{label.replace(' ', '-')}-{rate}-{processes}-{n}" for n in range(processes)]
    path = folder / "source.h5"
    values = np.ones((each, WIDTH), np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, chunks=(1, WIDTH))
    if work is apply_map:
        for name in names:
            with connect(proxy.url, bucket, name) as con:
                con.create_dataset("source", data=values[: each // 2], chunk_size=(1, WIDTH))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes) as pool:
        pool.map(time.sleep, [0.1] * processes)  # so that all have begun
        proxy.fault = throttle = Throttle(rate)
        arguments = [(work, proxy.url, bucket, name, each, str(path)) for name in names]
        found = pool.starmap(failed, arguments, chunksize=1)
        proxy.reset()
    first = throttle.refused[0] if throttle.refused else throttle.taken[0]
    taken = sum(at > first for at in throttle.taken)
    seconds = throttle.taken[-1] - first
    early = sum(at < first + 1 for at in throttle.refused)
    wasted, total = len(throttle.refused), len(throttle.refused) + len(throttle.taken)
    errors = [error for error in found if error]
    print(
        f"{label}, {rate} requests/s, {processes} process{'es' * (processes > 1)}: "
        f"share {taken / (rate * seconds):.2f} (aim 0.85), "
        f"wasted {wasted / total:.1%} of {total} (aim 10%; {early} of {wasted} at first), "
        f"failed {len(errors)} {errors[:1] or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
