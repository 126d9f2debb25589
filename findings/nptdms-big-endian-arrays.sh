#!/bin/sh
# A TDMS file should hold the numbers that were handed in. NumPy's arrays from FITS, netCDF-3 and many HDF5
# files are big-endian, and TdmsWriter of npTDMS 1.13.0 takes the TDMS type from the kind and size of their
# numbers and writes their bytes as they are into a segment marked little-endian: int16 1, 2, 3 are read as
# 256, 512, 768, float64 1 as 3e-319, and a list of the same numbers is right. No error, no warning.
# npTDMS itself hands out such arrays: the chunks that it streams from a big-endian TDMS file, so that copying
# a large one by chunks spoils it, while defragment() and reading the channel at once give native arrays.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    npTDMS==1.13.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import struct
import sys

import numpy as np
from nptdms import ChannelObject, TdmsFile, TdmsWriter


def returned(data):
    with TdmsWriter("file.tdms") as writer:
        writer.write_segment([ChannelObject("group", "channel", data)])
    return TdmsFile.read("file.tdms")["group"]["channel"][:]


as_seen = True
for name in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
    numbers = np.array([1, 2, 3], name)
    little, big = returned(numbers), returned(numbers.astype(f">{name}"))
    print(f"{name}: little-endian {little.tolist()}, big-endian {big.tolist()}")
    as_seen &= np.array_equal(little, numbers) and np.array_equal(big, numbers.byteswap())
listed = returned(numbers.astype(">f8").tolist())
print("a list of the same:", listed.tolist())
as_seen &= np.array_equal(listed, numbers)

# A segment with new objects and raw data, big-endian: one channel of float64.
path = b"/'group'/'channel'"
index = struct.pack(">IIIQI", 20, 10, 1, len(numbers), 0)
meta = struct.pack(">II", 1, len(path)) + path + index
raw = numbers.astype(">f8").tobytes()
with open("big.tdms", "wb") as file:
    file.write(b"TDSm" + struct.pack("<I", 0b1001110))
    file.write(struct.pack(">IQQ", 4713, len(meta) + len(raw), len(meta)) + meta + raw)
TdmsWriter.defragment("big.tdms", "whole.tdms")
with TdmsFile.open("big.tdms") as file, TdmsWriter("chunks.tdms") as writer:
    for chunk in file["group"]["channel"].data_chunks():
        writer.write_segment([ChannelObject("group", "channel", chunk[:])])
copies = {}
for name in ("big", "whole", "chunks"):
    copies[name] = TdmsFile.read(f"{name}.tdms")["group"]["channel"][:]
    print(f"a big-endian file, {name}:", copies[name].tolist())
as_seen &= np.array_equal(copies["big"], numbers) and np.array_equal(copies["whole"], numbers)
as_seen &= np.array_equal(copies["chunks"], numbers.byteswap())
sys.exit(0 if as_seen else "This has changed.")
END
