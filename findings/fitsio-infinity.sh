#!/bin/sh
# A plain FITS image of floating-point numbers holds IEEE 754 numbers, infinities among them, and one
# expects a writer to store the bits that it is given. fitsio 1.4.2, on CFITSIO, keeps NaN, negative
# zero and subnormal numbers of float64, but writes NaN in the place of both infinities. astropy
# stores them, and fitsio reads them. A ratio of a frame and a flat field with dead pixels is no
# longer told from what was never measured.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    fitsio==1.4.2 astropy==8.0.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import fitsio
import numpy as np
from astropy.io import fits

seen = {}
for dtype in ("f4", "f8"):
    image = np.array([[1.5, np.nan, np.inf, -np.inf, -0.0]], dtype)
    fitsio.write(f"fitsio-{dtype}.fits", image)
    fits.PrimaryHDU(image).writeto(f"astropy-{dtype}.fits")
    for writer in ("fitsio", "astropy"):
        name = f"{writer}-{dtype}.fits"
        seen[writer, dtype] = [fitsio.read(name)[0].tolist(), fits.getdata(name)[0].tolist()]
        print(f"{dtype} written by {writer}: read by fitsio, astropy:", *seen[writer, dtype])

as_seen = True
for (writer, dtype), reads in seen.items():
    third = "nan" if writer == "fitsio" else "inf"
    fourth = "nan" if writer == "fitsio" else "-inf"
    as_seen = as_seen and all(
        list(map(str, read)) == ["1.5", "nan", third, fourth, "-0.0"] for read in reads
    )
sys.exit(0 if as_seen else "This has changed.")
END
