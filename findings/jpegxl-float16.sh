#!/bin/sh
# A float16 image that is compressed by JPEG XL without loss should come back as it was, and float32
# does, NaN and infinity included. With libjxl 0.11.2 (imagecodecs 2026.3.6) each NaN of float16 comes
# back as infinity, of either sign by its sign bit, and each subnormal number of 3.05e-05 and more as
# twice what it has above that: 3.05e-05 as 0, 4.6e-05 as 3.05e-05. All others are exact. A TIFF that
# tifffile 2026.3.3 writes this way is infinite where pixels were missing, and so is its nanmean.
# Nothing is raised.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import imagecodecs
import numpy as np
import tifffile

print(imagecodecs.jpegxl_version())
image = np.arange(2**16, dtype="u2").reshape(256, 256).view("f2")
missing = np.isnan(image)
small = (np.abs(image) >= 2.0**-15) & (np.abs(image) < 2.0**-14)


def through(pixels):
    how = {"compression": "jpegxl", "compressionargs": {"lossless": True}}
    tifffile.imwrite("x.tif", pixels, **how)
    return tifffile.imread("x.tif")


read = through(image)
others = np.array_equal(read[~missing & ~small], image[~missing & ~small])
infinite = np.array_equal(read[missing], np.copysign(np.inf, image[missing]))
less = np.array_equal(np.abs(read[small]), 2 * (np.abs(image[small]) - np.float16(2.0**-15)))
print(f"of {missing.sum()} NaN {np.isinf(read[missing]).sum()} are read as infinity")
print(f"{small.sum()} small numbers as others, such as", image[small][:3], "as", read[small][:3])
print("all others are the same:", others)
wide = image.astype("f4")
exact = np.array_equal(through(wide).view("u4"), wide.view("u4"))
print("float32 is the same to the bit:", exact)
sys.exit(0 if infinite and less and others and exact else "This has changed.")
END
