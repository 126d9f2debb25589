#!/bin/sh
# Floats that TileDB stores as scaled integers should be refused or cut off where the integers do
# not reach, and NaN should be kept or refused. The FloatScaleFilter of TileDB 2.30.0 (tiledb 0.36.1
# for Python) does neither: with a factor of 0.01 and 2 bytes 400 is read as -255.36, and NaN and
# infinity as 0, a number like any other; with 4 bytes 1e9, NaN and infinity are -21474836.48.
# Nothing is raised. Masked pixels are NaN, and one hot pixel is out of range.
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

values = np.array([1.5, -1.5, 400, -400, 1e9, np.nan, np.inf])
seen = {}
for width in (2, 4):
    scale = tiledb.FilterList([tiledb.FloatScaleFilter(factor=0.01, offset=0, bytewidth=width)])
    axis = tiledb.Dim("x", domain=(0, len(values) - 1), tile=len(values), dtype="i4")
    attributes = [tiledb.Attr("a", dtype="f8", filters=scale)]
    schema = tiledb.ArraySchema(tiledb.Domain(axis), attrs=attributes)
    tiledb.Array.create(f"array{width}", schema)
    with tiledb.open(f"array{width}", "w") as array:
        array[:] = values
    with tiledb.open(f"array{width}") as array:
        seen[width] = array[:]["a"].round(2).tolist()
    print(f"{values.tolist()} in {width} bytes: {seen[width]}")

as_seen = seen[2][:4] == [1.5, -1.5, -255.36, 255.36] and seen[2][5:] == [0, 0]
as_seen &= seen[4] == [1.5, -1.5, 400, -400, -21474836.48, -21474836.48, -21474836.48]
sys.exit(0 if as_seen else "This has changed.")
END
