#!/bin/sh
# Two sums of rain that end at the same hour, one since the start of the forecast and one of the last six
# hours, should be two variables or an error: cfgrib refuses what it cannot lay out in a cube, with "multiple
# values for unique key". cfgrib 0.9.15.1 (ecCodes 2.50.0) knows steps by their end alone, so that both have
# the same place, and whichever comes first in the file is taken at each hour. One variable then mixes sums
# of 6, 12 and 18 hours, and the other messages cannot be seen, in cfgrib.open_datasets neither. Nothing is
# said, stepRange is not among the attributes, and filter_by_keys by stepRange works, for who knows of it.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    cfgrib==0.9.15.1 eccodes==2.50.0 eccodeslib==2.50.0.33 xarray==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore - <<'END'
import sys

import cfgrib
import eccodes
import numpy as np
import xarray as xr

GRID = {
    "Ni": 2,
    "Nj": 2,
    "latitudeOfFirstGridPointInDegrees": 1,
    "latitudeOfLastGridPointInDegrees": 0,
    "longitudeOfFirstGridPointInDegrees": 0,
    "longitudeOfLastGridPointInDegrees": 1,
    "iDirectionIncrementInDegrees": 1,
    "jDirectionIncrementInDegrees": 1,
    "productDefinitionTemplateNumber": 8,
    "shortName": "tp",
    "stepType": "accum",
}


def write(name, sums):
    with open(name, "wb") as file:
        for hours, rain in sums.items():
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            for key, value in (GRID | {"stepRange": hours}).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, np.full(4, float(rain)))
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)


def read(name, **keys):
    options = {"indexpath": "", "filter_by_keys": keys}
    return xr.open_dataset(name, engine="cfgrib", backend_kwargs=options).tp


sums = {"0-6": 6, "6-12": 7, "0-12": 13, "0-18": 15, "12-18": 2}
write("rain.grib2", sums)
write("turned.grib2", dict(reversed(sums.items())))
as_seen = True
for name, seen in (("rain.grib2", [6, 7, 15]), ("turned.grib2", [6, 13, 2])):
    rain = read(name)
    hours = (rain.step.values / np.timedelta64(1, "h")).tolist()
    values = rain.values[:, 0, 0].tolist()
    found = cfgrib.open_datasets(name, backend_kwargs={"indexpath": ""})
    print(f"{name}: rain until {hours}: {values}, in {len(found)} dataset")
    as_seen &= hours == [6, 12, 18] and values == seen and len(found) == 1
    as_seen &= len(found[0].data_vars) == 1 and "GRIB_stepRange" not in rain.attrs
each = {hours: float(read("rain.grib2", stepRange=hours).values[0, 0]) for hours in sums}
print("by stepRange:", each)
as_seen &= each == sums
sys.exit(0 if as_seen else "This has changed.")
END
