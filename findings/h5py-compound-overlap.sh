#!/bin/sh
# A compound type of HDF5 may have fields of floats that NumPy does not have, such as bfloat16, and
# h5py reads them as the next larger ones. A dataset of them alone is right. In a compound, h5py
# 3.16.0 makes each field larger and leaves it at its offset in the file, so that the fields of the
# dtype overlap; the type that it then hands to libhdf5 has moved them apart. So a record is read
# with the bytes of one field in the place of another: here a time of 1000 becomes 1075838976, and
# all rows are the same, without an error. A field that is read alone is right.
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
from h5py import h5d, h5s, h5t

bfloat16 = h5t.IEEE_F32LE.copy()
bfloat16.set_fields(15, 7, 8, 0, 7)
bfloat16.set_precision(16)
bfloat16.set_size(2)
record = h5t.create(h5t.COMPOUND, 16)
record.insert(b"a", 0, bfloat16)
record.insert(b"b", 2, bfloat16)
record.insert(b"time", 4, h5t.STD_U32LE)
written = np.array([(1.5, 2.5, 1000 + n) for n in range(3)], "f4, f4, u4")
written.dtype.names = ("a", "b", "time")
with h5py.File("file.h5", "w") as file:
    space = h5s.create_simple((3,))
    h5d.create(file.id, b"rows", record, space).write(h5s.ALL, h5s.ALL, written)
    h5d.create(file.id, b"alone", bfloat16, space).write(h5s.ALL, h5s.ALL, written["b"].copy())
with h5py.File("file.h5") as file:
    rows, dtype = file["rows"][:], file["rows"].dtype
    print("written ", written.tolist())
    print("read    ", rows.tolist())
    print("dtype   ", dtype)
    print("one by one", *(file["rows"][name].tolist() for name in dtype.names))
    as_seen = rows.tolist() != written.tolist()
    as_seen &= len(set(rows["time"].tolist())) == 1
    as_seen &= file["alone"][:].tolist() == [2.5] * 3
    as_seen &= all((file["rows"][name] == written[name]).all() for name in dtype.names)
sys.exit(0 if as_seen else "This has changed.")
END
