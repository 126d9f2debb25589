#!/bin/sh
# Numbers of events and hashes are unsigned 64-bit integers (ULong64_t of ROOT), and ak.where and
# ak.fill_none with a plain 0, as well as a detour by JSON, should leave them as they are. In
# awkward 2.14.0 a plain 0 is an int64, so both give float64, where NumPy 2 keeps uint64: numbers
# above 2**53 become their neighbours, and two events have one number. ak.from_json of what
# ak.to_json wrote makes numbers from 2**63 on negative, without an error. np.uint64(0) is the
# remedy for the first.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import awkward as ak
import numpy as np

numbers = np.array([2**60, 2**60 + 1, 2**63 + 5], "u8")
there = np.array([True, True, False])
by_numpy = np.where(there, numbers, 0)
assert by_numpy.dtype == "u8" and by_numpy.tolist() == [2**60, 2**60 + 1, 0]
where = ak.where(there, ak.Array(numbers), 0)
filled = ak.fill_none(ak.mask(ak.Array(numbers), there), 0)
typed = ak.fill_none(ak.mask(ak.Array(numbers), there), np.uint64(0))
text = ak.to_json(ak.Array(numbers))
from_json = ak.from_json(text)
for name, array in {"where": where, "fill_none": filled, "typed": typed}.items():
    print(name, array.type, [int(value) for value in array])
print(text, "is read as", from_json.to_list())

as_seen = from_json.to_list() == [2**60, 2**60 + 1, 5 - 2**63]
for array in (where, filled):
    as_seen &= str(array.type) == "3 * float64" and array[0] == array[1]
as_seen &= typed.to_list() == by_numpy.tolist()
sys.exit(0 if as_seen else "This has changed.")
END
