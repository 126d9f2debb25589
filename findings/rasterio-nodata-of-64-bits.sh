#!/bin/sh
# The number that marks missing cells should be the one that was given, or be refused. For rasters of
# int64 and uint64 rasterio 1.4.4 (GDAL 3.10.3) hands it on as a float, GDAL writes the text of that
# into the GeoTIFF, and reads it back as a whole number, up to the first character that is no digit.
# The smallest int64, the usual mark of a missing integer, is written as -9.2233720368547758e+18 and
# is -9 in the file; 10**17 - 1 is 1. All missing cells are data, and cells of -9 or 1 are missing.
# The largest int64 and uint64 are refused: rounded up, they are out of range. Up to 2**53 nothing is
# lost. rioxarray writes by rasterio, and its files are the same.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    rasterio==1.4.4 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import rasterio

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)


def through(dtype, missing):
    cells = np.full((1, 4), missing, dtype)
    cells[0, 0], cells[0, 1] = (-9, 1) if dtype == "int64" else (9, 1)
    shape = {"height": 1, "width": 4, "count": 1, "dtype": dtype, "nodata": missing}
    try:
        with rasterio.open("x.tif", "w", driver="GTiff", **shape) as file:
            file.write(cells, 1)
    except ValueError as error:
        print(dtype, missing, "refused:", error)
        return None
    with rasterio.open("x.tif") as file:
        read, found = file.read(1, masked=True), int(file.nodata)
    assert np.array_equal(read.data, cells)
    print(dtype, missing, "read:", found, "missing:", np.ma.getmaskarray(read)[0].tolist())
    return found, np.ma.getmaskarray(read)[0].tolist()


right = [False, False, True, True]
as_seen = through("int64", -(2**53)) == (-(2**53), right)
as_seen &= through("int64", -(2**63)) == (-9, [True, False, False, False])
as_seen &= through("int64", 10**17 - 1) == (1, [False, True, False, False])
as_seen &= through("uint64", 2**63) == (9, [True, False, False, False])
as_seen &= through("int64", 2**63 - 1) is through("uint64", 2**64 - 1) is None
sys.exit(0 if as_seen else "This has changed.")
END
