#!/bin/sh
# An image and a number should be multiplied and compared as NumPy does, or the number be refused. SimpleITK 2.5.7
# first cuts the number off to the type of the pixels (a change is proposed since September 2026): an image of
# integers times 0.5 is 0, times 1.9 is the image, to the power of 0.5 is 1, divided by 0.5 is infinite; and
# image >= 2.5 and BinaryThreshold from 2.5 on have the pixels of 2 as well. Nothing is said. Numbers go through
# float64 too, so that == 2⁵³ + 1 finds the label 2⁵³ and not itself. Detectors and CT give integers, and a
# gain, a window or a threshold is a fraction. Cast(image, sitkFloat64) before it helps, but for the labels.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import SimpleITK as sitk

as_seen = True


def show(text, image, expected):
    global as_seen
    found = sitk.GetArrayFromImage(image)[0].tolist()
    print(f"{text}: {found}")
    as_seen &= found == expected


for dtype in ("uint8", "uint16", "int32"):
    image = sitk.GetImageFromArray(np.array([[200, 3, 2]], dtype))
    show(f"{dtype} [200, 3, 2] * 0.5", image * 0.5, [0, 0, 0])
    show("    0.5 * it", 0.5 * image, [0, 0, 0])
    show("    it * 1.9", image * 1.9, [200, 3, 2])
    show("    it ** 0.5", image**0.5, [1, 1, 1])
    show("    it / 0.5", image / 0.5, [np.inf] * 3)
    show("    it >= 2.5", image >= 2.5, [1, 1, 1])
    show("    it < 2.5", image < 2.5, [0, 0, 0])
    show("    threshold of 2.5", sitk.BinaryThreshold(image, 2.5, 250.0), [1, 1, 1])
    real = sitk.Cast(image, sitk.sitkFloat64)
    show("    as float64, * 0.5", real * 0.5, [100, 1.5, 1])
    show("    as float64, >= 2.5", real >= 2.5, [1, 1, 0])
labels = sitk.GetImageFromArray(np.array([[2**53 + 1, 2**53]], "u8"))
show("labels 2**53 + 1 and 2**53", labels, [2**53 + 1, 2**53])
show("    == 2**53 + 1", labels == 2**53 + 1, [0, 1])
sys.exit(0 if as_seen else "This has changed.")
END
