#!/bin/sh
# An image made from an array should have its pixels where NumPy has them, as in SimpleITK 2.5.7. ITK 5.4.7
# looks at the order of memory: of an array in Fortran order, which is what h5py's users get by a transposition,
# nibabel from every NIfTI file and NumPy from .T, image_from_array makes the image of the transposed one, so
# that x and z, and with them spacing and direction, are exchanged; the array and its transposed one give the
# same image. A cut of one that is contiguous nowhere keeps its axes, and a copy too. Of vectors, such as
# colours, parts of different pixels are put together. Nothing is said. Give it numpy.ascontiguousarray(x).
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    itk-core==5.4.7 SimpleITK==2.5.7 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore::DeprecationWarning - <<'END'
import sys

import itk
import numpy as np
import SimpleITK

as_seen = True


def show(text, array, expected):
    global as_seen
    found = itk.array_from_image(itk.image_from_array(array))
    other = SimpleITK.GetArrayFromImage(SimpleITK.GetImageFromArray(array))
    print(f"{text}: {array.shape} is {found.shape}, by SimpleITK {other.shape}")
    as_seen &= np.array_equal(found, expected) and np.array_equal(other, array)


volume = np.arange(24, dtype="f4").reshape(2, 3, 4)
show("in C order", volume, volume)
show("in Fortran order", np.asfortranarray(volume), volume.T)
show("transposed", volume.T, volume)
show("transposed and cut", volume.T[::2], volume.T[::2])
show("copied", np.ascontiguousarray(volume.T), volume.T)

colours = np.arange(24, dtype="f4").reshape(2, 4, 3)
for text, given, expected in (("C", colours, colours), ("Fortran", np.asfortranarray(colours), colours.T)):
    found = itk.array_from_image(itk.image_from_array(given, is_vector=True))
    print(f"colours in {text} order: {given.shape} are {found.shape}, the first {found[0, 0].tolist()}")
    as_seen &= np.array_equal(found, expected)
sys.exit(0 if as_seen else "This has changed.")
END
