#!/bin/sh
# A column of a table to which values were added row by row should be stored with these values. hdmf 6.2.0, which
# writes the tables of NWB files (pynwb 4.2.0) such as trials, takes the type of the first value for the file and lets
# all others be cast to it: contrasts 0, 0.5 and 1 are stored as 0, 0 and 1 where 0.5, 0 and 1 are kept, a delay of
# 1.75 s after one of 2 s is 1 s, a count of 3 after True is True, and columns of lists do the same. The table in
# memory has the right values until the file is opened again, and nothing is said. What a first trial has that is
# whole is chance. A float for the first value, or the column as an array, helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pynwb==4.2.0 hdmf==6.2.0 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
from datetime import datetime, timezone

import numpy as np
from pynwb import NWBHDF5IO, NWBFile

as_seen = True


def show(values, expected, index=False, whole=False):
    global as_seen
    session = NWBFile("session", "one", datetime(2024, 1, 1, tzinfo=timezone.utc))
    if not whole:
        session.add_trial_column("value", "one for each trial", index=index)
    for number, value in enumerate(values):
        session.add_trial(start_time=1.0 * number, stop_time=number + 1.0, **({} if whole else {"value": value}))
    if whole:
        session.add_trial_column("value", "one for each trial", data=np.array(values))
    in_memory = [session.trials["value"][row] for row in range(len(values))]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with NWBHDF5IO("session.nwb", "w") as file:
            file.write(session)
    with NWBHDF5IO("session.nwb", "r") as file:
        column = file.read().trials["value"]
        found = [np.asarray(column[row]).tolist() for row in range(len(values))]
    print(f"added {values}, read {found}", *(str(one.message) for one in said))
    as_seen &= in_memory == values and found == expected and not said


show([0, 0.5, 1], [0, 0, 1])
show([0.5, 0, 1], [0.5, 0, 1])
show([2.0, 1.75], [2, 1.75])
show([2, 1.75], [2, 1])
show([True, 3, 0], [True, True, False])
show([np.uint8(200), np.int64(1000), np.float64(0.5)], [200, 232, 0])
show([[1, 2], [0.25, 0.75]], [[1, 2], [0, 0]], index=True)
show([0, 0.5, 1], [0, 0.5, 1], whole=True)
sys.exit(0 if as_seen else "This has changed.")
END
