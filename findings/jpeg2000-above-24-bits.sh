#!/bin/sh
# JPEG 2000 without loss, which the format has for up to 38 bits and which tifffile 2026.3.3 writes
# by default, should give back a uint32 image or refuse it. With imagecodecs 2026.3.6 (OpenJPEG
# 2.5.4) random pixels of up to 24 bits come back. With 25 bits a sixth of them are other numbers,
# by millions, and with 27 or more nearly all, as uint32 and as int32, in the codec itself and
# through a TIFF file. Nothing is raised. In an image of a detector with small counts, whose gaps
# between modules are marked by 2**32 - 1, the gaps become 0: a count like any other.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    imagecodecs==2026.3.6 tifffile==2026.3.3 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import imagecodecs
import numpy as np
import tifffile

warnings.simplefilter("ignore")
random = np.random.default_rng(1)


def other_pixels(image):
    again = imagecodecs.jpeg2k_decode(imagecodecs.jpeg2k_encode(image, level=0))
    tifffile.imwrite("image.tif", image, compression="jpeg2000")
    return int(np.sum(again != image)), int(np.sum(tifffile.imread("image.tif") != image))


seen = {}
for bits in (16, 24, 25, 27, 32):
    seen[bits] = other_pixels(random.integers(0, 2**bits, (64, 64)).astype("u4"))
    print(f"{bits} bits: {seen[bits]} of 4096 pixels are others, by the codec and in a TIFF file")
gaps = random.poisson(3, (64, 64)).astype("u4")
gaps[30:34] = gaps[:, 30:34] = 2**32 - 1
tifffile.imwrite("image.tif", gaps, compression="jpeg2000")
became = np.unique(tifffile.imread("image.tif")[gaps == 2**32 - 1]).tolist()
print(f"counts of about 3 with gaps of 2**32 - 1: the gaps are {became}")
as_seen = seen[16] == seen[24] == (0, 0) and became == [0]
as_seen &= min(seen[25]) > 100 and min(seen[27] + seen[32]) > 3500
sys.exit(0 if as_seen else "This has changed.")
END
