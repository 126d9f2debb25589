#!/bin/sh
# An array that mmwrite takes without complaint should come back from mmread as it was. scipy.io of
# SciPy 1.17.1 writes dense big-endian and float16 arrays as int64, also in the header: 12.57 is read
# as 12. uint32 above 2^31 is negative, and complex numbers lose their imaginary part, of which alone
# NumPy warns. A matrix of unsigned integers of which each pair across the diagonal adds up to their
# range (200 and 56 of uint8) is taken for skew-symmetric, sparse or dense: 200 is read as -56. Nothing
# is raised. Arrays from FITS, netCDF-3 and many instruments are big-endian.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    scipy==1.17.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
from scipy import sparse
from scipy.io import mminfo, mmread, mmwrite

floats = np.array([[12.57, -13.25], [64.5, 0.75]])
pair = np.array([[0, 200], [56, 0]], "u1")


def through(array):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mmwrite("m.mtx", array)
    read = mmread("m.mtx")
    return read.toarray() if sparse.issparse(read) else read, [one.category.__name__ for one in said]


as_seen = True
for array, expected in (
    (floats, floats),
    (floats.astype(">f8"), np.trunc(floats)),
    (floats.astype(">f4"), np.trunc(floats)),
    (floats.astype("f2"), np.trunc(floats)),
    (floats + 0.5j, floats + 0.5j),
    ((floats + 0.5j).astype(">c16"), np.trunc(floats)),
    (np.array([[2**31 + 5, 1]], ">u4"), np.array([[5 - 2**31, 1]])),
    (pair, np.array([[0, -56], [56, 0]])),
    (sparse.coo_array(pair), np.array([[0, -56], [56, 0]])),
    (pair.astype("i2"), pair),
):
    read, said = through(array)
    kind = type(array).__name__
    print(f"{kind} of {array.dtype.str}, {mminfo('m.mtx')[4:]}: {read.ravel().tolist()}", *said)
    as_seen &= np.array_equal(read, expected)
    as_seen &= bool(said) == (array.dtype.str == ">c16")
sys.exit(0 if as_seen else "This has changed.")
END
