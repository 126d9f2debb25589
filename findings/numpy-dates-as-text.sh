#!/bin/sh
# The text of a date should not depend on the byte order in which it is stored. NumPy 2.4.6 compares,
# prints and converts big-endian dates rightly, but numpy.datetime_as_string takes their bytes for
# little-endian ones: 2020-01-01 is in the year 2007305087, and NaT is two minutes and eight seconds
# past midnight on 1970-01-01. Nothing is raised. Dates of HDF5, FITS and Zarr may be big-endian,
# and this is the function for ISO 8601 in CSV and JSON; astype(str) is right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import numpy as np

little = np.array(["2020-01-01", "NaT"], "<M8[s]")
big = little.astype(">M8[s]")
told = np.datetime_as_string(big).tolist()
right = np.datetime_as_string(little).tolist()
print("equal:", np.array_equal(little, big, equal_nan=True), big.tolist())
print("datetime_as_string:", told, "instead of", right)
print("astype(str):       ", big.astype(str).tolist())

as_seen = told == ["2007305087-01-25T06:56:00", "1970-01-01T00:02:08"]
as_seen &= np.array_equal(little, big, equal_nan=True) and big.astype(str).tolist() == right
sys.exit(0 if as_seen else "This has changed.")
END
