#!/bin/sh
# A map of the Sun takes a mask of bad pixels, and what is computed of the map should leave them out, as the sums of
# superpixel do. sunpy 7.0.5 keeps the mask for submap and superpixel, and loses it without a word in rotate and
# resample and in FITS files: a bad pixel comes back as data. Its own max, mean and std look at all pixels, also
# where there is a mask: a masked array of NumPy with the same data and mask has others.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    'sunpy[map]==7.0.5' reproject==0.21.0 astropy==8.0.2 numpy==2.3.5 || exit 2
SUNPY_CONFIGDIR=$PWD venv/bin/python -I - 2>log <<'END' || { status=$?; cat log; exit $status; }
import sys

import astropy.units as u
import numpy as np
import sunpy.map

header = {
    "CTYPE1": "HPLN-TAN", "CUNIT1": "arcsec", "CDELT1": 1, "CRPIX1": 5, "CRVAL1": 0,
    "CTYPE2": "HPLT-TAN", "CUNIT2": "arcsec", "CDELT2": 1, "CRPIX2": 5, "CRVAL2": 0,
    "DATE-OBS": "2020-01-01T00:00:00", "HGLN_OBS": 0, "HGLT_OBS": 0, "DSUN_OBS": 1.5e11,
}
pixels = np.ones((10, 10))
pixels[0, 0] = 1e6  # struck by a cosmic ray
bad = pixels > 1
image = sunpy.map.Map(pixels, header, mask=bad)
right = np.ma.masked_array(pixels, bad)
print("max, mean:", image.max(), image.mean(), "of NumPy:", right.max(), right.mean())
as_seen = image.max() == 1e6 and image.mean() == pixels.mean() != right.mean() == right.max() == 1
image.save("image.fits")
results = {
    "submap": image.submap([0, 0] * u.pix, top_right=[3, 3] * u.pix),
    "superpixel": image.superpixel([2, 2] * u.pix),
    "rotate": image.rotate(90 * u.deg),
    "resample": image.resample([5, 5] * u.pix),
    "save": sunpy.map.Map("image.fits"),
}
for name, found in results.items():
    print(f"{name}: mask {'kept' if found.mask is not None else 'lost'}, largest {found.data.max():.0f}")
    as_seen &= (found.mask is not None) == (name in ("submap", "superpixel"))
as_seen &= results["superpixel"].data[0, 0] == 3
as_seen &= all(results[name].data.max() > 1e5 for name in ("rotate", "resample", "save"))
sys.exit(0 if as_seen else "This has changed.")
END
