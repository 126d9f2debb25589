#!/bin/sh
# What is handed to a worker by joblib.Parallel should be what the array holds at the call. joblib
# 1.6.0 gives arrays of more than 1 MB to its processes as a file that they map. Within `with
# Parallel(...) as pool:`, which is recommended to keep the workers, that file is written once per
# array object: after the array was changed in place, later calls still hand over the old numbers,
# without a word. Smaller arrays are pickled each time and are right, so a test with few elements
# does not show it. Frames read into one buffer, and iterations that update one field, are of this
# kind. A copy for each call or max_nbytes=None are remedies.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    joblib==1.6.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import numpy as np
from joblib import Parallel, delayed


def largest_by_workers(size, **options):
    buffer = np.zeros(size)
    seen = []
    with Parallel(2, **options) as pool:
        for frame in (1, 2, 3):
            buffer[:] = frame
            seen += {float(value) for value in pool(delayed(np.max)(buffer) for _ in range(2))}
    return seen


small, large = largest_by_workers(100_000), largest_by_workers(200_000)
pickled = largest_by_workers(200_000, max_nbytes=None)
print("frames filled with 1, 2 and 3; what the workers see as the largest value")
print("0.8 MB:", small, "1.6 MB:", large, "1.6 MB with max_nbytes=None:", pickled)
as_seen = small == pickled == [1, 2, 3] and large == [1, 1, 1]
raise SystemExit(0 if as_seen else "This has changed.")
END
