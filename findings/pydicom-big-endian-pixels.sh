#!/bin/sh
# Pixels of a FITS, TIFF or HDF5 file are often big-endian, and a library that takes a NumPy array should write its
# numbers. pydicom 3.0.2 takes the bytes of the array as they are where a data set is little-endian, as nearly all
# are: 1 becomes 256, 2 becomes 512, and minus one stays as it is; shape, dtype and range pass its checks, and it
# says nothing. The range that it checks is that of the right numbers; of 12 bits, four are lost as well. An array
# in the machine's byte order is written right, whatever its strides are.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pydicom==3.0.2 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def written(pixels, bits=16):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.3"
    image.set_pixel_data(pixels, "MONOCHROME2", bits)
    image.save_as("image.dcm", enforce_file_format=True)
    return dcmread("image.dcm").pixel_array


numbers = np.arange(-1, 5).reshape(2, 3)
as_seen = True
for dtype in ("<i2", ">i2", ">u2"):
    pixels = np.abs(numbers).astype(dtype) if dtype == ">u2" else numbers.astype(dtype)
    found = written(pixels, 8 * pixels.itemsize)
    print(dtype, "written:", pixels.ravel().tolist(), "read:", found.ravel().tolist(), found.dtype)
    same = np.array_equal(found, pixels)
    as_seen &= same == (dtype == "<i2")
    as_seen &= same or np.array_equal(found.byteswap(), pixels)
strided = np.arange(24, dtype="u2").reshape(4, 6)[::-1, ::2]
as_seen &= np.array_equal(written(strided), strided)
twelve = np.array([[0, 4095]], ">u2")
print("12 bits:", twelve.ravel().tolist(), "read:", written(twelve, 12).ravel().tolist())
as_seen &= written(twelve, 12).tolist() == [[0, 0x0F0F]]
sys.exit(0 if as_seen else "This has changed.")
END
