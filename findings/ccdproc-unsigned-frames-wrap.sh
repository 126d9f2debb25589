#!/bin/sh
# A frame less its bias or dark should be negative where the noise wants it. The frames of most cameras are
# uint16, CCDData.read keeps that, and subtract_bias, subtract_dark and ccd_process of ccdproc 2.5.1 subtract
# in uint16: a pixel of 100 less a bias of 110 is 65526, as bright as a pixel can be, and nothing is said.
# astropy's own quantities of the same numbers give -10, and so does subtract_dark with scale=True, or a bias
# that combine() has made float64. CCDData.add and multiply wrap as well, so that two frames of 40000 are
# 14464 together, where a Combiner finds 80000. float32 frames (or .astype before) are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    ccdproc==2.5.1 astropy==8.0.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import ccdproc
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData


def frames(dtype):
    found = []
    for name, pixels in (("raw.fits", [[100, 40000]]), ("bias.fits", [[110, 30000]])):
        fits.writeto(name, np.array(pixels, dtype), overwrite=True)
        found.append(CCDData.read(name, unit="adu"))
    return found


def reduced(dtype):
    raw, bias = frames(dtype)
    assert raw.data.dtype.newbyteorder("=") == dtype
    second = {"dark_exposure": 1 * units.s, "data_exposure": 1 * units.s}
    results = {
        "subtract_bias": ccdproc.subtract_bias(raw, bias),
        "subtract_dark": ccdproc.subtract_dark(raw, bias, **second),
        "ccd_process": ccdproc.ccd_process(raw, master_bias=bias),
        "subtract": raw.subtract(bias),
        "add": raw.add(raw),
        "multiply by 2": raw.multiply(2),
        "subtract_dark, scale=True": ccdproc.subtract_dark(raw, bias, scale=True, **second),
        "subtract_bias, combined": ccdproc.subtract_bias(raw, ccdproc.combine([bias, bias])),
        "Combiner's sum": ccdproc.Combiner([raw, raw]).sum_combine(),
    }
    found = {name: result.data[0].tolist() for name, result in results.items()}
    found["quantities"] = (raw.data * raw.unit - bias.data * bias.unit)[0].value.tolist()
    return found


wide, narrow = reduced(np.dtype("f4")), reduced(np.dtype("u2"))
for name in wide:
    print(f"{name}: of float32 {wide[name]}, of uint16 {narrow[name]}")
less, twice = [-10, 10000], [200, 80000]
differ = {name: narrow[name] for name in wide if narrow[name] != wide[name]}
as_seen = all(found == (twice if found[0] > 0 else less) for found in wide.values())
as_seen &= [*differ] == ["subtract_bias", "subtract_dark", "ccd_process", "subtract", "add", "multiply by 2"]
as_seen &= [*differ.values()] == [[65526, 10000]] * 4 + [[200, 14464]] * 2
sys.exit(0 if as_seen else "This has changed.")
END
