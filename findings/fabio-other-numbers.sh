#!/bin/sh
# A detector image that a format cannot hold should be refused, as fabio does for EDF and booleans,
# or the class should say what it does. fabio 2026.6.0 writes a rounded or other image without an
# error: to CBF floating-point numbers without their fractions, to PNM negative numbers as 0 and
# large ones as 65535, to d*TREK the low 32 bits of 64-bit counts. Big-endian 32-bit images
# with large steps lose them in CBF; and the OXD format, which can hold unsigned 16-bit images,
# changes the pixels beside a large step, because the differences are taken in 16 bits.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    fabio==2026.6.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import logging
import sys
import fabio
import numpy as np
from fabio.cbfimage import CbfImage
from fabio.dtrekimage import DtrekImage
from fabio.OXDimage import OxdImage
from fabio.pnmimage import PnmImage

logging.disable(logging.WARNING)
steps = [[0, 2**31 - 1, -(2**31), 5]] * 4
cases = {
    "floats to CBF": (CbfImage, "cbf", np.full((4, 4), 0.75, "f4"), 0),
    "int32 to CBF": (CbfImage, "cbf", np.array(steps, "<i4"), steps[0][1]),
    "big-endian int32 to CBF": (CbfImage, "cbf", np.array(steps, ">i4"), None),
    "negative to PNM": (PnmImage, "pnm", np.full((4, 4), -3, "i4"), 0),
    "uint32 to PNM": (PnmImage, "pnm", np.full((4, 4), 70000, "u4"), 65535),
    "uint64 to d*TREK": (DtrekImage, "img", np.full((4, 4), 2**40 + 9, "u8"), 9),
    "uint16 to OXD": (OxdImage, "img", np.array([[65535, 0, 7, 7]] * 4, "u2"), None),
}
as_seen = True
for name, (kind, suffix, image, expected) in cases.items():
    path = f"x.{suffix}"
    kind(data=image.copy(), header={}).write(path)
    read = fabio.open(path).data
    same = np.array_equal(read, image)
    print(f"{name}: written {image[0].tolist()}, read {read[0].tolist()}")
    as_seen = as_seen and same == (name == "int32 to CBF")
    as_seen = as_seen and expected in (None, int(read[0, 1]))
sys.exit(0 if as_seen else "This has changed.")
END
