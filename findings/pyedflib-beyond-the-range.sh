#!/bin/sh
# A sample beyond the physical range of an EDF signal is clipped to the end of the range that is next
# to it, and NaN should be refused, as edfio and MNE do. pyEDFlib 0.1.42 clips samples that are a
# little too large, but from 65536 times the range on they wrap to the other end: for a range of -1 to
# 1, 60000 is written as 1, and 66000 as -1. In BDF, of 24 bits, 256 times is enough. Infinity is
# written as -1, and so is NaN: a gap becomes the lowest voltage. Nothing is raised or said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyedflib==0.1.42 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import pyedflib


def through(samples, file_type, digital):
    header = {
        "label": "a",
        "dimension": "uV",
        "sample_frequency": len(samples),
        "physical_min": -1,
        "physical_max": 1,
        "digital_min": -digital,
        "digital_max": digital - 1,
        "transducer": "",
        "prefilter": "",
    }
    with pyedflib.EdfWriter("x.edf", 1, file_type=file_type) as file:
        file.setSignalHeader(0, header)
        file.writeSamples([np.array(samples)])
    with pyedflib.EdfReader("x.edf") as file:
        return file.readSignal(0).round(3).tolist()


def show(name, samples, read):
    print(f"{name}: written {samples}, read {read}")
    return read


as_seen = True
edf = [0.5, 5.0, -5.0, 60000.0, 66000.0, 1e12, np.inf, np.nan]
bdf = [0.5, 5.0, -5.0, 200.0, 300.0, 1e12, np.inf, np.nan]
for name, samples, kind, digital in (
    ("EDF", edf, pyedflib.FILETYPE_EDFPLUS, 2**15),
    ("BDF", bdf, pyedflib.FILETYPE_BDFPLUS, 2**23),
):
    read = show(name, samples, through(samples, kind, digital))
    as_seen &= read == [0.5, 1, -1, 1, -1, -1, -1, -1]
sys.exit(0 if as_seen else "This has changed.")
END
