#!/bin/sh
# A histogram whose weights are the pixels of an image, which is how a radial profile is made, should add
# them up as np.sum does. NumPy 2.4.6 gives the sums in the type of the weights (as its documentation says
# of this function alone): each bin of an 8-bit image is taken modulo 256, of int16 modulo 65536 and may be
# negative, and float32 loses digits. No warning. dask.array.histogram does so with each chunk and adds up
# the remains in int64 or uint64, so that its sums are others again, and their type looks wide enough.
# np.histogram2d, np.histogramdd, np.bincount and binned_statistic of SciPy add the same weights in float64.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 'dask[array]==2026.8.0' scipy==1.17.1 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import dask.array as da
import numpy as np
from scipy.stats import binned_statistic

radius = np.hypot(*np.indices((100, 100)))
edges = np.array([0, 10, 20, 200])
as_seen = True
for kind, value in (("u1", 200), ("i2", 200), ("u2", 50_000), ("f4", 0.1)):
    image = np.full(radius.shape, value, kind)
    pixels = np.histogram(radius, edges)[0]
    true = pixels * float(image[0, 0])
    one = np.histogram(radius, edges, weights=image)[0]
    flat = radius.ravel(), image.ravel()
    many = np.histogramdd(flat[:1], [edges], weights=flat[1])[0]
    parts = [da.from_array(x, chunks=50) for x in (radius, image)]
    chunks = da.histogram(parts[0], edges, weights=parts[1])[0].compute()
    print(kind, "sums of the pixels: ", true.tolist())
    print("   np.histogram:       ", one.tolist(), one.dtype)
    print("   dask.array.histogram:", chunks.tolist(), chunks.dtype)
    print("   np.histogramdd:     ", many.tolist(), many.dtype)
    as_seen &= np.allclose(many, true, rtol=1e-9)
    as_seen &= np.allclose(binned_statistic(*flat, "sum", edges)[0], true, rtol=1e-9)
    as_seen &= one.dtype == kind
    if image.dtype.kind != "f":
        as_seen &= (one == true.astype("i8").astype(kind)).all() and (one != true).any()
        as_seen &= (chunks != true).any()
sys.exit(0 if as_seen else "This has changed.")
END
