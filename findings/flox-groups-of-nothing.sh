#!/bin/sh
# The sum of a group without members should be 0, or marked as missing, for each type and however the array is held.
# groupby_reduce of flox 0.11.2 takes the groups that one expects, such as all days of a month. Where one has no
# members, the sum of signed integers and of booleans is -9223372036854775808; of unsigned ones it is 0, of floats
# NaN, and of the same integers in chunks of Dask, by map-reduce, 0. Nothing is said, and the sum of the
# days is negative. fill_value=0 helps. A beamline has days without counts, and groups that are expected are what
# makes the results of several files fit together.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    flox==0.11.2 "dask[array]==2026.8.0" numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import dask.array as da
import numpy as np
from flox import groupby_reduce

as_seen = True
days, month = np.array([0, 1, 1, 3]), np.arange(4)


def show(text, array, empty, **options):
    global as_seen
    found = np.asarray(groupby_reduce(array, days, func="sum", expected_groups=month, **options)[0])
    print(f"{text}: {found.tolist()}")
    as_seen &= np.array_equal(found, [1, 2, empty, 1], equal_nan=found.dtype.kind == "f")


lowest = -(2**63)
for dtype in ("i1", "i4", "i8", "?"):
    show(f"sum of each day, {dtype}", np.ones(4, dtype), lowest)
show("u4", np.ones(4, "u4"), 0)
show("f4", np.ones(4, "f4"), np.nan)
show("i4 in chunks, map-reduce", da.ones(4, dtype="i4", chunks=2), 0, method="map-reduce")
show("i4, fill_value=0", np.ones(4, "i4"), 0, fill_value=0)
total = groupby_reduce(np.ones(4, "i4"), days, func="sum", expected_groups=month)[0].sum()
print("sum of the sums:", total)
as_seen &= total == lowest + 4
sys.exit(0 if as_seen else "This has changed.")
END
