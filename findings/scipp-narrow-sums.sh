#!/bin/sh
# The sum of counts in int32 should be what NumPy gives, which adds them in 64 bits, and their mean lie
# between the smallest and the largest. scipp 26.8.0 adds int32 in int32 and wraps around, in sum and
# nansum, in groups, in bins and in histograms, and mean divides what has wrapped: the mean of four
# counts of 2**30 is 0.0, and of two in a group -2**30, as a float64. Nothing is raised. scipp has
# int32 and int64 only, and scippnexus loads all narrower integers as int32: two pixels of 2**30 counts
# are enough, or 33000 full ones of a detector of uint16.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    scipp==26.8.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import scipp as sc

counts = np.full(4, 2**30)


def reduced(dtype):
    data = sc.array(dims=["x"], values=counts.astype(dtype), unit="counts")
    group = sc.array(dims=["x"], values=[0, 0, 1, 1])
    place = sc.array(dims=["x"], values=[0.5, 0.5, 1.5, 1.5], unit="m")
    table = sc.DataArray(data, coords={"group": group, "place": place})
    edges = sc.array(dims=["place"], values=[0.0, 1.0, 2.0], unit="m")
    binned = table.bin(place=edges)
    means = data.mean()
    return {
        "sum": int(data.sum().value),
        "nansum": int(sc.nansum(data).value),
        f"mean ({means.dtype})": float(means.value),
        "mean of groups": table.groupby("group").mean("x").values.tolist(),
        "histogram": table.hist(place=edges).values.tolist(),
        "sum of bins": binned.bins.sum().values.tolist(),
        "mean of bins": binned.bins.mean().values.tolist(),
    }


wide, narrow = reduced("i8"), reduced("i4")
numpy_sum = int(counts.astype("i4").sum())
print("NumPy's sum of int32:", numpy_sum)
for name in wide:
    print(f"{name}: of int64 {wide[name]}, of int32 {narrow[name]}")
pair, total = 2**30, 2**32
as_seen = numpy_sum == total
as_seen &= list(wide.values()) == [total, total, pair, [pair] * 2, [2**31] * 2, [2**31] * 2, [pair] * 2]
wrapped = [0, 0, 0, [-pair] * 2, [-(2**31)] * 2, [-(2**31)] * 2, [-pair] * 2]
as_seen &= list(narrow.values()) == wrapped
sys.exit(0 if as_seen else "This has changed.")
END
