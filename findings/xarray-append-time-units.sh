#!/bin/sh
# Appending times to a Zarr store should store them in the units that the store has, or refuse.
# xarray 2026.9.0 does a third thing where the new times do not fit these units as integers: daily
# times are in the store as whole 'days since', then six and twelve o'clock of the third day are
# appended. A warning says that the times are written as 'hours since' instead. The numbers are (54
# and 60), but the array keeps its attribute 'days since', so that the hours are read as days. Both
# versions of Zarr. Series that grow in chunks of time, by night jobs that do not show warnings,
# get times that are months away.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    xarray==2026.9.0 zarr==3.1.6 numcodecs==0.16.6 pandas==3.1.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
import numpy as np
import pandas as pd
import xarray as xr


def at(*times):
    return xr.Dataset({"x": ("time", np.zeros(len(times)))}, {"time": pd.to_datetime(list(times))})


seen = []
for version in (2, 3):
    store = f"series{version}.zarr"
    at("2000-01-01", "2000-01-02").to_zarr(store, zarr_format=version, consolidated=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        at("2000-01-03T06", "2000-01-03T12").to_zarr(store, append_dim="time", consolidated=False)
    said = [str(w.message) for w in caught if "instead" in str(w.message)]
    raw = xr.open_zarr(store, consolidated=False, decode_times=False).time
    times = xr.open_zarr(store, consolidated=False).time.dt.strftime("%Y-%m-%dT%H").values.tolist()
    print(f"Zarr {version}, it said:", *(text.split(". Set")[0] for text in said))
    print("    stored:", raw.values.tolist(), raw.attrs["units"])
    print("    read:  ", times)
    seen.append((len(said) > 0, raw.values.tolist(), raw.attrs["units"], times[2:]))

wanted = (True, [0, 1, 54, 60], "days since 2000-01-01", ["2000-02-24T00", "2000-03-01T00"])
units = [(said, raw, unit[:21], times) for said, raw, unit, times in seen]
sys.exit(0 if units == [wanted] * 2 else "This has changed.")
END
