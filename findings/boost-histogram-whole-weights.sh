#!/bin/sh
# A histogram with storage of integers that is filled with weights should refuse weights that are no
# integers. boost-histogram 1.8.1 cuts them off one by one and says nothing: ten events of weight 0.9
# are 0, ten of weight 1.9 are 10, for Int64 and for AtomicInt64. Double and Weight sum them.
# Integer axes do refuse floating-point coordinates, so one relies on such a check. Weights of
# simulated events are seldom integers.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    boost-histogram==1.8.1 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys
import boost_histogram as bh
import numpy as np

seen = {}
for storage in (bh.storage.Int64, bh.storage.AtomicInt64, bh.storage.Double, bh.storage.Weight):
    for weight in (0.9, 1.9):
        histogram = bh.Histogram(bh.axis.Regular(1, 0, 1), storage=storage())
        histogram.fill(np.full(10, 0.5), weight=np.full(10, weight))
        seen[storage.__name__, weight] = float(histogram.values()[0])
        print(f"{storage.__name__}, ten events of weight {weight}: {histogram.values()[0]}")
try:
    bh.Histogram(bh.axis.Integer(0, 3)).fill(np.array([0.5]))
    refused = False
except TypeError as error:
    refused = True
    print("Integer axis:", error)

as_seen = refused
for (storage, weight), total in seen.items():
    whole = storage.endswith("Int64")
    as_seen = as_seen and abs(total - 10 * (int(weight) if whole else weight)) < 1e-9
sys.exit(0 if as_seen else "This has changed.")
END
