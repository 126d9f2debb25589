#!/bin/sh
# Sums, means and products of sparse arrays should be those of NumPy. sparse 0.19.3 raises an OverflowError
# for integers of 8 bits where more than 255 elements, or 127 if they have a sign, are reduced, and for
# 16 bits from 65,536 or 32,768 on: the number of elements is brought into the type of the values, so that 'Python
# integer 400 out of bounds for uint8'. All elements are counted, those that are not stored too, and a sum of
# float64, of 8 bits along a short axis, or of a dense array works, so that a routine that was tried with few
# rows fails with many. Counts of cells, of k-mers and of single photons are uint8 or uint16; sum(dtype='i8')
# does not help, astype does.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    sparse==0.19.3 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import sparse

as_seen = True


def tried(compute):
    try:
        found = compute()
        return np.asarray(getattr(found, "todense", lambda: found)()).tolist()
    except OverflowError as error:
        return str(error)


for kind, short, long in (("u1", 255, 256), ("i1", 127, 128), ("u2", 65535, 65536), ("i2", 32767, 32768)):
    for number in (short, long):
        dense = np.zeros(number, kind)
        dense[[3, 5]] = 2, 3
        array = sparse.COO.from_numpy(dense)
        for name, compute in (
            ("sum", lambda: array.sum()),
            ("sum(dtype='i8')", lambda: array.sum(dtype="i8")),
            ("mean", lambda: array.mean() * number),
            ("sum of astype('i8')", lambda: array.astype("i8").sum()),
        ):
            found = tried(compute)
            print(f"{name} of {number} in {kind}: {found}")
            fails = number == long and "astype" not in name
            as_seen &= isinstance(found, str) if fails else np.isclose(found, 5)
sys.exit(0 if as_seen else "This has changed.")
END
