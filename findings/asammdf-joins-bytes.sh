#!/bin/sh
# Measurements of one channel that are joined should be numbers of a type that holds both, or be
# refused, as MDF.concatenate of asammdf 8.8.28 does for files with other channels. It compares
# names and not types. A channel that is uint8 in the first file and uint16 in the second gets the
# second file's bytes as they lie, half a number each, in as many as there should be numbers: 0,
# 300, 600 become 0, 0, 44. A float32 behind a uint32 is its bits. Nothing is raised, and times,
# lengths and name are right. MDF.stack keeps both. Loggers choose the type by the range of the
# signal, so it changes between files.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    asammdf==8.8.28 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
from asammdf import MDF, Signal

parts = {
    "uint8": np.array([7, 8, 9], "u1"),
    "uint16": np.array([0, 300, 600], "u2"),
    "uint32": np.array([7, 8, 9], "u4"),
    "float32": np.array([1.0, 1.5, 2.0], "f4"),
}
for name, samples in parts.items():
    with MDF() as file:
        file.append([Signal(samples, timestamps=np.arange(3) / 10, name="speed")])
        file.save(f"{name}.mf4")
joined = {}
for first, second in (("uint8", "uint16"), ("uint32", "float32")):
    names = [f"{first}.mf4", f"{second}.mf4"]
    with MDF.concatenate(names) as file:
        speed = file.get("speed")
    assert len(speed.samples) == len(speed.timestamps) == 6
    joined[first, second] = speed.samples.tolist()
    print(f"{first} and {second}: {joined[first, second]}, should end in {parts[second].tolist()}")
    with MDF.stack(names) as file:
        both = [file.get("speed", group=group).samples.tolist() for group in (0, 1)]
    assert both == [parts[first].tolist(), parts[second].tolist()]

as_seen = joined["uint8", "uint16"] == [7, 8, 9, 0, 0, 44]
bits = parts["float32"].view("u4").tolist()
as_seen &= joined["uint32", "float32"] == [7, 8, 9, *bits]
sys.exit(0 if as_seen else "This has changed.")
END
