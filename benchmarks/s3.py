"""Compare dosna's s3 backend with others, on one radosgw on loopback.

Run ``python benchmarks/s3.py [--quick]``; it needs what ``run_tests.sh --install`` installs. Each
row is one array, written and read whole by each contestant in turn, in rounds, after one round
that does not count; the shortest times count. All read into existing memory. dosna, zarr and the
bare loops have 16 requests under way, TensorStore its default of 32 and no cache. The bare loops
have no checksums, and each object holds the bytes of a chunk in memory. One uses obstore's async
functions on the loop of one thread, one reads signed URLs by urllib3 straight into its place.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import numpy as np
import obstore
import tensorstore
import urllib3
import zarr
from botocore.config import Config
from obstore.store import S3Store
from services import Ceph, aws_environment, start_ceph
from timing import OURS
from zarr.core.buffer.cpu import NDBuffer
from zarr.storage import ObjectStore

import dosna as dn

BUCKET = "benchmark"
IN_FLIGHT = 16
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    quick = parser.parse_args().quick
    zarr.config.set({"async.concurrency": IN_FLIGHT})
    with start_ceph("--gateway") as ceph, aws_environment(ceph.access_key, ceph.secret_key):
        client = boto3.Session().client(
            "s3",
            endpoint_url=ceph.endpoint_url,
            region_name="us-east-1",
            config=Config(max_pool_connections=IN_FLIGHT),
        )
        client.create_bucket(Bucket=BUCKET)
        print("MB/s (client CPU in ms for each request); x: dosna's speed divided by theirs")
        for nbytes, count in ((4 << 20, 16 if quick else 32), (256 << 10, 64 if quick else 256)):
            for checksum in (False, True):
                row(ceph, client, nbytes, count, checksum, 3 if quick else 10)


def row(ceph: Ceph, client: Any, nbytes: int, count: int, checksum: bool, rounds: int) -> None:
    """Print a row for chunks of `nbytes` bytes."""
    width = nbytes // 4
    values = np.random.default_rng(0).random((count, width), np.float32)
    out = np.empty_like(values)
    with dn.Connection(
        "benchmark", backend="s3", engine="cpu", endpoint_url=ceph.endpoint_url, bucket=BUCKET
    ) as con:
        name = f"{nbytes}-{checksum}"
        ds = con.create_dataset(name, values.shape, "f4", chunk_size=(1, width), checksum=checksum)
        objects = S3Store(
            BUCKET,
            endpoint=ceph.endpoint_url,
            access_key_id=ceph.access_key,
            secret_access_key=ceph.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        unsigned = S3Store(
            BUCKET,
            endpoint=ceph.endpoint_url,
            access_key_id=ceph.access_key,
            secret_access_key=ceph.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
            unsigned_payload=True,
        )
        path = f"benchmark/{name}"
        theirs = zarr.open_array(ObjectStore(objects), path=path)
        tensors = tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {
                    "driver": "s3",
                    "bucket": BUCKET,
                    "path": path + "/",
                    "endpoint": ceph.endpoint_url,
                    "aws_region": "us-east-1",
                    "aws_credentials": {"type": "environment"},
                },
            }
        ).result()
        pool = ThreadPoolExecutor(IN_FLIGHT)
        keys = [f"bare/{n}" for n in range(count)]
        urls = [
            client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
            for key in keys
        ]
        http = urllib3.PoolManager(maxsize=IN_FLIGHT)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        def put(n: int) -> None:
            obstore.put(unsigned, keys[n], values[n].tobytes(), use_multipart=False)

        def get(n: int) -> None:
            out[n] = np.frombuffer(obstore.get(unsigned, keys[n]).bytes(), np.float32)

        def get_urllib3(n: int) -> None:
            answer = http.request("GET", urls[n], preload_content=False)
            place, done = memoryview(out[n]).cast("B"), 0
            while done < nbytes:
                done += answer.readinto(place[done:]) or nbytes
            answer.release_conn()

        async def get_async(n: int, turns: asyncio.Semaphore) -> None:
            async with turns:
                answer = await obstore.get_async(unsigned, keys[n])
                out[n] = np.frombuffer(await answer.bytes_async(), np.float32)

        async def get_all() -> None:
            turns = asyncio.Semaphore(IN_FLIGHT)
            await asyncio.gather(*(get_async(n, turns) for n in range(count)))

        def put_boto(n: int) -> None:
            client.put_object(Bucket=BUCKET, Key=keys[n], Body=values[n].tobytes())

        def get_boto(n: int) -> None:
            body = client.get_object(Bucket=BUCKET, Key=keys[n])["Body"].read()
            out[n] = np.frombuffer(body, np.float32)

        def all_of(work: Callable[[int], None]) -> Work:
            return lambda: list(pool.map(work, range(count)))

        writing: dict[str, Work] = {
            OURS: lambda: ds.__setitem__(..., values),
            "tensorstore": lambda: tensors.write(values).result(),
            "zarr over obstore": lambda: theirs.__setitem__(..., values),
            "bare obstore": all_of(put),
            "bare boto3": all_of(put_boto),
        }
        reading: dict[str, Work] = {
            OURS: lambda: ds.read(out=out),
            "tensorstore": lambda: tensorstore.array(out).write(tensors).result(),
            "zarr over obstore": lambda: theirs.get_basic_selection(
                ..., out=NDBuffer.from_numpy_array(out)
            ),
            "bare obstore": all_of(get),
            "bare obstore, async": lambda: asyncio.run_coroutine_threadsafe(
                get_all(), loop
            ).result(),
            "bare urllib3": all_of(get_urllib3),
            "bare boto3": all_of(get_boto),
        }
        for what, work in (("write", writing), ("read", reading)):
            report(
                f"{what} {nbytes >> 10} KiB, checksum {checksum}",
                work,
                values.nbytes,
                count,
                rounds,
            )
        np.testing.assert_array_equal(ds[...], values)
        pool.shutdown()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def report(label: str, work: dict[str, Work], nbytes: int, count: int, rounds: int) -> None:
    """Time each contestant's work in turn, and print the shortest times."""
    best = dict.fromkeys(work, float("inf"))
    cpu = dict.fromkeys(work, float("inf"))
    names = list(work)
    for name in names:
        work[name]()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin, used = time.perf_counter(), time.process_time()
            work[name]()
            best[name] = min(best[name], time.perf_counter() - begin)
            cpu[name] = min(cpu[name], time.process_time() - used)
    cells = [
        f"{name} {nbytes / best[name] / 1e6:.0f} ({cpu[name] / count * 1e3:.2f})"
        + ("" if name == OURS else f" {best[name] / best[OURS]:.2f} x")
        for name in names
    ]
    print(f"{label}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
