#!/bin/sh
# Raw data outside an HDF5 file ("external" storage) should be found beside that file, and a
# dataset that was opened should let its attributes be listed. In libhdf5 2.0.0 (h5py 3.16.0) a
# relative name is looked up in the current folder, so the same file reads or fails by where the
# program was started. The remedy is the access property efile_prefix "${ORIGIN}". Through it the
# numbers are read, also one attribute by name, but listing the attributes fails: iterating opens
# the dataset once more without the property. Detector files with raw images beside them are of
# this kind.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import os
import sys
import h5py
import numpy as np

os.makedirs("run")
np.arange(4, dtype="i4").tofile("run/frames.raw")
with h5py.File("run/scan.h5", "w") as file:
    whole = [("frames.raw", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("frames", (4,), "i4", external=whole).attrs["unit"] = "counts"


def attempt(call):
    try:
        return call()
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def opened(path, prefix=None):
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    if prefix is not None:
        access.set_efile_prefix(prefix)
    return h5py.Dataset(h5py.h5d.open(h5py.File(path).id, b"frames", access))


print(h5py.version.hdf5_version)
elsewhere = attempt(lambda: opened("run/scan.h5")[:].tolist())
os.chdir("run")
beside = attempt(lambda: opened("scan.h5")[:].tolist())
os.chdir("..")
frames = opened("run/scan.h5", b"${ORIGIN}")
prefixed = attempt(lambda: frames[:].tolist())
named = attempt(lambda: frames.attrs["unit"])
listed = attempt(lambda: list(frames.attrs))
print("read from another folder:", elsewhere)
print("read from its own folder:", beside)
print("read with the prefix:    ", prefixed)
print("an attribute by its name:", named)
print("the list of attributes:  ", listed)

as_seen = "external raw data file" in str(elsewhere) and beside == prefixed == [0, 1, 2, 3]
as_seen = as_seen and named == "counts" and "prefix does not match" in str(listed)
sys.exit(0 if as_seen else "This has changed.")
END
