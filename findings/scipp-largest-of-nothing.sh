#!/bin/sh
# The largest of no values should be NaN, as scipp's mean of them, or missing, or an error, as NumPy's.
# With scipp 26.8.0 the max of an empty bin, of a group or of data that are wholly masked is -1.8e308,
# the lowest float, and the min is 1.8e308; of int32 the smallest and the largest integer. nanmax of
# NaN alone is the same. These are finite: isfinite passes them, they set the scale of an image, and
# the range from min to max of the bins has them as its ends. Empty bins are the rule in events.
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


def extremes(of):
    return [of("min").values.tolist(), of("max").values.tolist(), of("mean").values.tolist()]


def show(name, values):
    print(f"{name}: min {values[0]}, max {values[1]}, mean {values[2]}")
    return values


as_seen = True
for dtype in ("f8", "i4"):
    low, high = (np.finfo(dtype) if dtype == "f8" else np.iinfo(dtype)).min, np.finfo("f8").max
    high = float(high) if dtype == "f8" else np.iinfo(dtype).max
    data = sc.array(dims=["event"], values=np.array([2, 3], dtype))
    place = sc.array(dims=["event"], values=[0.5, 0.6])
    group = sc.array(dims=["event"], values=[0, 1])
    mask = sc.array(dims=["event"], values=[False, True])
    table = sc.DataArray(data, coords={"place": place, "group": group})
    bins = table.bin(place=sc.array(dims=["place"], values=[0.0, 1.0, 2.0]))
    masked = table.copy()
    masked.masks["bad"] = mask
    groups = masked.groupby("group")
    empty = masked["event", 1:]
    cases = {
        "bins with two events and with none": extremes(lambda name: getattr(bins.bins, name)()),
        "groups, the second masked": extremes(lambda name: getattr(groups, name)("event")),
    }
    for name, values in cases.items():
        least, most, mean = show(f"{dtype}, {name}", values)
        as_seen &= (least[1], most[1]) == (high, low) and bool(np.isnan(mean[1]))
    least, most, mean = (float(getattr(empty, name)().value) for name in ("min", "max", "mean"))
    show(f"{dtype}, all masked", [least, most, mean])
    as_seen &= (least, most) == (high, low) and bool(np.isnan(mean))
sys.exit(0 if as_seen else "This has changed.")
END
