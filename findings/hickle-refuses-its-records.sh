#!/bin/sh
# What was saved should be loaded again, as hickle is pickle for HDF5. hickle 5.0.3 saves an array of records,
# such as events with 'energy' and 'detector', without a word, and refuses to load the file, which would not be
# one of hickle's; with only one field it loads opaque bytes, |V4, without name and type. All that is in the
# file: h5py reads the records. Numbers of a list or tuple are put into one array: an id of 2**53 + 1 beside 0.5
# is 2**53 and a float, True beside 2 is 1, where a dictionary keeps both. Nothing is said of these.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    hickle==5.0.3 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import h5py
import hickle
import numpy as np

warnings.simplefilter("error")
as_seen = True


def returned(value):
    hickle.dump(value, "x.hkl", mode="w")
    return hickle.load("x.hkl")


events = np.array([(0.5, 7), (1.5, 9)], [("energy", "f4"), ("detector", "u2")])
energies = events[["energy"]].astype([("energy", "f4")])
found = returned(energies)
print(f"{energies.dtype} is {found.dtype}: {found.tolist()}")
as_seen &= found.dtype == "V4" and found.dtype.names is None
try:
    print(returned(events))
    as_seen = False
except ValueError as error:
    print(f"{events.dtype}: {error.args[0].partition('(')[0]}")
with h5py.File("x.hkl") as file:
    print("by h5py:", file["data"].dtype, file["data"][:])
    as_seen &= np.array_equal(file["data"][:], events)
for given, expected in (
    ([1, 2**53 + 1, 0.5], [1, 2**53, 0.5]),
    ((2**53 + 1, 0.5), (2**53, 0.5)),
    ([True, 2], [1, 2]),
    ({"a": 2**53 + 1, "b": 0.5}, {"a": 2**53 + 1, "b": 0.5}),
):
    found = returned(given)
    print(f"{given!r} is {found!r}")
    as_seen &= found == expected and (isinstance(found, dict) or not isinstance(found[0], bool))
sys.exit(0 if as_seen else "This has changed.")
END
