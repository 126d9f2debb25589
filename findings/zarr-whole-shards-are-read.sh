#!/bin/sh
# A shard of Zarr 3 holds many chunks in one object, to save requests. What a write or read of it
# costs is not what one expects of zarr-python 3.1.6. A write that replaces whole shards fetches
# each of them first, all of its bytes, though nothing of them is used; for new arrays that is a
# request for an object that is not there. Plain chunks that are replaced are not fetched. And
# a read of 7 of 8 rows of chunks of a shard takes 57 requests, one for the index and one for each
# chunk, neighbours too, where the whole shard takes 1. So it can be cheaper to ask for more.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    zarr==3.1.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import numpy as np
import zarr
from zarr.storage import MemoryStore, WrapperStore


class Counting(WrapperStore):
    def __init__(self, store):
        super().__init__(store)
        self.calls = []

    async def get(self, key, prototype, byte_range=None):
        found = await self._store.get(key, prototype, byte_range)
        self.calls.append(("GET", 0 if found is None else len(found)))
        return found

    async def set(self, key, value):
        self.calls.append(("PUT", len(value)))
        await self._store.set(key, value)


def cost(store, act):
    store.calls.clear()
    act()
    counts = {}
    for verb in ("GET", "PUT"):
        sizes = [size for call, size in store.calls if call == verb]
        counts[verb] = len(sizes), sum(sizes)
    return counts


values = np.random.default_rng(0).integers(1, 2**60, (64, 64))
seen = {}
for shards in (None, (64, 64)):
    store = Counting(MemoryStore())
    array = zarr.create_array(
        store, shape=(64, 64), dtype="i8", chunks=(8, 8), shards=shards, compressors=None
    )
    seen[shards] = {
        "write, new": cost(store, lambda: array.__setitem__(slice(None), values)),
        "write, whole again": cost(store, lambda: array.__setitem__(slice(None), values + 1)),
        "read all": cost(store, lambda: array[:]),
        "read 56 of 64 rows": cost(store, lambda: array[:56]),
    }
    for what, counts in seen[shards].items():
        print("shards:", shards, what, "(requests, bytes)", counts)

plain, sharded = seen[None], seen[64, 64]
as_seen = plain["write, whole again"]["GET"] == (0, 0) and sharded["write, new"]["GET"] == (1, 0)
as_seen &= sharded["write, whole again"]["GET"] == sharded["write, whole again"]["PUT"]
as_seen &= sharded["read all"]["GET"][0] == 1 and sharded["read 56 of 64 rows"]["GET"][0] == 57
sys.exit(0 if as_seen else "This has changed.")
END
