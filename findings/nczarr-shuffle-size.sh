#!/bin/sh
# A Zarr store that the netCDF library wrote should hold the same numbers for zarr-python. By
# default netCDF shuffles the bytes of what it compresses with zlib. netCDF-C 4.10.1 (netCDF4
# 1.7.5.1 for Python) leaves the size of the elements to the reader: the document says
# "elementsize": 0. numcodecs 0.16.6 takes 0 for bytes that were not shuffled, so zarr 3.1.6 returns
# other numbers without an error. Arrays of single bytes get an order, "<u1", and cannot be opened.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    netCDF4==1.7.5.1.post1 zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import json
import os
import sys
import netCDF4
import numpy as np
import zarr

values = np.arange(24, dtype="i4").reshape(4, 6)
url = "file://" + os.getcwd() + "/n.zarr#mode=zarr,file"
settings = {"default": {"zlib": True}, "unshuffled": {"zlib": True, "shuffle": False}}
with netCDF4.Dataset(url, "w") as file:
    file.createDimension("y", 4)
    file.createDimension("x", 6)
    for name, setting in settings.items():
        file.createVariable(name, "i4", ("y", "x"), chunksizes=(2, 3), **setting)[...] = values
    file.createVariable("bytes", "u1", ("y", "x"))[...] = values
with netCDF4.Dataset(url) as file:
    own = {name: np.array_equal(file[name][...], values) for name in settings}
filters = json.load(open("n.zarr/default/.zarray"))["filters"]
group = zarr.open_group("n.zarr", mode="r")
read = {name: group[name][...] for name in settings}
same = {name: np.array_equal(read[name], values) for name in settings}
try:
    group["bytes"]
    bytes_open = True
except ValueError as error:
    bytes_open = False
    print("bytes:", error)
print("filters:", filters)
print("read by netCDF as written:", own)
print("read by zarr as written:", same)
print("zarr, default:", read["default"][0])

as_seen = filters == [{"id": "shuffle", "elementsize": 0}] and all(own.values())
as_seen = as_seen and same == {"default": False, "unshuffled": True} and not bytes_open
sys.exit(0 if as_seen else "This has changed.")
END
