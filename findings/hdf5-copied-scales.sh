#!/bin/sh
# A copy of a variable into another HDF5 file should keep its dimension scales, or have none. The
# scales are named by object references in the attribute DIMENSION_LIST, and a reference is an
# address in the file. H5Ocopy (h5py's Group.copy) of the variable alone copies the addresses as
# they are, libhdf5 2.0.0 in h5py 3.16.0. In the new file they point at whatever lies there. Here
# that is a scale of another variable, so the copy of 3 values claims an axis of 7. Nothing is
# raised. The option expand_refs, which is to copy what references name, changes nothing here. Who
# takes names of axes or coordinates from copied files has to compare lengths.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import h5py
import numpy as np


def fill(file, name, length):
    file[name] = np.arange(float(length))
    file[name].make_scale(name)


with h5py.File("source.h5", "w") as source:
    fill(source, "lat", 3)
    source["t"] = np.zeros(3)
    source["t"].dims[0].attach_scale(source["lat"])


def copied(**options):
    with h5py.File("source.h5") as source, h5py.File("copy.h5", "w") as target:
        fill(target, "time", 7)
        source.copy("t", target, **options)
    with h5py.File("copy.h5") as target:
        reference = target["t"].attrs["DIMENSION_LIST"][0][0]
        axis = [(s.attrs["NAME"].decode(), s.shape) for s in target["t"].dims[0].values()]
        return target["t"].shape, axis, target[reference].name


plain = copied()
expanded = copied(expand_refs=True)
print(h5py.version.hdf5_version)
print("shape of the copy, its scales, and what it names:", *plain)
print("the same with expand_refs:                       ", *expanded)

sys.exit(0 if plain == expanded == ((3,), [("time", (7,))], "/time") else "This has changed.")
END
