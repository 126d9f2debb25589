#!/bin/sh
# HDF5's scale-offset filter with 3 decimals should keep floats to half a thousandth, and NaN as NaN
# or not at all. libhdf5 2.0.0 (h5py 3.16.0) takes the smallest and the largest value of each chunk
# and stores the rest as integers from there. A NaN in the chunk is stored as the integer of some
# other value: it comes back as a number that looks like its neighbours, without an error. Where
# NaN is the fill value it comes back as 0. And where NaN is the first or second value of a chunk of
# float32, or all of it, the write succeeds and the chunk cannot be read any more; in float64 that
# one is right. Masked pixels of corrected frames are NaN.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import h5py
import numpy as np


def kept(dtype, places, **options):
    values = np.linspace(0, 10, 8).astype(dtype)
    values[places] = np.nan
    with h5py.File("file.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(8,), scaleoffset=3, **options)
    with h5py.File("file.h5") as file:
        try:
            read = file["x"][:]
        except OSError as error:
            print(dtype, places, options, "cannot be read:", error)
            return None
    print(dtype, places, options, read)
    others = np.isfinite(values)
    assert np.allclose(read[others], values[others], rtol=0, atol=6e-4)
    return read[~others]


as_seen = True
for dtype in ("f4", "f8"):
    as_seen &= kept(dtype, []) is not None
    for places in ([3], [7], [2, 5]):
        numbers = kept(dtype, places)
        as_seen &= numbers is not None and bool(np.isfinite(numbers).all())
    zeros = kept(dtype, [2, 5], fillvalue=np.nan)
    as_seen &= zeros is not None and not zeros.any()
as_seen &= kept("f4", [0]) is None and kept("f4", [1]) is None and kept("f4", slice(None)) is None
as_seen &= all(bool(np.isnan(kept("f8", where)).all()) for where in ([0], [1], slice(None)))
sys.exit(0 if as_seen else "This has changed.")
END
