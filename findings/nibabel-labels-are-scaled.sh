#!/bin/sh
# Whole numbers that an image's type does not hold should be refused, or the type be widened.
# nibabel 5.4.2 scales them to the type of the header instead, as it does for measured values: a map
# of the labels 0, 1, 2 and 1000 that is saved with the header of a mask of bytes has the labels 0,
# 0, 3.92 and 1000. The image in memory has the right ones, only the file does not, and nothing is
# said. A header of another image is what one hands over to keep its geometry.
# set_data_dtype(labels.dtype) is the remedy.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    nibabel==5.4.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import nibabel
import numpy as np

mask = nibabel.Nifti1Image(np.ones((1, 1, 4), "u1"), np.eye(4))
labels = np.array([[[0, 1, 2, 1000]]], "i4")
image = nibabel.Nifti1Image(labels, mask.affine, mask.header)
nibabel.save(image, "labels.nii")
loaded = nibabel.load("labels.nii")
found = np.asanyarray(loaded.dataobj).ravel().round(2).tolist()
image.set_data_dtype(labels.dtype)
nibabel.save(image, "remedy.nii")
remedy = np.asanyarray(nibabel.load("remedy.nii").dataobj).ravel().tolist()
print("labels in memory", np.asanyarray(image.dataobj).ravel().tolist(), "in the file", found)
print(f"stored as {loaded.get_data_dtype()} with the slope {loaded.dataobj.slope}")
print("with set_data_dtype", remedy)
as_seen = found == [0, 0, 3.92, 1000] and remedy == [0, 1, 2, 1000]
sys.exit(0 if as_seen else "This has changed.")
END
