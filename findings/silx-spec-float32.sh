#!/bin/sh
# silx shows a SPEC file as an HDF5 tree, and its own specfile module parses the text to float64. One
# expects the tree to hold the same numbers. In silx 3.1.3 its columns and motor positions are
# float32. Three points that were a second apart have one and the same Epoch, counts above
# 16,777,216 change, and 0.123456789 degrees differ in the eighth digit: more than the step of a
# fine rocking curve around a large angle. Time differences, rates and normalised counts taken
# from the tree, or from the HDF5 file that "silx convert" writes, are of these numbers.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    silx==3.1.3 h5py==3.16.0 numpy==2.4.6 || exit 2
cat >scan.spec <<'END'
#F scan.spec
#E 1700000000
#D Tue Nov 14 22:13:20 2023
#O0 th

#S 1 ascan th 0 1 2 1
#D Tue Nov 14 22:13:20 2023
#P0 30.12345678
#N 3
#L th  Epoch  Detector
30.12345678 1700000001 16777217
30.12345679 1700000002 16777219
30.12345680 1700000003 4294967295

END
venv/bin/python -I - <<'END'
import sys
import silx.io
from silx.io.convert import write_to_h5
from silx.io.specfile import SpecFile

parsed = SpecFile("scan.spec")[0].data
write_to_h5("scan.spec", "scan.h5", mode="w")
as_seen = parsed[1].tolist() == [1700000001, 1700000002, 1700000003]
for name in ("scan.spec", "scan.h5"):
    with silx.io.open(name) as tree:
        columns = tree["1.1/measurement"]
        for row, column in enumerate(("th", "Epoch", "Detector")):
            print(name, column, columns[column].dtype, columns[column][:].tolist(), parsed[row].tolist())
        as_seen &= set(columns["Epoch"][:].tolist()) == {1700000000.0}
        as_seen &= columns["Detector"][0] == 16777216 and len(set(columns["th"][:].tolist())) == 1
        position = tree["1.1/instrument/positioners/th"]
        print(name, "position of th:", position.dtype, position[...])
sys.exit(0 if as_seen else "This has changed.")
END
