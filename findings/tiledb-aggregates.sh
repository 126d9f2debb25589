#!/bin/sh
# Aggregates that the store computes should be those of the array that it returns. In a dense array
# TileDB 2.30.0 (tiledb 0.36.1 for Python) leaves cells that were never written out of the sum, min
# and max, but counts them for the mean, as zeros, if something else of their tile was written: the
# mean of 1 and 2 in an array of eight cells is 0.375 with one tile, 0.75 with tiles of four, and
# neither 1.5 nor NaN, its fill value. With NaN among the cells, dense or sparse, min and max are
# those of the cells behind it: the largest of 9, NaN, 5, 3 is 5, and it is NaN only if NaN is the
# last. No error is raised. Scans that ended early leave cells unwritten, and masked pixels are NaN.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tiledb==0.36.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import tiledb

what = ["sum", "count", "min", "mean", "max"]


def aggregates(name, values, start=0, length=None, sparse=False, tile=4):
    length = length or len(values)
    axis = tiledb.Dim("x", domain=(0, length - 1), tile=tile, dtype="i4")
    attributes = [tiledb.Attr("a", dtype="f8")]
    schema = tiledb.ArraySchema(tiledb.Domain(axis), attrs=attributes, sparse=sparse)
    tiledb.Array.create(name, schema)
    with tiledb.open(name, "w") as array:
        if sparse:
            array[np.arange(len(values))] = np.array(values, "f8")
        else:
            array[start : start + len(values)] = np.array(values, "f8")
    with tiledb.open(name) as array:
        result = array.query(attrs=["a"]).agg({"a": what})[:]
    print(name, *(f"{key} {float(value):g}" for key, value in result.items()))
    return [float(result[key]) for key in what]


part = aggregates("1 and 2 in eight cells, tiles of four", [1, 2], start=1, length=8)
one = aggregates("1 and 2 in eight cells, one tile", [1, 2], start=1, length=8, tile=8)
first = aggregates("9, NaN, 5, 3", [9, np.nan, 5, 3])
sparse = aggregates("the same, sparse", [9, np.nan, 5, 3], sparse=True)
last = aggregates("1, 2, 3, NaN", [1, 2, 3, np.nan])
as_seen = part == [3, 8, 1, 0.75, 2] and one == [3, 8, 1, 0.375, 2]
as_seen &= first[2] == sparse[2] == 3 and first[4] == sparse[4] == 5
as_seen &= bool(np.isnan(last[2]) and np.isnan(last[4]))
sys.exit(0 if as_seen else "This has changed.")
END
