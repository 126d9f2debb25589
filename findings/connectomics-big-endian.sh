#!/bin/sh
# Labels in big-endian order should have the same meaning as in little-endian order, or be refused. Of the
# libraries for labels of connectomics, fastremap's unique and renumber refuse them, but three routines take
# the bytes as they lie in memory: edt 3.1.2 says that each voxel is background, at distance 0, for
# uint32 and uint64; component_map and inverse_component_map of fastremap 1.21.0 give keys such as
# 72057594037927936 for label 1; and crackle 0.55.0 stores other labels and gives them back as native
# integers. Nothing is said. HDF5, N5 and FITS hold big-endian labels; astype(dtype.newbyteorder('=')) helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    edt==3.1.2 fastremap==1.21.0 crackle-codec==0.55.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import crackle
import edt
import fastremap
import numpy as np

native = np.ones((5, 5, 5), "u8")
native[:, :, 3:] = 2
swapped = native.astype(">u8")
other = native.byteswap()
as_seen = np.array_equal(native, swapped)

distances = [edt.edt(labels)[2, 2].tolist() for labels in (native, swapped)]
print("distances in a row, native:", distances[0])
print("big-endian:", distances[1])
as_seen &= distances == [[3, 2, 1, 1, 2], [0, 0, 0, 0, 0]]

maps = [dict(fastremap.component_map(labels, labels)) for labels in (native, swapped)]
print("component_map, native:", maps[0], "big-endian:", maps[1])
as_seen &= maps == [{1: 1, 2: 2}, {2**56: 2**56, 2**57: 2**57}]
inverse = {key: list(values) for key, values in fastremap.inverse_component_map(swapped, swapped).items()}
print("inverse_component_map, big-endian:", inverse)
as_seen &= inverse == {2**56: [2**56], 2**57: [2**57]}

back = [crackle.decompress(crackle.compress(labels)) for labels in (native, swapped)]
print("crackle, native:", back[0][0, 0].tolist(), "big-endian:", back[1][0, 0].tolist(), back[1].dtype)
as_seen &= np.array_equal(back[0], native) and np.array_equal(back[1], other)
try:
    print(fastremap.unique(swapped))
    as_seen = False
except ValueError as error:
    print("unique:", error)
sys.exit(0 if as_seen else "This has changed.")
END
