#!/bin/sh
# A map of counts on the sphere is brought to a finer or coarser grid by healpy's ud_grade, and power=-2 is said to
# keep the sum of the map. healpy 1.20.1 computes in floats and casts the result to the dtype of the map: of counts
# of 1 on a finer grid, each quarter is cut off, and the sum of 48 counts is 0; a mean of 2.5 on a coarser one is
# 2. A map of Booleans is true where any pixel was. Nothing is said; dtype=float, or a map of floats, keeps sum and
# means.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    healpy==1.20.1 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import healpy
import numpy as np

ones = np.ones(48, "i4")
finer = healpy.ud_grade(ones, 4, power=-2)
right = healpy.ud_grade(ones.astype(float), 4, power=-2)
typed = healpy.ud_grade(ones, 4, power=-2, dtype=float)
print("sums of 48 counts:", finer.sum(), right.sum(), typed.sum(), "as", finer.dtype, right.dtype)
as_seen = finer.dtype == "i4" and finer.sum() == 0 and right.sum() == typed.sum() == 48
counts = ones.copy()
counts[0] = 7  # order RING: this one and three others make up pixel 0 of the coarser grid
coarser, means = healpy.ud_grade(counts, 1), healpy.ud_grade(counts.astype(float), 1)
print("means of 7, 1, 1, 1:", coarser[0], means[0])
as_seen &= (coarser[0], means[0]) == (2, 2.5)
seen = np.zeros(48, bool)
seen[0] = True
print("a pixel of which a quarter was seen:", healpy.ud_grade(seen, 1)[0])
as_seen &= bool(healpy.ud_grade(seen, 1)[0]) is True
sys.exit(0 if as_seen else "This has changed.")
END
