#!/bin/sh
# HDF5 integers may use fewer bits than their bytes have, as those of 12-bit digitizers do: libhdf5
# keeps the sign in the highest used bit, and fills the others with zeros. h5py reads int16. Virtual
# Zarr stores take the bytes as they are: with VirtualiZarr 2.5.1 and kerchunk 0.2.10 -5 of 12 bits is
# 4091, with chunks, compressed or without, and numbers of which the lowest four bits are unused are
# 16 times as large. Neither raises nor warns: Zarr has no such types, so these arrays should be refused.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    virtualizarr==2.5.1 kerchunk==0.2.10 h5py==3.16.0 zarr==3.1.6 xarray==2026.9.0 \
    obspec-utils==0.9.0 obstore==0.12.1 numcodecs==0.16.6 fsspec==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
from pathlib import Path

import fsspec
import h5py
import kerchunk.hdf
import numpy as np
import zarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtualizarr.parsers import HDFParser

warnings.simplefilter("ignore", UserWarning)
kinds = {
    "signed": (h5py.h5t.STD_I16LE, 0, np.array([-5, 7, 2000, -2000], "i2"), [4091, 7, 2000, 2096]),
    "shifted": (h5py.h5t.STD_U16LE, 4, np.array([5, 7, 2000, 4095], "u2"), [80, 112, 32000, 65520]),
}
with h5py.File("x.h5", "w") as file:
    for name, (base, offset, values, _) in kinds.items():
        kind = base.copy()
        kind.set_precision(12)
        kind.set_offset(offset)
        for layout in ("plain", "chunks", "gzip"):
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if layout != "plain":
                properties.set_chunk((2,))
            if layout == "gzip":
                properties.set_deflate(4)
            space = h5py.h5s.create_simple(values.shape)
            place = f"{name}_{layout}".encode()
            h5py.h5d.create(file.id, place, kind, space, properties)
            file[place][:] = values

registry = ObjectStoreRegistry({"file://": LocalStore()})
virtual = HDFParser()(url=Path("x.h5").absolute().as_uri(), registry=registry)
references = kerchunk.hdf.SingleHdf5ToZarr("x.h5").translate()
system = fsspec.filesystem("reference", fo=references, asynchronous=True)
opened = {
    "h5py": h5py.File("x.h5"),
    "virtualizarr": zarr.open_group(virtual, mode="r", zarr_format=3),
    "kerchunk": zarr.open_group(zarr.storage.FsspecStore(system), mode="r", zarr_format=2),
}
as_seen = True
for name, (_, _, values, bare) in kinds.items():
    for layout in ("plain", "chunks", "gzip"):
        for program, group in opened.items():
            read = group[f"{name}_{layout}"][:]
            print(f"{name}, {layout}, {program}: {read.dtype} {read.tolist()}")
            as_seen &= read.tolist() == (values.tolist() if program == "h5py" else bare)
sys.exit(0 if as_seen else "This has changed.")
END
