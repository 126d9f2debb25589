#!/bin/sh
# The variance within groups should be that of their values. numbagg 0.9.6 adds up the values and
# their squares in the type of the values: of float32 around 300 with a spread of 0.1 the variance
# of groups of 500,000 is -152 instead of 0.01, so that the standard deviation is NaN, and around
# 100,000 it is 76 millions. groupby of xarray 2026.9.0 through flox 0.11.2 has 0.19 and 131,744
# with engine="numbagg"; its other engines are right to two digits. So is nanvar of numbagg itself,
# without groups. Nothing is said. Images of detectors are often kept as float32, and their noise is
# such a small spread around a large mean.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    xarray==2026.9.0 flox==0.11.2 numbagg==0.9.6 numba==0.68.1 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore - <<'END'
import sys

import numbagg
import numpy as np
import xarray as xr

rng = np.random.default_rng(0)
as_seen = True
for mean in (300, 100_000):
    for count in (2_000, 1_000_000):
        values = (mean + 0.1 * rng.standard_normal(count)).astype("f4")
        group = np.arange(count) % 2
        true = np.array([values[k::2].astype("f8").var() for k in (0, 1)])
        array = xr.DataArray(values, dims="t", coords={"g": ("t", group)}).groupby("g")
        found = {
            "numbagg, by groups": numbagg.group_nanvar(values, group, ddof=0),
            "numbagg, without groups": np.array(
                [numbagg.nanvar(values[k::2].copy(), ddof=0) for k in (0, 1)]
            ),
            "xarray, numbagg": array.var(engine="numbagg").values,
            "xarray, numpy": array.var(engine="numpy").values,
            "xarray, flox": array.var(engine="flox").values,
        }
        print(f"around {mean}, {count // 2} a group: {true.round(5)}")
        for name, variance in found.items():
            wrong = not np.allclose(variance, true, rtol=0.02)
            print(f"    {name}: {variance}", "WRONG" if wrong else "")
            if count == 1_000_000:
                as_seen &= wrong == (name in ("numbagg, by groups", "xarray, numbagg"))
sys.exit(0 if as_seen else "This has changed.")
END
