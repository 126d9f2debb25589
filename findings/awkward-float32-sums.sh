#!/bin/sh
# ak.sum of Awkward 2.14.0 over one list of float32 should be as good as over the flat array, where
# NumPy adds in pairs, or as ak.mean, which computes in float64. Along an axis it adds one by one
# in float32. A list of a million times 0.1 has the sum 100958 (1 % too much), the same numbers with
# axis=None 100000.01, and their mean is 0.1: sum and mean / count of one array disagree. From
# 16,777,216 on, ones are not counted any more: that is the sum along axis=0 of 33 million events
# with one object each. Sums of weights and energies of whole files are of that kind;
# ak.values_astype(x, "float64") before the sum is the remedy.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import awkward as ak
import numpy as np

tenths = np.full(10**6, 0.1, "f4")
one_list = ak.unflatten(ak.Array(tenths), [10**6])
along, flat = float(ak.sum(one_list, axis=-1)[0]), float(ak.sum(one_list, axis=None))
mean = float(ak.mean(one_list, axis=-1)[0])
wide = float(ak.sum(ak.values_astype(one_list, "float64"), axis=-1)[0])
print("a million of 0.1: axis=-1", along, " axis=None", flat, " NumPy", tenths.sum(), end=" ")
print(" float64", wide)
print("mean:", mean, " sum / count:", along / 10**6)

events = ak.unflatten(ak.Array(np.ones(2**25, "f4")), np.ones(2**25, "i8"))
ones = float(ak.sum(events, axis=0)[0])
print("33,554,432 ones along axis 0:", ones, " count:", ak.count(events, axis=0)[0])

as_seen = along > 100_900 and abs(flat - 100_000) < 1 and abs(mean - 0.1) < 1e-6 and ones == 2**24
sys.exit(0 if as_seen and abs(wide - 100_000) < 1 else "This has changed.")
END
