#!/bin/sh
# Listing a store by a prefix should give every key that begins with it, as S3 does. obstore 0.12.1
# takes the prefix for a folder: it gives keys below "PREFIX/" only. Where the dots of chunk keys
# as of Zarr 2 ("a.0", "a.1.0") or a number is to be continued ("c/1" for "c/1", "c/10"), the list
# is empty. Not even the object of that very name is in it. The two stores for trials differ
# besides: delete of a name that is not there is nothing in MemoryStore and FileNotFoundError in
# LocalStore. Who counts or removes chunks by prefix counts none.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    obstore==0.12.1 || exit 2
venv/bin/python -I - <<'END'
import sys
import obstore
from obstore.store import LocalStore, MemoryStore

keys = ["a.0", "a.1.0", "c/1", "c/10", "c/2"]
prefixes = ["a", "a.", "a.1", "c", "c/", "c/1"]
seen = {}
for name, store in (("memory", MemoryStore()), ("local", LocalStore("objects", mkdir=True))):
    for key in keys:
        obstore.put(store, key, b"chunk")
    for prefix in prefixes:
        found = sorted(meta["path"] for batch in obstore.list(store, prefix) for meta in batch)
        begins = [key for key in keys if key.startswith(prefix)]
        print(f"{name} {prefix!r}: {found}, of {begins}")
        seen[name, prefix] = found
    try:
        obstore.delete(store, "not there")
        seen[name, "delete"] = "nothing"
    except FileNotFoundError:
        seen[name, "delete"] = "FileNotFoundError"
    print(f"{name}, delete of what is not there: {seen[name, 'delete']}")

folder = ["c/1", "c/10", "c/2"]
as_seen = all(
    [seen[name, prefix] for prefix in prefixes] == [[], [], [], folder, folder, []]
    for name in ("memory", "local")
)
as_seen = as_seen and seen["memory", "delete"] == "nothing"
sys.exit(0 if as_seen and seen["local", "delete"] == "FileNotFoundError" else "This has changed.")
END
