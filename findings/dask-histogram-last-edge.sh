#!/bin/sh
# dask_histogram.histogram should count as dask.array.histogram does, in whose style it says that it returns.
# In NumPy, Dask and boost_histogram.numpy the last bin includes its upper edge; in dask-histogram 2026.2.0
# what lies on it is left out, with edges as with a number of bins and a range, weighted or not, in one and
# more dimensions, and nothing is said: pixels that are saturated, scores of 1.0, the last of whole numbers.
# With histogram=True they are in the overflow, which is not returned as an array.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    dask-histogram==2026.2.0 "dask[array]==2025.3.1" boost-histogram==1.8.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import boost_histogram
import dask
import dask.array
import dask_histogram
import numpy as np

pixels = np.array([0.0, 100.0, 200.0, 255.0, 255.0, 255.0])
chunked = dask.array.from_array(pixels, chunks=3)
edges = [0, 85, 170, 255]
as_seen = True
for name, binning in (("edges", {"bins": edges}), ("a range", {"bins": 3, "range": (0, 255)})):
    counts = {
        "NumPy": np.histogram(pixels, **binning)[0],
        "dask.array": dask.array.histogram(chunked, **binning)[0].compute(),
        "boost_histogram.numpy": boost_histogram.numpy.histogram(pixels, **binning)[0],
        "dask_histogram": dask_histogram.histogram(chunked, **binning)[0].compute(),
        "dask_histogram, weights": dask_histogram.histogram(
            chunked, weights=dask.array.ones_like(chunked), **binning
        )[0].compute(),
    }
    for library, found in counts.items():
        print(f"{name}, {library}: {found.tolist()}")
        as_seen &= found.tolist() == ([1, 1, 1] if library.startswith("dask_histogram") else [1, 1, 4])
plane = dask_histogram.histogramdd((chunked, chunked), bins=(edges, edges))[0].compute()
by_numpy = np.histogramdd((pixels, pixels), bins=(edges, edges))[0]
print("in two dimensions: of", by_numpy.sum(), "dask_histogram", plane.sum())
as_seen &= (by_numpy.sum(), plane.sum()) == (6, 3)
kept = dask_histogram.histogram(chunked, bins=edges, histogram=True).compute()
print("the overflow of the object:", kept.view(flow=True)[-1])
as_seen &= kept.view(flow=True)[-1] == 3
sys.exit(0 if as_seen else "This has changed.")
END
