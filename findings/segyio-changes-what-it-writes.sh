#!/bin/sh
# Writing an array should leave it as it is. segyio 1.9.14 converts float32 to the file's format, by
# default IBM's floats, in the caller's own memory, and back again, which is not exact: after
# f.trace = x, f.trace.raw[:] = x or tools.from_array2D(name, x) three of ten random numbers in x
# have changed in the last bits, and whoever goes on with x, or writes it to a second file as well,
# uses other numbers than before, without a warning. With format=5 (IEEE) nothing changes, and a
# read-only array is copied first and left alone.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    segyio==1.9.14 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import segyio


def fresh():
    return np.random.default_rng(1).random((4, 100)).astype("f4")


def changed(data):
    return int(np.sum(data != fresh()))


counts = {}
for name, form in (("IBM", 1), ("IEEE", 5)):
    data = fresh()
    segyio.tools.from_array2D("file.sgy", data, format=form)
    counts["from_array2D", name] = changed(data)
    data = fresh()
    with segyio.open("file.sgy", "r+", ignore_geometry=True) as file:
        file.trace = data
    counts["trace = x", name] = changed(data)
    data = fresh()
    with segyio.open("file.sgy", "r+", ignore_geometry=True) as file:
        file.trace.raw[:] = data
    counts["trace.raw[:] = x", name] = changed(data)
    with segyio.open("file.sgy", ignore_geometry=True) as file:
        exact = np.array_equal(file.trace.raw[:], fresh())
    assert exact == (form == 5)
data = fresh()
data.flags.writeable = False
segyio.tools.from_array2D("file.sgy", data)
counts["from_array2D of a read-only array", "IBM"] = changed(data)
for (call, name), count in counts.items():
    print(f"{call}, {name}: {count} of {fresh().size} numbers of x have changed")

as_seen = all(count == 0 for (_, name), count in counts.items() if name == "IEEE")
as_seen &= counts.pop(("from_array2D of a read-only array", "IBM")) == 0
as_seen &= all(count > 50 for (_, name), count in counts.items() if name == "IBM")
sys.exit(0 if as_seen else "This has changed.")
END
