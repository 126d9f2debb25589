#!/bin/sh
# A compressed FITS image should hold the same numbers for every reader. Unsigned 16-bit images have
# BZERO = 32768, and PLIO_1 stores no negative numbers; CFITSIO (fitsio 1.4.2) therefore stores the
# values themselves below PLIO_1, with BZERO in the header, and takes that back when it reads.
# astropy 8.0.2 applies BZERO: each pixel is 32768 too large, without an error. astropy itself
# refuses to write such an image. The other compressions agree.
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

frame = np.arange(12, dtype="u2").reshape(3, 4)
off = {}
for compression in ("RICE", "GZIP", "GZIP_2", "HCOMPRESS", "PLIO"):
    size = (16, 16) if compression == "HCOMPRESS" else frame.shape
    image = np.resize(frame, size)
    name = f"{compression}.fits"
    fitsio.write(name, image, compress=compression)
    by_fitsio, by_astropy = fitsio.read(name), fits.getdata(name, 1)
    assert np.array_equal(by_fitsio, image)
    off[compression] = np.unique(by_astropy.astype("i8") - image).tolist()
    print(f"{compression}: astropy minus what was written {off[compression]}")

as_seen = off.pop("PLIO") == [32768] and all(found == [0] for found in off.values())
sys.exit(0 if as_seen else "This has changed.")
END
