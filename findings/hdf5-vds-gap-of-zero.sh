#!/bin/sh
# A virtual dataset over files that are numbered can be opened with one of two views: up to the
# first file that is missing, or up to the last that is there. With "last available" one expects a
# hole in the middle and the files behind it. libhdf5 2.0.0 (h5py 3.16.0) gives that only if the
# access property for gaps is raised: by default it is 0, so the search ends at the first missing
# file and both views are the same. It has to be at least as large as the longest run of missing
# files. A scan of which one file was lost looks as if it had ended there, whichever view was asked
# for.
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

UNLIMITED = h5py.h5s.UNLIMITED
for number in (0, 1, 3, 6):
    with h5py.File(f"scan{number}.h5", "w") as file:
        file["row"] = np.full(3, number)

with h5py.File("all.h5", "w", libver="latest") as file:
    space = h5py.h5s.create_simple((0, 3), (UNLIMITED, 3))
    space.select_hyperslab((0, 0), (UNLIMITED, 1), stride=(1, 3), block=(1, 3))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_fill_value(np.array(-1))
    plist.set_virtual(space, b"scan%b.h5", b"row", h5py.h5s.create_simple((3,)))
    h5py.h5d.create(file.id, b"rows", h5py.h5t.NATIVE_INT64, space, plist)


def first_column(view, gap):
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_virtual_view(view)
    if gap is not None:
        access.set_virtual_printf_gap(gap)
    with h5py.File("all.h5") as file:
        return h5py.Dataset(h5py.h5d.open(file.id, b"rows", access))[:, 0].tolist()


print(h5py.version.hdf5_version, "with the files 0, 1, 3 and 6")
seen = {}
views = {"first missing": h5py.h5d.VDS_FIRST_MISSING, "last available": h5py.h5d.VDS_LAST_AVAILABLE}
for name, view in views.items():
    for gap in (None, 0, 1, 2):
        seen[name, gap] = first_column(view, gap)
        print(f"{name}, gap {gap}: {seen[name, gap]}")

short = [0, 1]
last = [seen["last available", gap] for gap in (None, 0, 1, 2)]
as_seen = last == [short, short, [0, 1, -1, 3], [0, 1, -1, 3, -1, -1, 6]]
as_seen = as_seen and all(seen["first missing", gap] == short for gap in (None, 0, 1, 2))
sys.exit(0 if as_seen else "This has changed.")
END
