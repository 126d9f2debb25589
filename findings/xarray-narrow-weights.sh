#!/bin/sh
# A mean with weights should be the one with these weights. xarray 2026.9.0 adds the weights up in their own
# type: of 300 cells that are all 1, with weights of 1 in uint8, the weighted mean is 6.8, and of 256 cells it
# is NaN; [1, 2, 3, 4] with weights of 200, 100, 1 and 1 have the mean 8.8, where 1.35 is right. Products with
# the values wrap too where these are narrow: three values of 20,000 in int16 with weights of 3 have the mean
# -1845. std is as wrong, quantile is right; NumPy's average is right. Fractions in percent and masks as 0 and 1
# are such weights. integrate and cumulative_integrate add neighbours in their type before they halve them: two
# values of 200 in uint8 have the integral 72. Nothing is said. Convert narrow integers to float64.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    xarray==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import xarray as xr

warnings.simplefilter("error")
as_seen = True


def show(text, found, wrong):
    global as_seen
    print(f"{text}: {float(found):.4g}")
    as_seen &= np.allclose(found, wrong, rtol=1e-3, equal_nan=True)


def array(values, dtype):
    return xr.DataArray(np.array(values, dtype), dims="x", coords={"x": np.arange(len(values))})


for size, wrong in ((255, 1), (256, np.nan), (300, 300 / 44)):
    cells, weights = array(np.ones(size), "f8"), array(np.ones(size), "u1")
    show(f"mean of {size} ones", cells.weighted(weights).mean(), wrong)
    show("    with weights of float64", cells.weighted(weights.astype("f8")).mean(), 1)
    show("    NumPy's average", np.average(cells, weights=weights), 1)
cells, weights = array([1, 2, 3, 4], "f8"), array([200, 100, 1, 1], "u1")
show("mean of 1, 2, 3 and 4", cells.weighted(weights).mean(), 407 / (302 - 256))
show("    with weights of uint16", cells.weighted(weights.astype("u2")).mean(), 407 / 302)
counts = array([20_000] * 3, "i2")
show("mean of 20,000 in int16", counts.weighted(array([3] * 3, "i2")).mean(), -1845.33)
show("    in float64", counts.astype("f8").weighted(array([3] * 3, "i2")).mean(), 20_000)
steady = array([200, 200], "u1")
show("integral of 200 in uint8", steady.integrate("x"), 72)
show("    in float64", steady.astype("f8").integrate("x"), 200)
show("integral of 20,000 in int16", counts.integrate("x"), -25_536)
show("    cumulative", counts.cumulative_integrate("x")[-1], -25_536)
sys.exit(0 if as_seen else "This has changed.")
END
