#!/bin/sh
# What is masked should have no part in a smoothed field. smooth_gaussian, smooth_rectangular, smooth_circular,
# smooth_n_point and smooth_window of MetPy 1.7.1 take masked arrays, as netCDF4 reads them, and use the numbers
# below the mask: a field of 10 with one missing cell, a -9999 below the mask, is -736 and -3326 beside it, and
# all but smooth_gaussian take the mask away, so that the missing cell is -3326 too. Derivatives and the
# Laplacian of the same array keep clear of it, and NaN spreads as it should. Integers are smoothed into
# integers and cut off: 280 K everywhere is 278 K by smooth_gaussian. Nothing is said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    MetPy==1.7.1 Pint==0.25.3 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import metpy.calc
import numpy as np
from metpy.units import units

below = np.full((4, 5), 10.0)
below[1, 1] = -9999
field = units.Quantity(np.ma.masked_equal(below, -9999), "degC")
as_seen = True
for name, given, beside, masked in (
    ("smooth_gaussian", 3, -736.36, True),
    ("smooth_rectangular", 3, -3326.33, False),
    ("smooth_circular", 1, -1991.8, False),
    ("smooth_n_point", 9, -1241.125, False),
    ("smooth_window", np.ones((3, 3)), -1102.11, False),
):
    smooth = getattr(metpy.calc, name)
    found = np.ma.asarray(smooth(field, given).magnitude)
    of_nan = smooth(field.magnitude.filled(np.nan), given).magnitude
    print(f"{name}: beside the missing cell {found[1, 2]:.2f}, in it {found[1, 1]}, of NaN {of_nan[1, 2]}")
    as_seen &= np.isclose(found[1, 2], beside, atol=0.01) and np.isnan(of_nan[1, 2])
    as_seen &= np.ma.getmaskarray(found)[1, 1] == masked
laplacian = metpy.calc.laplacian(field.magnitude, deltas=(1, 1))
print("Laplacian:", laplacian.magnitude[1])
as_seen &= laplacian.magnitude[1].mask.tolist() == [True] * 3 + [False] * 2

for dtype, expected in (("i2", 278), ("f8", 280)):
    warm = metpy.calc.smooth_gaussian(units.Quantity(np.full((4, 5), 280, dtype), "K"), 3)
    print(f"280 K in {dtype}: {warm[0, 0]}")
    as_seen &= np.allclose(warm.magnitude, expected)
sys.exit(0 if as_seen else "This has changed.")
END
