#!/bin/sh
# A client of Dask 2026.8.0 inquires after its scheduler every two seconds, for itself and without
# workers (n_workers=0), and puts the answer where `scheduler_info(n_workers=-1)` puts its own. One
# expects the latter to return what it asked for. But it returns what lies there afterwards, and if
# the client's inquiry was answered in between, that is a cluster without workers. Whoever looks
# for lost workers so, takes all of them for lost. The interval is 5 ms here, so that it is seen
# at once; `client.scheduler.identity(n_workers=-1)` returns its own answer.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    distributed==2026.8.0 || exit 2
cat >inquire.py <<'END'
import sys
from collections import Counter

import dask
from distributed import Client, LocalCluster

dask.config.set({"distributed.client.scheduler-info-interval": "5ms"})
with (
    LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster,
    Client(cluster) as client,
):

    async def identity():
        return await client.scheduler.identity(n_workers=-1)

    shared = Counter(len(client.scheduler_info(n_workers=-1)["workers"]) for _ in range(3000))
    own = Counter(len(client.sync(identity)["workers"]) for _ in range(3000))
print(f"workers of two: scheduler_info {dict(shared)}, identity {dict(own)}")
sys.exit(0 if shared[0] > 0 and set(own) == {2} else "This has changed.")
END
venv/bin/python -I inquire.py
