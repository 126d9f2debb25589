#!/bin/sh
# A compressed FITS image that is not quantized should hold its floating-point numbers, or be refused, as CFITSIO does
# (fitsio 1.4.2): RICE and HCOMPRESS take whole numbers only. astropy 8.0.2, whose default is RICE, takes
# quantize_level=0 and then cuts off the fractions, without scale: 1.7 is stored as 1, 0.7 as 0, and NaN as
# -2147483648. The header says that the pixels are floats, and so CFITSIO takes the same whole numbers for the bits of
# floats: -1 is NaN, 2 is 2.8e-45. Only NaN is warned of, by NumPy. Calibrated frames, and masks and ratios from 0 to
# 1 most of all, are lost. GZIP with the same option is exact.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    astropy==8.0.2 fitsio==1.4.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import fitsio
import numpy as np
from astropy.io import fits

image = np.zeros((16, 16), "f4")
image[0, :6] = [0.7, 1.7, 2.5, -1.5, -0.25, 100.75]
holes = image.copy()
holes[0, 5] = np.nan
whole, bits = np.trunc(image), np.trunc(image).astype("i4").view("f4")
as_seen = True


def show(kind, pixels, by_astropy, by_cfitsio, warns=False):
    global as_seen
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = fits.CompImageHDU(pixels, compression_type=kind, quantize_level=0)
        made.writeto("image.fits", overwrite=True)
    found = [fits.getdata("image.fits", 1), fitsio.read("image.fits", ext=1)]
    print(f"{kind}, written {pixels[0, :6].tolist()}", *(str(one.message) for one in said))
    print(f"    astropy {found[0][0, :6].tolist()}\n    fitsio {found[1][0, :6].tolist()}")
    as_seen &= bool(said) == warns and all(each.dtype.kind == "f" for each in found)
    as_seen &= np.array_equal(found[0], by_astropy, equal_nan=True)
    as_seen &= by_cfitsio is None or np.array_equal(found[1], by_cfitsio, equal_nan=True)


show("RICE_1", image, whole, bits)
show("HCOMPRESS_1", image, whole, bits)
lowest = np.trunc(holes)
lowest[0, 5] = -(2**31)
show("RICE_1", holes, lowest, None, True)
show("GZIP_1", holes, holes, holes)
for kind in ("RICE", "HCOMPRESS"):
    try:
        with fitsio.FITS(f"{kind}.fits", "rw", clobber=True) as file:
            file.write(image, compress=kind, qlevel=0)
        refused = False
    except OSError as error:
        refused = True
        print(f"fitsio, {kind}: {str(error).splitlines()[0]}")
    as_seen &= refused
sys.exit(0 if as_seen else "This has changed.")
END
