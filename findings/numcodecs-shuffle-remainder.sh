#!/bin/sh
# The shuffle filter of HDF5 and numcodecs.Shuffle should undo one another. They do so only for
# whole elements. HDF5 shuffles the whole elements of a buffer and copies the bytes that are left
# over; numcodecs 0.16.6 refuses such a buffer. Bytes are left over where a Fletcher-32 checksum, 4
# bytes, comes before the shuffle of 8-byte elements. That is the order in which netCDF-4 writes
# its filters (netCDF4 1.7.5.1), while h5py 3.16.0 puts the checksum last for the same settings. So
# the chunks of netCDF-4 files with checksums need a decoder that copies the rest, wherever they
# are read without libhdf5.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    numcodecs==0.16.6 netCDF4==1.7.5.1.post1 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import h5py
import netCDF4
import numcodecs
import numpy as np

values = np.arange(3, dtype="<i8") * 1000
with netCDF4.Dataset("netcdf.nc", "w") as file:
    file.createDimension("x", 3)
    settings = {"zlib": True, "shuffle": True, "fletcher32": True}
    file.createVariable("v", "<i8", ("x",), chunksizes=(3,), **settings)[:] = values
with h5py.File("h5py.h5", "w") as file:
    settings = {"compression": "gzip", "shuffle": True, "fletcher32": True}
    file.create_dataset("v", data=values, chunks=(3,), **settings)


def copying(buffer):
    whole = len(buffer) // 8 * 8
    return bytes(numcodecs.Shuffle(8).decode(buffer[:whole])) + buffer[whole:]


def decoded(chunk, filters, unshuffle):
    undo = {"fletcher32": numcodecs.Fletcher32().decode, "deflate": numcodecs.Zlib().decode}
    for name in reversed(filters):
        chunk = bytes({**undo, "shuffle": unshuffle}[name](chunk))
    return np.frombuffer(chunk, "<i8").tolist()


seen = []
for path in ("netcdf.nc", "h5py.h5"):
    with h5py.File(path) as file:
        plist = file["v"].id.get_create_plist()
        filters = [plist.get_filter(i)[3].decode() for i in range(plist.get_nfilters())]
        chunk = file["v"].id.read_direct_chunk((0,))[1]
        numbers = file["v"][:].tolist()
    try:
        plain = decoded(chunk, filters, numcodecs.Shuffle(8).decode)
    except ValueError as error:
        plain = str(error)
    print(path, filters, "libhdf5:", numbers)
    print("    numcodecs:", plain)
    print("    with the rest copied:", decoded(chunk, filters, copying))
    seen.append((filters[0], plain, numbers == decoded(chunk, filters, copying) == values.tolist()))

refused = "Shuffle buffer is not an integer multiple of elementsize"
as_seen = seen == [("fletcher32", refused, True), ("shuffle", values.tolist(), True)]
sys.exit(0 if as_seen else "This has changed.")
END
