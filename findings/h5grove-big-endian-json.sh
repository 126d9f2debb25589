#!/bin/sh
# h5grove 4.0.0 is the server behind H5Web. HDF5 files of detectors and of Java programs hold numbers in
# big-endian order, and one expects them to be served as others are: `bin` and `npy` do that. But as
# JSON, which is the default and the only form of attributes, orjson refuses arrays that are not in
# the machine's order: data and attributes raise TypeError, so that a group with one such attribute
# has no attributes at all.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5grove==4.0.0 h5py==3.16.0 numpy==2.4.6 orjson==3.13.0 || exit 2
cat >encode.py <<'END'
import sys

import h5py
import numpy as np
from h5grove import content, encoders

seen = {}
with h5py.File("x.h5", "w") as file:
    for name, dtype in (("little", "<i4"), ("big", ">i4")):
        file[name] = np.arange(3, dtype=dtype)
        file[name].attrs["offset"] = np.arange(2, dtype=dtype)
        found = content.DatasetContent(f"/{name}", file[name])
        for what, value, form in (
            ("data", found.data(), "bin"),
            ("data", found.data(), "json"),
            ("attributes", found.attributes(), "json"),
        ):
            try:
                encoders.encode(value, form)
                seen[name, what, form] = None
            except TypeError as error:
                seen[name, what, form] = str(error)
for key, error in seen.items():
    print(*key, error or "served", sep=": ")
refused = {key for key, error in seen.items() if error}
expected = {("big", "data", "json"), ("big", "attributes", "json")}
sys.exit(0 if refused == expected else "This has changed.")
END
venv/bin/python -I encode.py
