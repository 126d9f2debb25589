#!/bin/sh
# The document of a Zarr 2 array says in which order the elements of a chunk lie: "C" or "F". One
# expects a reader to follow it or to refuse it. netCDF-C 4.10.1 (netCDF4 1.7.5.1 for Python) opens
# an array of order "F" and reads its chunks in order "C": every number is there, most at another
# place. An array without axes has no name for it at all.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    netCDF4==1.7.5.1.post1 zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import os
import sys
import netCDF4
import numpy as np
import zarr

values = np.arange(24, dtype="i4").reshape(4, 6)
group = zarr.open_group("n.zarr", mode="w", zarr_format=2)
for order in "CF":
    made = group.create_array(order, shape=(4, 6), chunks=(2, 3), dtype="i4", order=order)
    made[...] = values
group.create_array("scalar", shape=(), dtype="i4")[...] = 7
with netCDF4.Dataset(f"file://{os.getcwd()}/n.zarr#mode=zarr,file") as file:
    read = {order: np.asarray(file[order][...]) for order in "CF"}
    names = sorted(file.variables)
same = {order: np.array_equal(read[order], values) for order in "CF"}
print("zarr:", group["F"][0])
print("netCDF:", read["F"][0])
print("as written:", same, "the same numbers:", sorted(read["F"].flat) == sorted(values.flat))
print("variables:", names)

as_seen = same == {"C": True, "F": False} and sorted(read["F"].flat) == sorted(values.flat)
sys.exit(0 if as_seen and names == ["C", "F"] else "This has changed.")
END
