#!/bin/sh
# Text of variable length (StringDType, the NumPy dtype of Zarr v3's and HDF5's strings) should be
# converted like text of fixed length. In NumPy 2.4.6 its conversions ignore the order of bytes:
# big-endian text becomes other characters where their numbers are valid, so that a Latvian name
# may begin in another script, and is an error elsewhere; numbers to or from a big-endian array
# have other values, without a word. And of text for complex numbers the imaginary part is a copy
# of the real one. Arrays in big-endian order, as those of FITS and of many HDF5 files are, meet
# this as soon as their labels are put beside those of Zarr.
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

text = np.dtypes.StringDType()
big = np.array(["\u0100"], ">U1")
seen = {
    "from big-endian": big.astype(text).tolist(),
    "to big-endian": np.array(["\u0100"], text).astype(">U1").tolist(),
    "equal": (big == np.array(["\u0100"], text)).tolist(),
    "numbers": np.array(["1", "258"], text).astype(">i4").tolist(),
    "and back": np.array([1, 258], ">i4").astype(text).tolist(),
    "complex": np.array(["1", "3+4j"], text).astype("c16").tolist(),
    "complex, of fixed length": np.array(["1", "3+4j"]).astype("c16").tolist(),
}
for name, value in seen.items():
    print(f"{name}:", ascii(value))
try:
    np.array(["a"], ">U1").astype(text)
    refused = "nothing"
except TypeError as error:
    refused = str(error)
print("of an ASCII letter:", refused)
as_seen = refused == "Invalid unicode code point found" and list(seen.values()) == [
    ["\U00010000"],
    ["\U00010000"],
    [False],
    [1 << 24, 33619968],
    ["16777216", "33619968"],
    [1 + 1j, 3 + 3j],
    [1, 3 + 4j],
]
sys.exit(0 if as_seen else "This has changed.")
END
