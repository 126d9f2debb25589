#!/bin/sh
# The byte offset of a chunk should count from the beginning of the file, or always from the same
# place. libhdf5 changed its mind in a release that only mends: behind a user block get_chunk_info
# counts from the superblock in libhdf5 1.14.2 (h5py 3.11.0), so the bytes at that offset are
# others, and from the beginning of the file in 1.14.4 (h5py 3.12.1) and 2.0.0 (h5py 3.16.0).
# get_offset of a contiguous dataset counts from the beginning of the file in all of them. Every
# MATLAB 7.3 file has a user block of 512 bytes: who reads chunks by offset has to add it or not,
# by the version of the library.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
cat >read.py <<'END'
import sys
from pathlib import Path

import h5py
import numpy as np

values = np.arange(8, dtype="<i4")
with h5py.File("block.h5", "w", userblock_size=512) as file:
    file.create_dataset("chunked", data=values, chunks=(8,))
    file["contiguous"] = values + 100
with h5py.File("block.h5") as file:
    found = {
        "chunked": (file["chunked"].id.get_chunk_info(0).byte_offset, values),
        "contiguous": (file["contiguous"].id.get_offset(), values + 100),
    }

raw = Path("block.h5").read_bytes()
away = {name: raw.index(want.tobytes()) - offset for name, (offset, want) in found.items()}
version = h5py.version.hdf5_version
print(f"libhdf5 {version}: how far behind the offset the bytes are:", away)

seen = {"1.14.2": 512, "1.14.4": 0, "2.0.0": 0}
sys.exit(0 if away == {"chunked": seen[version], "contiguous": 0} else "This has changed.")
END
for pins in "h5py==3.11.0 numpy==2.0.2" "h5py==3.12.1 numpy==2.0.2" "h5py==3.16.0 numpy==2.4.6"; do
    rm -rf venv
    "${PYTHON:-python3}" -m venv venv || exit 2
    # The words of $pins are packages.
    # shellcheck disable=SC2086
    venv/bin/python -m pip install --quiet --disable-pip-version-check $pins || exit 2
    venv/bin/python -I read.py || exit 1
done
