#!/bin/sh
# The list of chunks that libhdf5 gives (H5Dchunk_iter, H5Dget_chunk_info) should say where in the
# array each chunk lies, and it does, unless the file has the newer index (libver="latest") and one
# axis alone is unlimited that is not the first, as of a series that grows along its last axis.
# Then chunks are listed at places of the array where others are, or beyond its end, and looking
# one up by its place (H5Dget_chunk_info_by_coord) finds another's bytes or none, because it goes
# through the same list. Reading through the library is right. Whoever reads chunks by themselves,
# as virtual Zarr stores do, gets chunks in other places without an error.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
cat >list.py <<'END'
import sys

import h5py
import numpy as np

values = np.arange(24, dtype="<i4").reshape(4, 6)
wrong = {}
for version in ("earliest", "latest"):
    for most in ((4, 6), (9, 9), (None, 6), (4, None), (None, None)):
        with h5py.File("list.h5", "w", libver=version) as file:
            file.create_dataset("a", data=values, chunks=(2, 2), maxshape=most)
        raw = open("list.h5", "rb").read()
        with h5py.File("list.h5") as file:
            array, listed = file["a"].id, []
            array.chunk_iter(listed.append)
            assert (file["a"][...] == values).all()
            assert listed == [array.get_chunk_info(n) for n in range(array.get_num_chunks())]
        bad = []
        for (row, column), _, offset, size in listed:
            stored = np.frombuffer(raw[offset : offset + size], "<i4").reshape(2, 2)
            if not np.array_equal(values[row : row + 2, column : column + 2], stored):
                bad.append((row, column))
        wrong[version, most] = bad

print(f"libhdf5 {h5py.version.hdf5_version}: listed where other chunks are, or none:")
for (version, most), bad in wrong.items():
    print(f"    {version}, maxshape {most}:", *(bad or ["no chunk"]))
found = {case for case, bad in wrong.items() if bad}
sys.exit(0 if found == {("latest", (4, None))} else "This has changed.")
END
cat >virtual.py <<'END'
import sys

import h5py
import numpy as np
import zarr
from kerchunk.hdf import SingleHdf5ToZarr

values = np.arange(24, dtype="<i4").reshape(4, 6)
with h5py.File("series.h5", "w", libver="latest") as file:
    file.create_dataset("a", data=values, chunks=(2, 2), maxshape=(4, None))
with open("series.h5", "rb") as file:
    references = SingleHdf5ToZarr(file, "series.h5").translate()
store = zarr.storage.FsspecStore.from_url("reference://", storage_options={"fo": references})
seen = zarr.open_array(store, path="a", mode="r")[...]
print("through kerchunk and zarr:", *seen.tolist(), "instead of", *values.tolist(), sep="\n    ")
sys.exit(0 if (seen != values).any() else "This has changed.")
END
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5py==3.16.0 numpy==2.4.6 kerchunk==0.2.10 zarr==3.1.6 fsspec==2026.9.0 || exit 2
venv/bin/python -I list.py || exit 1
venv/bin/python -I virtual.py
