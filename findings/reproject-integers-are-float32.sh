#!/bin/sh
# A map of labels or identifiers is put on another grid with order "nearest-neighbor", so that no new number comes
# up. reproject 0.21.0 returns float64, which holds integers up to 2**53, but takes arrays of integers through
# float32 on the way: label 16777217 is 16777216 in the result, and 2**40 + 1 is 2**40, so neighbours become one
# region. The same map as float64 keeps its labels, and so do integers with reproject_exact.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    reproject==0.21.0 astropy==8.0.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
from astropy.wcs import WCS
from reproject import reproject_adaptive, reproject_exact, reproject_interp

sky = WCS(naxis=2)
sky.wcs.crpix, sky.wcs.crval, sky.wcs.cdelt = [5, 5], [10, 10], [-0.1, 0.1]
sky.wcs.ctype = ["RA---TAN", "DEC--TAN"]
as_seen = True
for label in (2**24 - 1, 2**24 + 1, 2**40 + 1):
    for dtype in ("i4", "i8", "f8"):
        if dtype == "i4" and label > 2**31:
            continue
        labels = np.full((10, 10), label, dtype)
        found, _ = reproject_interp((labels, sky), sky, shape_out=(10, 10), order="nearest-neighbor")
        print(f"{label} as {dtype}: {found.dtype} {found[5, 5]:.0f}")
        as_seen &= found.dtype == "f8"
        as_seen &= (found[5, 5] == label) == (label < 2**24 or dtype == "f8")
        if dtype == "i8":
            for work in (reproject_adaptive, reproject_exact):
                other = work((labels, sky), sky, shape_out=(10, 10))[0][5, 5]
                print(f"    {work.__name__}: {other:.3f}")
sys.exit(0 if as_seen else "This has changed.")
END
