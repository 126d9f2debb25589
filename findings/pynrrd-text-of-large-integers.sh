#!/bin/sh
# Labels that are written as text should come back. pynrrd 1.1.3 writes every type in its ASCII encoding as
# "%.17g", for which Python makes a float of each integer: int64 and uint64 beyond 2**53 are rounded, so that
# two neighbouring labels become one, and nothing is said. From 10**17 on they are written as 1e+17, and
# pynrrd itself cannot read its file. It reads all digits where another program wrote them, and the raw and
# gzip encodings are exact.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pynrrd==1.1.3 numpy==2.4.6 || exit 2
venv/bin/python -I -W error -W ignore::DeprecationWarning - <<'END'
import sys

import nrrd
import numpy as np


def returned(labels, encoding):
    nrrd.write("labels.nrrd", labels, {"encoding": encoding})
    return nrrd.read("labels.nrrd")[0]


as_seen = True
for dtype in ("i8", "u8"):
    labels = np.array([2**53, 2**53 + 1, 2 * 10**16 + 3], dtype)
    rounded = labels.astype("f8").astype(dtype)
    print(f"{dtype}, written: {labels.tolist()}")
    for encoding in ("raw", "gzip", "ascii"):
        found = returned(labels, encoding)
        print(f"    {encoding}: {found.tolist()}")
        as_seen &= found.dtype == dtype
        as_seen &= np.array_equal(found, rounded if encoding == "ascii" else labels)
    as_seen &= not np.array_equal(rounded, labels) and rounded[0] == rounded[1]

    with open("labels.nrrd") as file:
        text = file.read()
    with open("other.nrrd", "w") as file:
        file.write(text[: text.index("\n\n") + 2] + "\n".join(map(str, labels)) + "\n")
    other, _ = nrrd.read("other.nrrd")
    print(f"    all digits in the file: {other.tolist()}")
    as_seen &= np.array_equal(other, labels)

    try:
        returned(np.array([10**17], dtype), "ascii")
        as_seen = False
    except ValueError as error:
        print(f"    {10**17}: {error}")
sys.exit(0 if as_seen else "This has changed.")
END
