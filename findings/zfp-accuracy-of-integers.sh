#!/bin/sh
# A dataset written with hdf5plugin's Zfp(accuracy=0.1) should be within 0.1 of the values. For
# floating-point numbers it is. For integers zfp has no mode of fixed accuracy; the HDF5 filter of
# hdf5plugin 7.1.0 takes the setting without a word and compresses as if it were not there. The
# stored size is the same for any accuracy, and integers of 32 and of 64 bits are off by whole
# units, more where the values vary more. Only reversible=True keeps integers. Raw detector frames
# are integers.
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

frame = np.random.default_rng(0).integers(0, 5000, (64, 64))


def error_and_size(dtype, **mode):
    values = frame.astype(dtype)
    with h5py.File("zfp.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=values.shape, **hdf5plugin.Zfp(**mode))
    with h5py.File("zfp.h5") as file:
        stored = file["x"][:]
        return float(np.abs(stored.astype("f8") - values).max()), file["x"].id.get_storage_size()


seen = {}
for dtype in ("f4", "i4", "i8"):
    for accuracy in (0.1, 10, 1000):
        seen[dtype, accuracy] = error_and_size(dtype, accuracy=accuracy)
        print(f"{dtype} accuracy={accuracy}: (error, bytes stored) {seen[dtype, accuracy]}")
reversible = error_and_size("i4", reversible=True)
print("i4 reversible: error", reversible[0])

as_seen = all(seen["f4", accuracy][0] <= accuracy for accuracy in (0.1, 10, 1000))
as_seen = as_seen and len({seen["f4", accuracy][1] for accuracy in (0.1, 10, 1000)}) == 3
as_seen = as_seen and reversible[0] == 0
for dtype in ("i4", "i8"):
    as_seen = as_seen and len({seen[dtype, accuracy] for accuracy in (0.1, 10, 1000)}) == 1
    as_seen = as_seen and seen[dtype, 0.1][0] >= 1
sys.exit(0 if as_seen else "This has changed.")
END
