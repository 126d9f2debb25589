#!/bin/sh
# A map of bytes in MRC, mode 0, should have the same numbers for every reader. MRC2014 says that they are
# signed. IMOD has a stamp and a flag in the header (imodStamp, imodFlags) that say whether they are, and had
# only unsigned ones before 4.2.23. mrcfile 1.5.4, ncempy 1.16 and SimpleITK 2.5.7 take all of them for signed,
# so that 200 of an unsigned file is -56; RosettaSciIO 0.15.0, with which HyperSpy reads, takes all of them
# for unsigned, so that -56, as mrcfile writes it, is 200. None of them looks at the flag, and none warns: what
# is brightest for the one is the darkest for the other.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    mrcfile==1.5.4 ncempy==1.16 SimpleITK==2.5.7 rosettasciio==0.15.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W error -W ignore::ResourceWarning - <<'END'
import io
import struct
import sys

import mrcfile
import ncempy.io.mrc
import numpy as np
import SimpleITK
from rsciio.mrc import file_reader

STAMP, SIGNED = 1146047817, 1
signed = np.array([[[-128, -56, -1], [0, 100, 127]]], "i1")
unsigned = signed.view("u1")


def readings(name):
    with mrcfile.open(name) as file:
        by_mrcfile = np.array(file.data)
    return {
        "mrcfile": by_mrcfile,
        "ncempy": ncempy.io.mrc.mrcReader(name)["data"],
        "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(name)),
        "RosettaSciIO": file_reader(name)[0]["data"],
    }


with mrcfile.new("plain.mrc") as file:
    file.set_data(signed)
with open("plain.mrc", "rb") as file:
    plain = file.read()
for name, flags in (("imod-signed.mrc", SIGNED), ("imod-unsigned.mrc", 0)):
    with open(name, "wb") as file:
        file.write(plain[:152] + struct.pack("<ii", STAMP, flags) + plain[160:])
as_seen = True
for name, meant in (("plain.mrc", signed), ("imod-signed.mrc", signed), ("imod-unsigned.mrc", unsigned)):
    as_seen &= mrcfile.validate(name, print_file=io.StringIO())
    print(f"{name}: {meant.ravel().tolist()} is meant")
    for reader, data in readings(name).items():
        print(f"    {reader}: {data.ravel().tolist()}")
        taken = unsigned if reader == "RosettaSciIO" else signed
        as_seen &= data.ravel().tolist() == taken.ravel().tolist()
sys.exit(0 if as_seen else "This has changed.")
END
