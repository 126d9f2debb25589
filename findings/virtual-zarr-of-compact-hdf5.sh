#!/bin/sh
# A virtual Zarr store over an HDF5 file should hold the file's numbers. HDF5 keeps a dataset of
# compact layout (up to 64 KiB) in its header, without a place of its own in the file that a chunk
# reference could name. VirtualiZarr 2.5.1 takes it for an array that was never written, so it
# reads as fill values: zeros. kerchunk 0.2.10 does the same with those above its threshold for
# inlining; as its stores are Zarr 2, xarray turns the fill values into NaN. Neither says anything.
# Calibration tables and coordinates of some writers are compact, while the large arrays beside
# them are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    virtualizarr==2.5.1 kerchunk==0.2.10 h5py==3.16.0 zarr==3.1.6 xarray==2026.9.0 \
    obspec-utils==0.9.0 obstore==0.12.1 numcodecs==0.16.6 fsspec==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
from pathlib import Path

import h5py
import kerchunk.hdf
import numpy as np
import xarray as xr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtualizarr.parsers import HDFParser

warnings.simplefilter("ignore")
values = np.arange(1, 1001, dtype="i4")
with h5py.File("compact.h5", "w") as file:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_INT32, space, layout)
    file["compact"][:] = values
    file.create_dataset("chunked", data=values, chunks=(500,))
    file["x"] = np.arange(1000.0)
    file["x"].make_scale("x")
    for name in ("compact", "chunked"):
        file[name].dims[0].attach_scale(file["x"])

registry = ObjectStoreRegistry({"file://": LocalStore()})
virtual = HDFParser()(url=Path("compact.h5").absolute().as_uri(), registry=registry)
options = {"fo": kerchunk.hdf.SingleHdf5ToZarr("compact.h5").translate(), "remote_protocol": "file"}
arguments = {"consolidated": False, "storage_options": options}
programs = {
    "h5py": h5py.File("compact.h5"),
    "virtualizarr": xr.open_zarr(virtual, consolidated=False, zarr_format=3),
    "kerchunk": xr.open_dataset("reference://", engine="zarr", backend_kwargs=arguments),
}
read = {}
for program, opened in programs.items():
    compact, chunked = (np.asarray(opened[name]) for name in ("compact", "chunked"))
    print(f"{program}: compact {compact[:4]} ..., chunked {chunked[:4]} ...")
    read[program] = compact
    if not np.array_equal(chunked, values):
        sys.exit("This has changed.")

as_seen = np.array_equal(read["h5py"], values) and not read["virtualizarr"].any()
sys.exit(0 if as_seen and np.isnan(read["kerchunk"]).all() else "This has changed.")
END
