"""Read planes next to each other from S3, with a cache of decoded chunks and without.

Run ``python benchmarks/planes.py [--quick]``; it needs what ``run_tests.sh --install`` installs.
The volume has 512 x 512 x 512 elements (128 x 128 x 128 with ``--quick``) in chunks of
64 x 64 x 64 float32 with checksums, on one radosgw on loopback. A plane lies across the slow axis,
and all that are read lie in the same layer of chunks, which is in the caches after the round that
does not count. TensorStore reads the same array, with a cache of the same size. Times are of one
plane, read into existing memory: the shortest of rounds in which everybody reads in turn.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import numpy as np
import tensorstore
from services import Ceph, aws_environment, start_ceph
from timing import OURS, minima

import dosna as dn

BUCKET = "planes"
EXTENT = 64
CACHE = 256 << 20
WITHOUT, THEIRS = "dosna without a cache", "TensorStore"
AIMS = {"always": 0.5, "open": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    quick = parser.parse_args().quick
    with start_ceph("--gateway") as ceph, aws_environment(ceph.access_key, ceph.secret_key):
        client = boto3.client("s3", endpoint_url=ceph.endpoint_url, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        with ExitStack() as stack:
            rows(stack, ceph, 128 if quick else 512, 1.0 if quick else 10.0)


def rows(stack: ExitStack, ceph: Ceph, extent: int, seconds: float) -> None:
    """Print a row for each value of `recheck`."""

    def connect(**options: Any) -> dn.Connection:
        con = dn.Connection(
            "benchmark",
            backend="s3",
            engine="cpu",
            endpoint_url=ceph.endpoint_url,
            bucket=BUCKET,
            **options,
        )
        return stack.enter_context(con)

    plain = connect().create_dataset("a", (extent,) * 3, "f4", chunk_size=(EXTENT,) * 3)
    rng = np.random.default_rng(0)
    for start in range(0, extent, EXTENT):
        plain[start : start + EXTENT] = rng.random((EXTENT, extent, extent), np.float32)
    for recheck in ("always", "open"):
        row(
            recheck,
            connect(cache=CACHE, recheck=recheck)["a"],
            plain,
            tensors(ceph, recheck),
            seconds,
        )


def row(recheck: str, ours: dn.Dataset, plain: dn.Dataset, theirs: Any, seconds: float) -> None:
    """Print the times of the contestants, and dosna's divided by each."""
    planes = itertools.cycle(range(1, EXTENT))
    out = np.empty(plain.shape[1:], np.float32)
    target = tensorstore.array(out, copy=False, write=True)
    work: dict[str, Callable[[], object]] = {
        OURS: lambda: ours.read(next(planes), out=out),
        WITHOUT: lambda: plain.read(next(planes), out=out),
        THEIRS: lambda: target.write(theirs[next(planes)]).result(),
    }
    expected = plain[7]
    for read in (ours, theirs):
        np.testing.assert_array_equal(np.asarray(read[7]), expected)
    best = minima(work, seconds)
    others = [
        f"{name} {best[name] * 1e3:.3f}, {best[OURS] / best[name]:.3f} x (aim {aim})"
        for name, aim in ((WITHOUT, AIMS[recheck]), (THEIRS, 1))
    ]
    print(f"planes, recheck {recheck}: dosna {best[OURS] * 1e3:.3f} ms; {'; '.join(others)}")


def tensors(ceph: Ceph, recheck: str) -> Any:
    """Open the same array with TensorStore and a cache of the same size."""
    return tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {
                "driver": "s3",
                "bucket": BUCKET,
                "path": "benchmark/a/",
                "endpoint": ceph.endpoint_url,
                "aws_region": "us-east-1",
                "aws_credentials": {"type": "environment"},
            },
            "recheck_cached_data": True if recheck == "always" else "open",
        },
        context=tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}}),
    ).result()


if __name__ == "__main__":
    main()
