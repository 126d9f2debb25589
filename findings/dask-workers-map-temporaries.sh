#!/bin/sh
# Dask 2026.8.0 starts its workers with MALLOC_TRIM_THRESHOLD_=65536, to give memory back sooner. One
# expects that to change when memory is returned, and nothing else. But glibc, once one of its
# thresholds is set, no longer adjusts the other: in a plain process an array that was freed raises
# the size from which memory is mapped anew, and in a worker it stays at 128 KiB. Each temporary
# array of NumPy above that is then mapped, faulted in page by page, and unmapped. A filter of images
# that makes a hundred temporaries of 1 MiB has some 700 page faults in a process and 25,000
# in a worker, and took six times as long with two workers as alone. Page faults are counted here,
# not times. MALLOC_MMAP_THRESHOLD_ in `distributed.nanny.pre-spawn-environ` takes most of them away.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    distributed==2026.8.0 numpy==2.4.6 || exit 2
cat >count.py <<'END'
import resource
import sys

import dask
import numpy as np
from distributed import Client, LocalCluster


def faults():
    """Return the page faults of a hundred temporary arrays of 1 MiB, after some to settle."""
    block = np.ones(1 << 18, "f4")

    def work():
        values = block
        for _ in range(50):
            values = np.sqrt(values) + 1

    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def in_worker(**environment):
    name = "distributed.nanny.pre-spawn-environ"
    with dask.config.set({name: {**dask.config.get(name), **environment}}):
        cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        return client.submit(faults).result()


if __name__ == "__main__":
    alone = faults()
    usual = in_worker()
    mended = in_worker(MALLOC_MMAP_THRESHOLD_=32 << 20, MALLOC_TRIM_THRESHOLD_=64 << 20)
    print(f"page faults: a process {alone}, a worker {usual}, a worker with thresholds {mended}")
    as_seen = alone < 2000 and usual > 20_000 and mended < 10_000
    sys.exit(0 if as_seen else "This has changed.")
END
venv/bin/python -I count.py
