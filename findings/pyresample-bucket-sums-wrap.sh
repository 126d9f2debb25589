#!/bin/sh
# Satellite pixels are put into the cells of a grid by pyresample's BucketResampler, and counts of 8 or 16 bits should
# be added in more bits, as NumPy's sum does. pyresample 1.35.0 adds the pixels of a cell in their own dtype and
# returns the result as 64 bits, where nobody expects a wrap: the sum of four pixels of 200 is 32, and their average
# is 8; of four int16 of 20000 the average is 3616. Least and greatest are right; but of a cell with NaN, the
# greatest is NaN and the least and the average are not. Floats of 32 bits and integers of 32 bits are added as
# expected.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyresample==1.35.0 dask==2026.8.0 xarray==2026.9.0 numpy==2.3.5 || exit 2
venv/bin/python -I - <<'END'
import sys

import dask.array
import numpy as np
from pyresample.bucket import BucketResampler
from pyresample.geometry import AreaDefinition

grid = AreaDefinition("grid", "", "", {"proj": "longlat", "datum": "WGS84"}, 4, 4, (0, 0, 4, 4))
longitudes, latitudes = np.meshgrid(np.arange(8) / 2 + 0.25, np.arange(8)[::-1] / 2 + 0.25)
buckets = BucketResampler(
    grid, dask.array.from_array(longitudes), dask.array.from_array(latitudes)
)
as_seen = True
for dtype, value in (("u1", 200), ("i2", 20_000), ("i4", 20_000), ("f4", 200)):
    pixels = dask.array.from_array(np.full((8, 8), value, dtype))
    total, mean = buckets.get_sum(pixels).compute(), buckets.get_average(pixels).compute()
    greatest = buckets.get_max(pixels).compute()[0, 0]
    print(dtype, f"4 x {value}: sum {total[0, 0]} as {total.dtype}, average {mean[0, 0]}, greatest {greatest}")
    wrapped = int(np.full(4, value, dtype).sum(dtype=dtype))
    as_seen &= bool(total[0, 0] == wrapped and mean[0, 0] == wrapped / 4 and greatest == value)
    as_seen &= (total[0, 0] == 4 * value) == (dtype in ("i4", "f4"))
    as_seen &= total.dtype.itemsize == (4 if dtype == "f4" else 8)
gap = np.full((8, 8), 3.0)
gap[0, 0] = np.nan
gap = dask.array.from_array(gap)
found = {
    name: float(getattr(buckets, f"get_{name}")(gap).compute()[0, 0])
    for name in ("max", "min", "average")
}
print("of NaN, 3, 3, 3:", found)
as_seen &= bool(np.isnan(found["max"])) and found["min"] == found["average"] == 3
sys.exit(0 if as_seen else "This has changed.")
END
