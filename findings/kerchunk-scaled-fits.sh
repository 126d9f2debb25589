#!/bin/sh
# A FITS image should have the same numbers when it is read through references. Where its header has BSCALE or
# BZERO, as those of unsigned images have, or where they are 1 and 0 and change nothing, kerchunk 0.2.10 adds
# a filter that makes little-endian float64 of the numbers, but gives the array the type of the file. zarr
# takes the bytes of these floats for that type: 1.0 is 3e-319 and counts of uint64 are other integers, without
# an error; types of less than 8 bytes cannot be read. The floats divide by BSCALE where FITS multiplies.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    kerchunk==0.2.10 astropy==8.0.2 zarr==3.1.6 numcodecs==0.16.6 fsspec==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import fsspec
import kerchunk.fits
import numpy as np
import zarr
from astropy.io import fits


def readings(data, scaling):
    image = fits.PrimaryHDU(data)
    image.header.update(scaling)
    image.writeto("image.fits", overwrite=True)
    references = kerchunk.fits.process_file("image.fits")
    files = fsspec.filesystem("reference", fo=references, asynchronous=True)
    store = zarr.storage.FsspecStore(files, read_only=True)
    array = zarr.open_group(store, mode="r", zarr_format=2)["PRIMARY"]
    return fits.getdata("image.fits"), array[:]


counts = np.array([2048, 4096, 6144])
nothing = {"BSCALE": 1.0, "BZERO": 0.0}
as_seen = True
for dtype, scaling, floats in (
    ("f8", {}, None),
    ("i8", {}, None),
    ("f8", nothing, counts),
    ("i8", nothing, counts),
    ("f8", {"BSCALE": 2.0, "BZERO": 1.0}, counts / 2 + 1),
    ("u8", {}, counts),
):
    by_astropy, by_kerchunk = readings(counts.astype(dtype), scaling)
    right = counts * scaling.get("BSCALE", 1) + scaling.get("BZERO", 0)
    print(f"{dtype} {scaling}: astropy {by_astropy.tolist()}, kerchunk {by_kerchunk.tolist()}")
    as_seen &= np.array_equal(by_astropy, right)
    if floats is None:
        as_seen &= np.array_equal(by_kerchunk, right)
    else:
        as_seen &= np.array_equal(np.frombuffer(by_kerchunk.tobytes(), "<f8"), floats)
        as_seen &= not np.any(by_kerchunk == right)
try:
    readings(counts.astype("u2"), {})
    as_seen = False
except ValueError as error:
    print("u2:", error)
sys.exit(0 if as_seen else "This has changed.")
END
