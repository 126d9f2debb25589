#!/bin/sh
# Filters of dask_image.ndfilters should give what those of scipy.ndimage give, whose names and documentation they
# have, however the image is cut into chunks. With mode="wrap" an image is continued by its opposite edge, as the
# angle of a polar image is. In dask-image 2026.5.0 only convolve and correlate do that (mended in 2021); the twelve
# other filters continue each chunk by its own opposite edge, so along the edges of the image another place of it is
# mixed in, and 0° and 360° do not meet. Nothing is said; one chunk along the axis, and the other modes, are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    dask-image==2026.5.0 dask==2026.8.0 scipy==1.17.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import dask.array as da
import numpy as np
import scipy.ndimage
from dask_image import ndfilters

angles = np.arange(0, 360, 30.0)
chunked = da.from_array(angles, chunks=6)
expected = scipy.ndimage.maximum_filter(angles, size=3, mode="wrap").tolist()
found = ndfilters.maximum_filter(chunked, size=3, mode="wrap").compute().tolist()
print(f"largest of three neighbours\n    SciPy {expected}\n    dask-image {found}")
as_seen = expected == [330, *range(60, 360, 30), 330] and found == [180, *expected[1:]]

image = np.random.default_rng(0).normal(size=(12, 12))
weights = {"weights": np.arange(9.0).reshape(3, 3)}
filters = {"convolve": weights, "correlate": weights, "gaussian_filter": {"sigma": 1}}
filters |= {"gaussian_gradient_magnitude": {"sigma": 1}, "gaussian_laplace": {"sigma": 1}}
filters |= {"uniform_filter": {"size": 3}, "median_filter": {"size": 3}, "maximum_filter": {"size": 3}}
filters |= {"minimum_filter": {"size": 3}, "percentile_filter": {"size": 3, "percentile": 30}}
filters |= {"rank_filter": {"size": 3, "rank": 2}, "laplace": {}, "prewitt": {}, "sobel": {}}
for name, options in filters.items():
    same = []
    for chunks, mode in ((6, "wrap"), (12, "wrap"), (6, "reflect")):
        by_scipy = getattr(scipy.ndimage, name)(image, mode=mode, **options)
        by_dask = getattr(ndfilters, name)(da.from_array(image, chunks=chunks), mode=mode, **options)
        same.append(bool(np.allclose(by_scipy, by_dask.compute(), atol=1e-3)))
    print(f"{name}: wrap {same[0]}, wrap in one chunk {same[1]}, reflect {same[2]}")
    as_seen &= same[0] == (name in ("convolve", "correlate")) and same[1:] == [True, True]
sys.exit(0 if as_seen else "This has changed.")
END
