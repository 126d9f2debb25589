#!/bin/sh
# A NumPy array of bytes, text or dates of fixed size should have the same values as an Arrow
# array. pyarrow 26.0.1 ends each text and each string of bytes at its first NUL, as C does, though
# NumPy drops NULs only at the end: a digest with a zero byte inside loses what follows. Of a unit
# with a factor, such as 25 s, only the unit is kept, so that times are other times; and of a
# number of days the lower 32 bits, so that a date chosen to be far away is one of this era. There
# is no error or warning. Tables, Parquet files and DataFrames made of arrays of HDF5 or Zarr have these
# values; awkward 2.14.0 keeps the bytes, and has the same times in lists.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 numpy==2.4.6 awkward==2.14.0 || exit 2
venv/bin/python -I - <<'END'
import hashlib
import sys

import awkward as ak
import numpy as np
import pyarrow as pa

digests = np.array([hashlib.sha1(bytes([n])).digest() for n in range(256)], "S20")
cut = sum(one != other for one, other in zip(digests.tolist(), pa.array(digests).to_pylist()))
times = np.array(["1970-01-01T00:00:25"], "M8[25s]")
far = np.array([1 << 32], "M8[D]")
seen = {
    "digests that are cut off": cut,
    "bytes": pa.array(np.array([b"a\0b"])).to_pylist(),
    "text": pa.array(np.array(["a\0b"])).to_pylist(),
    "by awkward": ak.to_arrow(ak.Array(np.array([b"a\0b"])), extensionarray=False).to_pylist(),
    "25 s": str(pa.array(times)[0]),
    "25 s in a list": str(ak.to_arrow(ak.unflatten(times, [1]), extensionarray=False)[0][0]),
    "2**32 days": str(pa.array(far)[0]),
}
for name, value in seen.items():
    print(f"{name}:", value)
print("NumPy:", times, far)
as_seen = list(seen.values())[1:] == [
    [b"a"],
    ["a"],
    [b"a\0b"],
    "1970-01-01 00:00:01",
    "1970-01-01 00:00:01",
    "1970-01-01",
]
sys.exit(0 if as_seen and cut else "This has changed.")
END
