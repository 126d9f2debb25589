#!/bin/sh
# The error of a measured flux should not depend on the type of the array of errors. photutils 3.0.0 squares it
# in its own type: errors of 20 counts per pixel give 63.8 in uint8 for an aperture, 106.3 in float64; 400
# counts give 904 instead of 2127 in uint16 and int16, and 200 counts in int16, as most FITS images are, NaN,
# with a warning of a root only. In float16 400 counts are infinite. CircularAperture, ApertureStats,
# RadialProfile and SourceCatalog have the same; for the rest nothing is said. Fluxes of the same types are
# right. Convert errors to float64.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    photutils==3.0.0 astropy==8.0.2 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore::RuntimeWarning - <<'END'
import sys

import numpy as np
from photutils.aperture import ApertureStats, CircularAperture
from photutils.profiles import RadialProfile
from photutils.segmentation import SegmentationImage, SourceCatalog

aperture = CircularAperture((10, 10), 3)
labels = np.zeros((21, 21), int)
labels[5:15, 5:15] = 1


def errors(dtype, counts):
    image, error = np.full((21, 21), 1000.0), np.full((21, 21), counts).astype(dtype)
    found = {
        "aperture": aperture.do_photometry(image, error=error)[1][0],
        "ApertureStats": ApertureStats(image, aperture, error=error).sum_err,
        "RadialProfile": RadialProfile(image, (10, 10), np.arange(3), error=error).profile_error[0],
        "SourceCatalog": SourceCatalog(image, SegmentationImage(labels), error=error).segment_flux_err[0],
    }
    print(f"{counts} counts in {dtype}:", {name: round(float(value), 1) for name, value in found.items()})
    return np.array([*found.values()], float)


as_seen = True
right = errors("f8", 1)
for counts in (20, 200, 400):
    as_seen &= all(np.allclose(errors(dtype, counts), right * counts) for dtype in ("f8", "i4"))
as_seen &= np.allclose(errors("u1", 20), right * (20**2 % 2**8) ** 0.5)
for dtype in ("u2", "i2", ">i2"):
    as_seen &= np.allclose(errors(dtype, 400), right * (400**2 % 2**16) ** 0.5)
as_seen &= np.isnan(errors("i2", 200)).all() and not np.isfinite(errors("f2", 400)).any()
flux = [aperture.do_photometry(np.full((21, 21), 200).astype(dtype))[0][0] for dtype in ("u1", "i2", "f8")]
print("fluxes:", flux)
as_seen &= np.allclose(flux, flux[-1])
sys.exit(0 if as_seen else "This has changed.")
END
