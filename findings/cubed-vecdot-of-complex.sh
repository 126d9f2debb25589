#!/bin/sh
# vecdot of the array API takes the conjugate of the first of two complex vectors, as NumPy's does, so that the
# product of a vector with itself is the square of its length. cubed 0.27.0 does not: [i, 2] has 3 instead of 5,
# [1, i] has 0, and a wave and itself are orthogonal, whatever the chunks. Nothing is said. Power and coherence
# of spectra, and overlaps of states, are such products.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    cubed==0.27.0 numpy==2.4.6 'zarr<3' || exit 2
venv/bin/python -I - <<'END'
import sys

import cubed
import cubed.array_api as xp
import numpy as np

spec = cubed.Spec(work_dir="work", allowed_mem="500MB")
as_seen = True
wave = np.exp(2j * np.pi * np.arange(8) / 8)
for name, values, wrong in (
    ("[i, 2]", np.array([1j, 2]), 3),
    ("[1, i]", np.array([1, 1j]), 0),
    ("a wave", wave, 0),
    ("[3, 2]", np.array([3.0, 2]), 13),
):
    right = np.vecdot(values, values)
    found = [complex(xp.vecdot(*[cubed.from_array(values, chunks=n, spec=spec)] * 2).compute()) for n in (1, 8)]
    print(f"{name}: {np.round(found, 3).tolist()} in chunks of 1 and 8, by NumPy {right.round(3)}")
    as_seen &= np.allclose(found, wrong) and np.isclose(right, np.linalg.norm(values) ** 2)
sys.exit(0 if as_seen else "This has changed.")
END
