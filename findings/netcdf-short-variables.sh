#!/bin/sh
# All variables of a netCDF-4 file have the same length along an unlimited dimension: what was not
# written yet reads as fill values. netCDF-C 4.10.1 (netCDF4 1.7.5.1 for Python) does that by
# filling the end of the buffer, which is right if the unlimited axis is the first. With dimensions
# (x, t) and t unlimited, a variable that has fewer times than another one is read with its values
# packed at the beginning: row 0 begins with values of row 1, and rows with data are all fill.
# Reading one row or one time at a time is right, and so are h5netcdf and h5py. The shape is right
# and nothing is raised. Files that are written while a run goes on have such variables.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    netCDF4==1.7.5.1.post1 h5netcdf==1.8.2 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import h5netcdf
import h5py
import netCDF4
import numpy as np

with netCDF4.Dataset("run.nc", "w") as file:
    file.createDimension("x", 3)
    file.createDimension("t", None)
    file.createVariable("time", "f8", ("t",))[:] = np.arange(5)
    counts = file.createVariable("counts", "i4", ("x", "t"), fill_value=-1)
    counts[:, :2] = [[10, 11], [20, 21], [30, 31]]
    late_first = file.createVariable("late_first", "i4", ("t", "x"), fill_value=-1)
    late_first[:2] = np.array([[10, 20, 30], [11, 21, 31]])
right = [[10, 11, -1, -1, -1], [20, 21, -1, -1, -1], [30, 31, -1, -1, -1]]
with netCDF4.Dataset("run.nc") as file:
    file.set_auto_mask(False)
    counts = file["counts"]
    whole, rows = counts[:].tolist(), [counts[i].tolist() for i in range(3)]
    first = file["late_first"][:].T.tolist()
with h5netcdf.File("run.nc") as file:
    by_h5netcdf = file["counts"][:].tolist()
with h5py.File("run.nc") as file:
    stored = file["counts"][:].tolist()
print("(x, t) by netCDF:  ", whole)
print("row by row:        ", rows)
print("by h5netcdf:       ", by_h5netcdf)
print("(t, x), transposed:", first)
print("stored, by h5py:   ", stored)
as_seen = rows == by_h5netcdf == first == right and stored == [row[:2] for row in right]
as_seen &= whole[0] == [10, 11, 20, 21, 30] and whole != right
sys.exit(0 if as_seen else "This has changed.")
END
