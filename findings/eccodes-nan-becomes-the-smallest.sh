#!/bin/sh
# NaN in a field that is written to GRIB should be refused, as infinity is, or be a missing value,
# for which GRIB has a bitmap. ecCodes (eccodes 2.50.0 for Python) with simple packing, and with
# that of CCSDS, writes the smallest number of the field instead, with the bitmap as without: the
# range looks right, the mean is another one, and nothing is raised or logged. Packed as IEEE floats
# it is kept. Missing values have to be set to 9999 by hand, or what missingValue says, and then
# every real 9999 is missing too. xarray and most models mark missing cells by NaN.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    eccodes==2.50.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import eccodes
import numpy as np


def written(values, **keys):
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    for key, value in {"Ni": len(values), "Nj": 1, **keys}.items():
        eccodes.codes_set(message, key, value)
    try:
        eccodes.codes_set_values(message, np.array(values))
    except eccodes.CodesInternalError:
        return "an error"
    again = eccodes.codes_new_from_message(eccodes.codes_get_message(message))
    missing = eccodes.codes_get(again, "numberOfMissing")
    return eccodes.codes_get_values(again).tolist(), missing


field = [250.0, float("nan"), 270.0, 280.0]
seen = {
    "simple": written(field),
    "simple, with a bitmap": written(field, bitmapPresent=1),
    "CCSDS": written(field, packingType="grid_ccsds"),
    "IEEE": written(field, packingType="grid_ieee"),
    "simple, 9999 and a bitmap": written([250.0, 9999.0, 270.0, 280.0], bitmapPresent=1),
    "simple, infinity": written([250.0, float("inf"), 270.0, 280.0]),
}
for name, result in seen.items():
    print(f"{name}: read (and how many are missing) {result}")

smallest = ([250.0, 250.0, 270.0, 280.0], 0)
as_seen = seen["simple"] == seen["simple, with a bitmap"] == seen["CCSDS"] == smallest
as_seen &= bool(np.isnan(seen["IEEE"][0][1])) and seen["simple, infinity"] == "an error"
as_seen &= seen["simple, 9999 and a bitmap"] == ([250.0, 9999.0, 270.0, 280.0], 1)
sys.exit(0 if as_seen else "This has changed.")
END
