#!/bin/sh
# Booleans that PyTables stores should be booleans for h5py. h5py knows booleans as an enumeration
# of FALSE and TRUE, PyTables 3.11.1 writes them as an 8-bit bit field, and h5py 3.16.0 gives
# unsigned integers for it. As a mask these are positions: data[mask] with the mask 1, 0, 1, 0 does
# not choose the elements 0 and 2 but takes element 1 and element 0 by turns, of the full length
# and without an error. The other way, h5py's booleans are an enumeration for PyTables, which reads
# them as numbers too. Quality flags of event and detector files of pandas and PyTables are stored
# so.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tables==3.11.1 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
import h5py
import numpy as np
import tables

warnings.simplefilter("ignore")
good = np.array([True, False, True, False])
data = np.array([10, 20, 30, 40])
with tables.open_file("flags.h5", "w") as file:
    file.create_carray("/", "good", obj=good)
with h5py.File("flags.h5") as file:
    stored = file["good"].id.get_type().get_class() == h5py.h5t.BITFIELD
    mask = file["good"][:]
print("stored as a bit field:", stored)
print("h5py reads", mask.dtype, mask.tolist(), "so data[mask] is", data[mask].tolist())
print("instead of", data[good].tolist())

with h5py.File("other.h5", "w") as file:
    file["good"] = good
with tables.open_file("other.h5") as file:
    node = file.root.good
    back = node[:]
    atom = type(node.atom).__name__
print("h5py's booleans in PyTables:", atom, back.dtype, back.tolist(), data[back].tolist())

as_seen = stored and mask.dtype == "u1" and data[mask].tolist() == [20, 10, 20, 10]
as_seen = as_seen and back.dtype != bool
sys.exit(0 if as_seen else "This has changed.")
END
