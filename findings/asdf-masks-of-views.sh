#!/bin/sh
# A masked array should be stored with its mask, whichever part of a larger one it is. asdf 6.0.0, the format of
# images of the Roman telescope, stores a mask beside the values, and does so for whole arrays, rows of them and
# transposed ones. But of a masked array whose elements do not follow each other in memory, such as every other
# column, a cut-out of columns or an image upside down, only the values are stored: the bad pixels are numbers
# like any other, here 65535, and nothing is said. So it is with all storages and compressions; copy() helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    asdf==6.0.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import asdf
import numpy as np

as_seen = True
pixels = np.arange(20.0).reshape(4, 5)
pixels[1, 2] = pixels[3, 4] = 65535
image = np.ma.masked_equal(pixels, 65535)


def show(text, part, kept, **options):
    global as_seen
    asdf.AsdfFile({"image": part}).write_to("image.asdf", **options)
    with asdf.open("image.asdf") as file:
        found = np.ma.array(file["image"][...])
    print(f"{text}: {np.ma.count_masked(part)} masked, {np.ma.count_masked(found)} read, the largest {found.max()}")
    as_seen &= np.array_equal(found.data, part.data) and np.ma.count_masked(part) > 0
    as_seen &= np.array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(part) & kept)


show("the image", image, True)
show("its last rows", image[1:], True)
show("transposed", image.T, True)
show("every other column", image[:, ::2], False)
show("the last columns", image[:, 2:], False)
show("upside down", image[::-1], False)
show("compressed", image[::-1], False, all_array_compression="zlib")
show("inline", image[::-1], False, all_array_storage="inline")
show("the last columns, copied", image[:, 2:].copy(), True)
sys.exit(0 if as_seen else "This has changed.")
END
