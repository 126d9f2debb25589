#!/bin/sh
# pyfive reads HDF5 files without libhdf5 and says so where it meets a feature that it does not
# know. Two ways of keeping a dataset are taken for empty ones instead. With pyfive 1.3.0 a dataset
# whose numbers are in an external file, as EPICS and older NeXus writers leave them, is all zeros,
# and a virtual dataset, as detectors of several modules have, is None. Neither raises an error nor
# warns. Datasets of which not all chunks were written raise KeyError at a chunk that is not there,
# where HDF5 has the fill value.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyfive==1.3.0 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys
import h5py
import numpy as np
import pyfive

for number in range(3):
    with h5py.File(f"module{number}.h5", "w") as file:
        file["x"] = np.full(4, number)
with h5py.File("x.h5", "w") as file:
    made = file.create_dataset("external", (4,), "i4", external=[("x.raw", 0, 16)])
    made[...] = [1, 2, 3, 4]
    layout = h5py.VirtualLayout((3, 4), "i8")
    for number in range(3):
        layout[number] = h5py.VirtualSource(f"module{number}.h5", "x", (4,))
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("begun", (8,), "f4", chunks=(4,), fillvalue=5)[:4] = 1

seen = {}
with h5py.File("x.h5") as reference, pyfive.File("x.h5") as file:
    for name in ("external", "virtual", "begun"):
        try:
            found = file[name][...]
            seen[name] = None if found is None or found.dtype == object else found.tolist()
        except Exception as error:
            seen[name] = type(error).__name__
        print(f"{name}: h5py {reference[name][...].tolist()}, pyfive {seen[name]}")

as_seen = seen == {"external": [0, 0, 0, 0], "virtual": None, "begun": "KeyError"}
sys.exit(0 if as_seen else "This has changed.")
END
