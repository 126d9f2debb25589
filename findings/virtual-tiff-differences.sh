#!/bin/sh
# A virtual Zarr array over a TIFF should hold the image's numbers. TIFF's horizontal differencing
# (predictor 2, the usual one with LZW and Deflate) subtracts neighbouring pixels. In a big-endian
# file of 16 or 32-bit integers VirtualTIFF 0.5.0 adds them up again before it has swapped
# the bytes, so carries go the wrong way: small numbers may be right, and others are not. No
# error is raised. Little-endian files, 8-bit images, floating-point differences (predictor 3) and
# files without a predictor are right, and tifffile 2026.3.3 and async-tiff 0.7.2 read them all.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    virtual-tiff==0.5.0 virtualizarr==2.5.1 async-tiff==0.7.2 obspec-utils==0.9.0 obstore==0.12.1 \
    zarr==3.1.6 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore - <<'END'
import asyncio
import os
import sys
import async_tiff
import numpy as np
import tifffile
import zarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtual_tiff import VirtualTIFF

registry = ObjectStoreRegistry({"file://": LocalStore()})


def virtual(name):
    group = zarr.open(VirtualTIFF(ifd=0)(f"file://{os.path.abspath(name)}", registry), mode="r")
    array = group[next(iter(group.array_keys()))] if isinstance(group, zarr.Group) else group
    return np.squeeze(array[...])


async def first_tile(name):
    file = await async_tiff.TIFF.open(name, store=LocalStore(os.getcwd()))
    return np.squeeze(np.asarray(await (await file.fetch_tile(0, 0, 0)).decode()))


image = np.random.default_rng(0).integers(0, 2000, (32, 32))
as_seen = True
for dtype in ("u1", "u2", "i4", "f4"):
    for order in "<>":
        for predictor in (None, 3 if dtype == "f4" else 2):
            values = (image % 256 if dtype == "u1" else image).astype(dtype)
            tifffile.imwrite(
                "x.tif", values, byteorder=order, compression="zlib", predictor=predictor, tile=(16, 16)
            )
            read = virtual("x.tif")
            wrong = int((read != values).sum())
            plain = np.array_equal(tifffile.imread("x.tif"), values)
            tile = np.array_equal(asyncio.run(first_tile("x.tif")), values[:16, :16])
            print(order + dtype, "predictor", predictor, "pixels wrong:", wrong, "of", values.size, end=" ")
            print("others right:", plain and tile, read[0, :4], "of", values[0, :4])
            swapped = order == ">" and predictor == 2 and dtype != "u1"
            as_seen &= (wrong > 0) == swapped and plain and tile
sys.exit(0 if as_seen else "This has changed.")
END
