#!/bin/sh
# Values of a big-endian NumPy array should be written to a bigWig file as the numbers that they are, or be
# refused, as integers are. pyBigWig 0.3.29 looks at the kind and size of the type and takes the bytes as
# they lie: 1.5 in '>f8' is 0.0 in the file, and in '>f4' 6.9e-41; positions 5 and 10 in '>u4' are
# 83886080 and 167772160, which is a valid place on a long chromosome. Nothing is said. Float16 and strided arrays
# are right. Arrays from FITS, netCDF-3 and HDF5 are often big-endian; astype('f8') helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyBigWig==0.3.29 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import pyBigWig

values = np.array([1.5, 2.5, 3.5])
starts = np.array([0, 5, 10])


def written(values, starts=starts):
    with pyBigWig.open("x.bw", "w") as file:
        file.addHeader([("chr1", 2**31 - 1)], maxZooms=0)
        file.addEntries(np.array(["chr1"] * 3), starts, ends=(starts + 3).astype(starts.dtype), values=values)
    with pyBigWig.open("x.bw") as file:
        return file.intervals("chr1")


as_seen = True
for kind in ("f8", ">f8", "f4", ">f4", "f2"):
    rows = written(values.astype(kind))
    print(f"values in {kind}:", rows)
    found = [row[2] for row in rows]
    expected = values.astype(kind).view("<" + kind[1:]) if kind[0] == ">" else values
    as_seen &= found == np.asarray(expected, "f4").tolist()
for kind in ("i8", "u4", ">u4"):
    rows = written(values, starts.astype(kind))
    print(f"positions in {kind}:", rows)
    scale = 2**24 if kind[0] == ">" else 1
    as_seen &= [row[0] for row in rows] == [0, 5 * scale, 10 * scale]
try:
    written(values.astype("i8"))
    as_seen = False
except RuntimeError as error:
    print("values in i8:", str(error).splitlines()[0])
sys.exit(0 if as_seen else "This has changed.")
END
