#!/bin/sh
# A part of an HDF5 dataset should be that part however the dataset is stored. h5coro 1.0.7, which
# reads HDF5 from S3 or a disk without libhdf5, reads chunked datasets rightly, and contiguous ones,
# h5py's default, only from their beginning on: of a part that begins later it fetches as many bytes
# as the part has, cuts from them at the place in the whole, and returns zeros, in the right shape
# and dtype and without an error or a line of log. A part that is not whole rows raises "buffer is
# smaller than requested size" or is zeros too. The whole dataset is right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps h5coro==1.0.7 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
from pathlib import Path

import h5py
import numpy as np
from h5coro import filedriver, h5coro

values = np.arange(1, 201.0).reshape(20, 10)
with h5py.File("file.h5", "w") as file:
    file["contiguous"] = values
    file.create_dataset("chunked", data=values, chunks=(5, 5))
source = h5coro.H5Coro(str(Path("file.h5").absolute()), filedriver.FileDriver)
seen = {}
for name in ("chunked", "contiguous"):
    for rows, columns in (((0, 20), (0, 10)), ((0, 2), (0, 10)), ((12, 14), (0, 10))):
        wanted = [{"dataset": name, "hyperslice": [list(rows), list(columns)]}]
        found = np.asarray(source.readDatasets(wanted, block=True)[name])
        right = values[slice(*rows), slice(*columns)]
        assert found.shape == right.shape and found.dtype == right.dtype
        seen[name, rows] = "right" if np.array_equal(found, right) else np.unique(found).tolist()
        print(f"{name}, rows {rows[0]} to {rows[1]}: {seen[name, rows]}")

wrong = {what: found for what, found in seen.items() if found != "right"}
as_seen = wrong == {("contiguous", (12, 14)): [0]}
sys.exit(0 if as_seen else "This has changed.")
END
