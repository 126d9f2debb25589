#!/bin/sh
# Quotients of arrays of integers should be those of NumPy, as the result of Blosc2 is said to be floats. With blosc2
# 4.14.1 they are, if one side is a number: z / 4 of 3 is 0.75. Of two arrays the quotient is computed in integers and
# then made a float: 3 / 4 is 0.0 and 7 / 4 is 1.0, by the operator, by divide and in lazy expressions. hypot does
# so from 16 bits on: that of 1 and 1 is 1.0. The mean of int64 is the float of a sum that wrapped around, so that ten
# times of 2024 in nanoseconds have their mean in 1965, and deviations of 58 years. Nothing is said. Counts divided by
# a flat field, both integers, are 0 and 1; 1.0 * counts / flat helps.
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

as_seen = True


def show(text, found, expected):
    global as_seen
    found = np.asarray(found[()] if isinstance(found, (blosc2.NDArray, blosc2.LazyArray)) else found)
    print(f"{text}: {found.tolist()} {found.dtype}")
    as_seen &= found.dtype.kind == "f" and np.allclose(found, expected)


for dtype in ("u1", "i2", "u2", "i4", "u4", "i8", "u8"):
    counts = blosc2.asarray(np.array([3, 7, 1], dtype))
    flat = blosc2.asarray(np.array([4, 4, 1], dtype))
    show(f"{dtype}, [3, 7, 1] / [4, 4, 1]", counts / flat, [0, 1, 1])
    show("    divide", blosc2.divide(counts, flat), [0, 1, 1])
    show("    lazyexpr", blosc2.lazyexpr("counts / flat"), [0, 1, 1])
    show("    / 4", counts / 4, [0.75, 1.75, 0.25])
    root = np.hypot(counts[:], flat[:])
    show("    hypot", blosc2.hypot(counts, flat), root if dtype == "u1" else np.trunc(root))
    show("    1.0 * counts / flat", 1.0 * counts / flat, [0.75, 1.75, 1])

image = np.random.default_rng(0).integers(1, 60000, (500, 600), dtype="u2")
chunked = blosc2.asarray(image, chunks=(100, 200))
other = blosc2.asarray(image[::-1].copy(), chunks=(100, 200))
same = np.array_equal((chunked / other)[:], image // image[::-1])
print("an image of many chunks, divided by another, is whole:", same)
as_seen &= same

times = np.datetime64("2024-06-01", "ns").astype("i8") + np.arange(10) * 10**9
stored = blosc2.asarray(times)
for text, mean in (("NumPy", times.mean()), ("Blosc2", stored.mean())):
    print(f"mean of ten seconds from 2024-06-01 on, {text}: {np.datetime64(int(mean), 'ns')}")
deviation = float(stored.std()) / 1e9 / 86400 / 365
print(f"standard deviation, NumPy {times.std() / 1e9:.3f} s, Blosc2 {deviation:.1f} years")
year = np.datetime64(int(stored.mean()), "ns").astype("M8[Y]")
as_seen &= year == np.datetime64("1965") and 58 < deviation < 59
sys.exit(0 if as_seen else "This has changed.")
END
