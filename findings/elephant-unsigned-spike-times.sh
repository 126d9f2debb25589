#!/bin/sh
# Measures of how regularly a neuron fires should not depend on the type of the spike times. Spike sorters write
# them as samples in unsigned integers. isi of elephant 1.2.1 keeps that type, and cv2 and lv take the
# differences of intervals in it, which wrap around where the second is longer: lv of the spikes at 100, 250,
# 330, 600 and 700 is 8.9e33 in uint64, 4.8e14 in uint32 and 112228 in uint16, where it is 0.598; cv2 is 8.7e16
# instead of 0.871. In a SpikeTrain of neo 0.14.6 it is the same. lvr in uint16 is negative; cv is right.
# Nothing is said of it. Convert the times to floats before.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    elephant==1.2.1 neo==0.14.6 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore::DeprecationWarning -W ignore::UserWarning - <<'END'
import sys

import neo
import numpy as np
from elephant import statistics

times = [100, 250, 330, 600, 700]


def measures(dtype, train=False):
    spikes = np.array(times, dtype)
    if train:
        spikes = neo.SpikeTrain(spikes, units="ms", t_stop=1000)
    intervals = statistics.isi(spikes)
    names = ("cv", "cv2", "lv", "lvr")
    found = {name: float(getattr(statistics, name)(intervals)) for name in names}
    print(f"{np.dtype(dtype)}{' in a SpikeTrain' if train else ''}:", {key: f"{found[key]:.4g}" for key in found})
    return found


right = measures("f8")
as_seen = measures("i8") == right and measures("f8", train=True) == right
for dtype in ("u8", "u4", "u2"):
    found = measures(dtype)
    as_seen &= np.isclose(found["cv"], right["cv"])
    as_seen &= found["cv2"] > 100 * right["cv2"] and found["lv"] > 100_000 * right["lv"]
    as_seen &= (found["lvr"] < 0) == (dtype == "u2")
found = measures("u8", train=True)
as_seen &= found["cv2"] > 1e16 and found["lv"] > 1e33
sys.exit(0 if as_seen else "This has changed.")
END
