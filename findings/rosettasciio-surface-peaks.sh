#!/bin/sh
# A signal that is saved as a surface or profile of Digital Surf should have the values that it had, but for the
# rounding to 32 bits that the format asks for. RosettaSciIO 0.15.0, which writes for HyperSpy, computes the whole
# numbers in the type of the data. The largest, 2³¹ - 1, is no float32 and becomes 2³¹, which wraps around: the
# highest peak of a float32 signal is read as its lowest value, and of float16 all values are the lowest (seen on
# x86-64). NaN is the lowest value too, in float64 as well. Of all this NumPy warns of a cast, nothing else does.
# float32 is the usual type of processed micrographs and spectra; float64 without NaN is right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    rosettasciio==0.15.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
from rsciio.digitalsurf import file_reader, file_writer

as_seen = True


def show(values, dtype, expected, warns=True):
    global as_seen
    axis = {"name": "x", "size": len(values), "scale": 1.0, "offset": 0.0, "units": "nm"}
    axis |= {"navigate": False, "index_in_array": 0}
    signal = {"data": np.array(values, dtype), "axes": [axis], "original_metadata": {}}
    signal["metadata"] = {"General": {}, "Signal": {}}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        file_writer("profile.pro", signal)
    found = file_reader("profile.pro")[0]["data"].round(3).tolist()
    print(f"{dtype}, written {values}, read {found};", *(str(one.message) for one in said))
    as_seen &= found == expected and bool(said) == warns


show([0.5, 1, 250, 3], "f4", [0.5, 1, 0.5, 3])
show([-300, 0, 300, 100], "f4", [-300, 0, -300, 100])
show([0.5, 1, 250, 3], "f2", [0.5, 0.5, 0.5, 0.5])
show([0.5, np.nan, 250, 3], "f8", [0.5, 0.5, 250, 3])
show([0.5, 1, 250, 3], "f8", [0.5, 1, 250, 3], False)
sys.exit(0 if as_seen else "This has changed.")
END
