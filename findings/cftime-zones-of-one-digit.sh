#!/bin/sh
# The zone in a unit such as 'seconds since 1992-10-8 15:15:42.5 -6:00', the example of the CF conventions,
# should move all times by six hours. cftime 1.6.6.1, which netCDF4 hands out too, takes a zone only with two
# digits of the hour: -06:00 and -0600 count, -6:00, -6 and +5:30 are passed over, by num2date and date2num.
# Nothing is said. xarray 2026.9.0 decodes the usual calendar by itself and is right, but takes cftime for
# others, such as the noleap of models, and with use_cftime, so that the times of one file differ by six hours
# between two ways of opening it.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    cftime==1.6.6.1 xarray==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import cftime
import numpy as np
import xarray as xr

start = "seconds since 1992-10-8 15:15:42.5"
bare = cftime.num2date(0, start)
as_seen = True
for zone, hours, found in (
    ("-06:00", 6, 6),
    ("-0600", 6, 6),
    ("-06", 6, 6),
    ("-6:00", 6, 0),
    ("-6", 6, 0),
    ("+05:30", -5.5, -5.5),
    ("+5:30", -5.5, 0),
):
    moved = (cftime.num2date(0, f"{start} {zone}") - bare).total_seconds() / 3600
    back = cftime.date2num(bare, f"{start} {zone}") / 3600
    print(f"{zone}: {moved} hours by num2date, {back} by date2num, where {hours} were meant")
    as_seen &= moved == found and back == -found

stored = xr.Dataset({"t": ("t", [0.0, 1.0], {"units": f"{start} -6:00"})})
by_itself = xr.decode_cf(stored).t.values[0]
with_cftime = xr.coders.CFDatetimeCoder(use_cftime=True)
by_cftime = np.datetime64(xr.decode_cf(stored, decode_times=with_cftime).t.values[0].isoformat())
print("xarray by itself:", by_itself, "by cftime:", by_cftime)
as_seen &= by_itself - by_cftime == np.timedelta64(6, "h")
sys.exit(0 if as_seen else "This has changed.")
END
