#!/bin/sh
# Packed files of which each has its own scale and offset, as many archives make them one for each month,
# should be refused where they are joined by reference, or be unpacked each by its own. VirtualiZarr 2.5.1
# compares types, codecs and shapes of chunks, but scale_factor and add_offset are attributes for it, of
# which xr.concat keeps those of the first file; MultiZarrToZarr of kerchunk 0.2.10 does the same. The
# values of all later files are then computed by another scale, here up to 4.5 kelvins too warm. No warning.
# The same files through xr.open_mfdataset are right; combine_attrs="no_conflicts" makes xr.concat refuse.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    virtualizarr==2.5.1 kerchunk==0.2.10 xarray==2026.9.0 h5netcdf==1.8.2 h5py==3.16.0 zarr==3.1.6 \
    'dask[array]==2026.8.0' numpy==2.4.6 obstore==0.12.1 || exit 2
venv/bin/python -I -W ignore - <<'END'
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from kerchunk.combine import MultiZarrToZarr
from kerchunk.hdf import SingleHdf5ToZarr
from obstore.store import LocalStore
from virtualizarr import open_virtual_dataset
from virtualizarr.parsers import HDFParser
from virtualizarr.registry import ObjectStoreRegistry

warm = np.array([[280.0, 281.0, 282.0]])
files = []
for month, (scale, offset) in enumerate([(0.01, 280.0), (0.02, 270.0)]):
    file = Path(f"{month}.nc").absolute()
    packing = {"dtype": "i2", "scale_factor": scale, "add_offset": offset, "_FillValue": -32767}
    data = xr.Dataset({"t": (("time", "x"), warm + month)}, {"time": [month]})
    data.to_netcdf(file, engine="h5netcdf", encoding={"t": packing})
    files.append(file.as_uri())

registry = ObjectStoreRegistry({"file://": LocalStore()})
virtual = [
    open_virtual_dataset(file, registry=registry, parser=HDFParser(), loadable_variables=["time"])
    for file in files
]
xr.concat(virtual, "time").vz.to_kerchunk("virtualizarr.json", format="json")
try:
    xr.concat(virtual, "time", combine_attrs="no_conflicts")
    refused = False
except xr.MergeError:
    refused = True
references = [SingleHdf5ToZarr(file).translate() for file in files]
joined = MultiZarrToZarr(references, concat_dims=["time"]).translate()
Path("kerchunk.json").write_text(json.dumps(joined))

true = xr.open_mfdataset([file.removeprefix("file://") for file in files], engine="h5netcdf").t.values
print("xr.open_mfdataset:", true.tolist())
as_seen = np.allclose(true, [warm[0], warm[0] + 1], atol=0.02) and refused
for name in ("virtualizarr", "kerchunk"):
    found = xr.open_dataset(f"{name}.json", engine="kerchunk").t.values
    print(f"{name}: {found.tolist()}")
    as_seen &= np.array_equal(found[0], true[0]) and (found[1] > true[1] + 3).all()
sys.exit(0 if as_seen else "This has changed.")
END
