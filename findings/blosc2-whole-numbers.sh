#!/bin/sh
# Expressions of Blosc2 with integers should be NumPy's, as sums and products of them are. blosc2
# 4.14.1 computes comparisons with a number, and remainders, in floats of 64 bits: beyond 2**53 an
# int64 is not equal to itself (ids == ids[0] is false everywhere), `<=` fails for the value itself
# and ids % 10 is another digit, with every dtype of 64 bits. Two arrays are compared rightly. The
# remainder has the sign of the dividend, as in C, so -7 % 3 is -1 and not 2, for integers and for
# floats, where // does round down as NumPy does. No error is raised. Numbers of events and times in
# nanoseconds are above 2**53.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    blosc2==4.14.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import blosc2
import numpy as np

tests = {
    "ids == ids[0]": lambda x, first: x == first,
    "ids <= ids[0]": lambda x, first: x <= first,
    "ids % 10": lambda x, first: x % 10,
    "ids + 1": lambda x, first: x + 1,
    "ids // 10": lambda x, first: x // 10,
}
as_seen = True
for dtype in ("i8", "u8"):
    ids = np.array([2**60 + 1, 2**60 + 7, 7], dtype)
    packed = blosc2.asarray(ids)
    for name, test in tests.items():
        right, found = test(ids, int(ids[0])), test(packed, int(ids[0]))[:]
        print(dtype, name, found.tolist(), "should be", right.tolist())
        as_seen &= np.array_equal(right, found) == (name in ("ids + 1", "ids // 10"))
    as_seen &= bool((packed == blosc2.asarray(ids))[:].all())
for dtype in ("i4", "f8"):
    numbers = np.array([-7, 7], dtype)
    remainder, quotient = ((blosc2.asarray(numbers) % 3)[:], (blosc2.asarray(numbers) // 3)[:])
    print(dtype, "-7 % 3 =", remainder[0], "and -7 // 3 =", quotient[0])
    as_seen &= remainder.tolist() == [-1, 1] and quotient.tolist() == [-3, 2]
sys.exit(0 if as_seen else "This has changed.")
END
