#!/bin/sh
# The mean of half-precision numbers should be near them. NumPy 2.4.6 adds float16 up in float32 for mean, so
# that of 500 temperatures of 300 K is 300; but in float16 for nanmean, for average with weights and for std,
# which are infinite. dask.array 2026.8.0 and xarray 2026.9.0 do so for mean too, however small the chunks are:
# it is infinite as soon as the sum is above 65504, and NaN of 100,000 ones, as their number is infinite as
# well. There is a warning of an overflow at most, which is on its way in many programs anyway. Only dtype='f8'
# helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 xarray==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore::RuntimeWarning - <<'END'
import sys

import dask.array as da
import numpy as np
import xarray as xr

as_seen = True


def show(text, found, expected):
    global as_seen
    print(f"{text}: {float(found)}")
    as_seen &= np.allclose(found, expected, equal_nan=True)


warm = np.full(500, 300, "f2")
chunked = da.from_array(warm, chunks=50)
show("500 temperatures of 300 K, NumPy's mean", warm.mean(), 300)
show("    nanmean", np.nanmean(warm), np.inf)
show("    average with weights", np.average(warm, weights=np.ones(500, "f2")), np.inf)
show("    std", warm.std(), np.inf)
show("    nanmean with dtype=f8", np.nanmean(warm, dtype="f8"), 300)
show("    Dask's mean", chunked.mean().compute(), np.inf)
show("    with dtype=f8", chunked.mean(dtype="f8").compute(), 300)
show("    xarray's mean", xr.DataArray(warm).mean(), np.inf)
show("    in chunks", xr.DataArray(chunked).mean().compute(), np.inf)
show("    with dtype=f8", xr.DataArray(warm).mean(dtype="f8"), 300)
ones = np.ones(100_000, "f2")
show("100,000 ones, NumPy's mean", ones.mean(), 1)
for size in (100_000, 1000):
    show(f"    Dask's in chunks of {size}", da.from_array(ones, chunks=size).mean().compute(), np.nan)
sys.exit(0 if as_seen else "This has changed.")
END
