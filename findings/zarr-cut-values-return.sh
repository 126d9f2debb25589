#!/bin/sh
# An array that is made shorter and then longer again should have the fill value in its new part:
# what was cut off is gone. HDF5 (h5py 3.16.0) does that. zarr-python 3.1.6 for both versions of Zarr and
# for shards, TensorStore 0.1.86 for Zarr and N5, and blosc2 4.14.1 leave the chunk at the edge as it
# is, so some of the old values come back: as many as that chunk had. How many depends on the
# chunks. A new part of blosc2.full(..., 7) has sevens up to the end of the chunk and zeros behind. A
# scan that is cut back to its last good frame and continued shows frames that were rejected.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    h5py==3.16.0 zarr==3.1.6 tensorstore==0.1.86 blosc2==4.14.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import blosc2
import h5py
import numpy as np
import tensorstore as ts
import zarr

values, seen = np.arange(1, 11), {}

with h5py.File("x.h5", "w") as file:
    array = file.create_dataset("x", data=values, chunks=(4,), maxshape=(None,))
    array.resize((5,))
    array.resize((10,))
    seen["h5py"] = array[:].tolist()

for name, options in {"Zarr 2": {"zarr_format": 2}, "Zarr 3": {}, "shards": {"shards": (8,)}}.items():
    array = zarr.create_array(zarr.storage.MemoryStore(), data=values, chunks=(4,), **options)
    array.resize((5,))
    array.resize((10,))
    seen[f"zarr-python, {name}"] = array[:].tolist()

grid = {"name": "regular", "configuration": {"chunk_shape": [4]}}
for driver, metadata in {
    "zarr": {"shape": [10], "chunks": [4], "dtype": "<i8"},
    "zarr3": {"shape": [10], "chunk_grid": grid, "data_type": "int64"},
    "n5": {
        "dimensions": [10],
        "blockSize": [4],
        "dataType": "int64",
        "compression": {"type": "raw"},
    },
}.items():
    spec = {"driver": driver, "kvstore": f"memory://{driver}/", "metadata": metadata, "create": True}
    array = ts.open(spec).result()
    array.write(values).result()
    array = array.resize(exclusive_max=[5]).result().resize(exclusive_max=[10]).result()
    seen[f"TensorStore, {driver}"] = array.read().result().tolist()

array = blosc2.asarray(values, chunks=(4,), blocks=(2,))
array.resize((5,))
array.resize((10,))
seen["blosc2"] = array[:].tolist()
sevens = blosc2.full((5,), 7, chunks=(4,), blocks=(2,))
sevens.resize((10,))
seen["blosc2.full"] = sevens[:].tolist()

for name, read in seen.items():
    print(f"{name}: {read}")
as_seen = seen.pop("h5py") == [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]
as_seen &= seen.pop("blosc2.full") == [7, 7, 7, 7, 7, 7, 7, 7, 0, 0]
as_seen &= all(read == [1, 2, 3, 4, 5, 6, 7, 8, 0, 0] for read in seen.values())
sys.exit(0 if as_seen else "This has changed.")
END
