#!/bin/sh
# A median should not depend on the order of the cells: with NaN among them it is NaN, as NumPy has it,
# or that of the others. For TensorStore 0.1.86, downsampling by "median", it is by chance: NaN, 1, 2
# and 3 give 2 in 16 orders, NaN in 6 and 1, the smallest, in 2. Of 4 x 4 x 4 cells of which 8 are NaN
# it is another quantile by where they stand: at the front or the back, or strewn. "min" and "max"
# leave NaN out, "mean" is NaN. Levels of a pyramid with missing cells differ by how the array is
# turned, and nothing is said. And "mean" adds up in float32: over 64 x 64 x 64 equal cells of 1000.1
# in float32 it is 1003.9, above them all, and over as many of 1000 in float16 996, below.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tensorstore==0.1.86 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import collections
import itertools
import sys

import numpy as np
import tensorstore as ts


def reduced(array, method):
    return ts.downsample(ts.array(array), array.shape, method).read().result().item()


as_seen = True
expected = {"median": {"2.0": 16, "nan": 6, "1.0": 2}, "mean": {"nan": 24}}
expected |= {"min": {"1.0": 24}, "max": {"3.0": 24}}
for method, counts in expected.items():
    orders = itertools.permutations([np.nan, 1.0, 2.0, 3.0])
    seen = collections.Counter(str(reduced(np.array(cells), method)) for cells in orders)
    print(f"{method} of NaN, 1, 2 and 3:", *(f"{value} in {n} orders," for value, n in seen.items()))
    as_seen &= seen == counts

cells = np.random.default_rng(0).permutation(np.r_[np.arange(56.0), [np.nan] * 8])
present, missing = cells[~np.isnan(cells)], np.full(8, np.nan)
orders = {
    "at the front": np.r_[missing, present],
    "at the back": np.r_[present, missing],
    "strewn": cells,
}
medians = {name: reduced(block.reshape(4, 4, 4), "median") for name, block in orders.items()}
print("median of 0 to 55 with 8 NaN", medians, "without", reduced(present, "median"))
as_seen &= len(set(map(str, medians.values()))) > 1

for dtype in ("f2", "f4", "f8"):
    block = np.full((64, 64, 64), 1000.1, dtype)
    mean = reduced(block, "mean")
    print(f"mean of equal cells of {dtype}: {float(block.flat[0])} becomes {mean}")
    as_seen &= {"f2": mean == 996, "f4": mean > 1003, "f8": abs(mean - 1000.1) < 1e-6}[dtype]
sys.exit(0 if as_seen else "This has changed.")
END
