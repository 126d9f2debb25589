#!/bin/sh
# The sum of a label's pixels should be what NumPy and scipy.ndimage give. labeled_sum of mahotas 1.4.19
# adds up in the type of the pixels: 400 pixels of 200 in uint8 sum up to 128, where they are 80,000, and
# two of 40,000 in uint16 to 14,464; nothing is said. A label without pixels has the largest value
# -2147483648 in int32, and 0 in uint8. convolve rounds into the type of the image and wraps around too: the
# sum of nine neighbours of 200 is 8. Cameras write uint8 and uint16, and brightness of cells is measured
# so; measure a copy in float64.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    mahotas==1.4.19 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import mahotas
import numpy as np

as_seen = True


def show(text, found, expected):
    global as_seen
    print(f"{text}: {np.asarray(found).tolist()} {found.dtype}")
    as_seen &= np.array_equal(found, expected)


pixels = np.full((20, 20), 200, "u1")
labels = np.ones((20, 20), int)
labels[:2, 0] = 3
summed = mahotas.labeled.labeled_sum
true = [0, 398 * 200, 0, 400]
show("sum of uint8", summed(pixels, labels), np.array(true) % 256)
show("sum of uint16", summed(pixels.astype("u2") * 200, labels), np.array(true) * 200 % 65536)
show("sum of float64", summed(pixels.astype("f8"), labels), true)
show("NumPy's", np.bincount(labels.ravel(), pixels.ravel()), true)
show("largest of int32", mahotas.labeled.labeled_max(-pixels.astype("i4"), labels), [-(2**31), -200, -(2**31), -200])
show("largest of uint8", mahotas.labeled.labeled_max(pixels, labels), [0, 200, 0, 200])
near = np.ones((3, 3))
show("sum of nine neighbours", mahotas.convolve(pixels, near)[10, 10], 9 * 200 % 256)
show("of float64", mahotas.convolve(pixels.astype("f8"), near)[10, 10], 9 * 200)
sys.exit(0 if as_seen else "This has changed.")
END
