#!/bin/sh
# With order=0, the nearest neighbour, labels should be moved and repeated, not computed with. SciPy 1.17.1
# brings every element through a double in zoom, shift, rotate, affine_transform, geometric_transform and
# map_coordinates of ndimage, and gives int64 back: two neighbouring cells of FlyWire become one, which
# is neither of the two, 2**63 - 1 becomes -2**63, and 2**64 - 1 of uint64 is 0. Nothing is said.
# RegularGridInterpolator, NearestNDInterpolator and interp1d do the same, but show float64. median_filter
# and grey_dilation keep the labels. Identifiers of segments and of stars are above 2**53; take them by
# their indices.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    scipy==1.17.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
from scipy import interpolate, ndimage

FIRST, SECOND = 720575940621039145, 720575940621039146
cells = np.array([[FIRST, FIRST], [SECOND, SECOND]])
as_seen = True


def show(text, found, expected, dtype):
    global as_seen
    print(f"{text}: {np.unique(found).tolist()} {found.dtype}")
    as_seen &= found.dtype == dtype and set(found.ravel().tolist()) == set(expected)


print("cells:", np.unique(cells).tolist())
one = [720575940621039104]
for name, found in (
    ("zoom", ndimage.zoom(cells, 2, order=0)),
    ("shift by nothing", ndimage.shift(cells, 0, order=0)),
    ("rotate", ndimage.rotate(cells, 90, order=0)),
    ("affine_transform", ndimage.affine_transform(cells, np.eye(2), order=0)),
    ("map_coordinates", ndimage.map_coordinates(cells, [[0, 1], [0, 1]], order=0)),
):
    show(name, found, one, "i8")
largest = np.array([2**63 - 1] * 2)
show("zoom of 2**63 - 1", ndimage.zoom(largest, 2, order=0), [-(2**63)], "i8")
largest = np.array([2**64 - 1] * 2, "u8")
show("zoom of 2**64 - 1", ndimage.zoom(largest, 2, order=0), [0], "u8")
axes = np.arange(2)
grid = interpolate.RegularGridInterpolator((axes, axes), cells, method="nearest")
show("RegularGridInterpolator", grid([[0, 0], [1, 0]]), one, "f8")
show("median_filter", ndimage.median_filter(cells, 1), [FIRST, SECOND], "i8")
show("grey_dilation", ndimage.grey_dilation(cells, size=1), [FIRST, SECOND], "i8")
sys.exit(0 if as_seen else "This has changed.")
END
