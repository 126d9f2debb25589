#!/bin/sh
# An array of Blosc2 that gives back its numbers should also compute with them. blosc2 4.14.1 stores
# big-endian arrays and slices them rightly, in their own dtype. But sums, means and expressions
# are computed by an engine that takes the same bytes for native numbers: the sum of 0 ... 62 as
# ">i4" is 32765902848 and not 1953, and b + 0.5 of ">f8" is 0.5. No error is raised. Storing
# them in the native order, x.astype("<f8"), is the remedy. Arrays from FITS and netCDF-3 are
# big-endian.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    blosc2==4.14.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import blosc2
import numpy as np

as_seen = True
for dtype in ("<i4", ">i4", "<f8", ">f8"):
    values = np.arange(63).reshape(7, 9).astype(dtype)
    stored = blosc2.asarray(values, chunks=(3, 4), blocks=(2, 2))
    same = np.array_equal(stored[:], values) and np.array_equal(stored[1:6, 2:8], values[1:6, 2:8])
    total, half = blosc2.sum(stored), (stored + 0.5).compute()[:]
    print(dtype, "stored and sliced rightly:", same, " sum", total, " of", values.sum(), end=" ")
    print(" b + 0.5:", half[1, :3], " of", values[1, :3] + 0.5)
    native = dtype[0] == "<"
    as_seen &= same and (total == values.sum()) == native
    as_seen &= np.array_equal(half, values + 0.5) == native
sys.exit(0 if as_seen else "This has changed.")
END
