#!/bin/sh
# Packing a cube into 16 bits should cost precision and nothing else. Iris 3.14.1 computes the scale
# so that packed values use the whole type, and one of the two ends is netCDF's default fill value:
# the warmest cell of a cube packed as "u2" is missing when it is read again, and where a cell was
# missing before, so is the coldest of "i2" (and of "i1" and "i4"). And one NaN or infinity makes the
# scale NaN, so that the whole file is NaN: NumPy warns of a cast for the one, of a division for the
# other. Nothing is said of the ends. Signed types without missing cells are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    scitools-iris==3.14.1 netCDF4==1.7.5.1.post1 numpy==2.4.6 scipy==1.17.1 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import iris
import numpy as np
from iris.cube import Cube

warnings.simplefilter("ignore", FutureWarning)
iris.FUTURE.save_split_attrs = True
whole = np.array([270.0, 280.0, 290.0, 300.0])
some = np.ma.array(whole, mask=[False, False, True, False])
gap = np.array([270.0, 280.0, np.nan, 300.0])
as_seen = True
for name, values, packing, missing in (
    ("all", whole, "i2", []),
    ("all", whole, "u2", [3]),
    ("all", whole, "u1", [3]),
    ("one missing", some, "u2", [2]),
    ("one missing", some, "i1", [0, 2]),
    ("one missing", some, "i2", [0, 2]),
    ("one missing", some, "i4", [0, 2]),
    ("one NaN", gap, "i2", [0, 1, 2, 3]),
    ("one NaN", gap, "u2", [0, 1, 2, 3]),
):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        iris.save(Cube(values, var_name="t", units="K"), "t.nc", packing=packing)
    read = iris.load_cube("t.nc").data
    lost = np.flatnonzero(np.isnan(np.ma.filled(read, np.nan))).tolist()
    print(f"{name} {values} as {packing}: {read}", *{str(one.message) for one in said})
    as_seen &= lost == missing and (name == "one NaN" or not said)
sys.exit(0 if as_seen else "This has changed.")
END
