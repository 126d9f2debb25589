#!/bin/sh
# Statistics of an array with missing values should tell of them, and not change with the chunks. In dask.array
# 2026.8.0 the median of [3, 1, NaN, 2, 5, 4] by percentile is NaN in chunks of 3 or 6, 4.5 in chunks of 2 and
# 4.0 in chunks of 1, where NumPy says NaN, and 3 for those that are there: the values are merged by percentiles
# of chunks, and NaN shifts them. unique finds NaN and says that it occurs 0 times, so the counts do not add up
# to the size of the array, where NumPy counts 3. Nothing is said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import dask.array as da
import numpy as np

values = np.array([3, 1, np.nan, 2, 5, 4])
as_seen = bool(np.isnan(np.percentile(values, 50))) and np.nanpercentile(values, 50) == 3
for size, wrong in ((6, np.nan), (3, np.nan), (2, 4.5), (1, 4.0)):
    found = da.percentile(da.from_array(values, chunks=size), 50).compute()
    print(f"median in chunks of {size}: {found.tolist()}")
    as_seen &= np.array_equal(found, wrong, equal_nan=True)

values = np.array([1, np.nan, 1, np.nan, np.nan])
for size in (5, 2):
    distinct, counts = da.unique(da.from_array(values, chunks=size), return_counts=True)
    distinct, counts = distinct.compute().tolist(), counts.compute().tolist()
    print(f"distinct values in chunks of {size}: {distinct}, {counts} times")
    as_seen &= counts == [2, 0] and np.isnan(distinct[1])
print("by NumPy:", np.unique(values, return_counts=True)[1].tolist(), "times")
as_seen &= np.unique(values, return_counts=True)[1].tolist() == [2, 3]
sys.exit(0 if as_seen else "This has changed.")
END
