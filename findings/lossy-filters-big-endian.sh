#!/bin/sh
# A dataset written with hdf5plugin's Zfp(accuracy=0.5) or Sperr(absolute=0.5) should be within 0.5
# of its values, or be refused. HDF5 gives a filter the elements in the order of bytes in which they
# are stored. The filters of hdf5plugin 7.1.0 take these bytes for native floating-point numbers, so
# big-endian float32, as FITS, Java and older instruments give it, comes back as other numbers,
# without an error. Sperr takes integers for floating-point numbers too. Zfp(reversible=True) and
# lossless filters are not concerned.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    hdf5plugin==7.1.0 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import h5py
import hdf5plugin
import numpy as np

ramp = np.arange(16**3).reshape(16, 16, 16) % 200
filters = {
    "Zfp(accuracy=0.5)": hdf5plugin.Zfp(accuracy=0.5),
    "Zfp(reversible=True)": hdf5plugin.Zfp(reversible=True),
    "Sperr(absolute=0.5)": hdf5plugin.Sperr(absolute=0.5),
}
seen = {}
for name, filter_ in filters.items():
    for dtype in ("<f4", ">f4", "<f8", ">f8", "<i4"):
        with h5py.File("x.h5", "w") as file:
            values = ramp.astype(dtype)
            file.create_dataset("x", data=values, chunks=values.shape, **filter_)
        with h5py.File("x.h5") as file:
            seen[name, dtype] = float(np.abs(file["x"][...].astype("f8") - ramp).max())
        print(f"{name} {dtype}: largest error {seen[name, dtype]:.4g}")

zfp, reversible, sperr = filters
as_seen = all(seen[reversible, dtype] == 0 for dtype in ("<f4", ">f4", "<f8", ">f8", "<i4"))
for name in (zfp, sperr):
    as_seen = as_seen and seen[name, "<f4"] <= 0.5 and seen[name, "<f8"] <= 0.5
    as_seen = as_seen and seen[name, ">f4"] > 100 and seen[name, ">f8"] > 100
as_seen = as_seen and seen[sperr, "<i4"] > 50
sys.exit(0 if as_seen else "This has changed.")
END
