#!/bin/sh
# Values that ak.mask hides should be missing when they are written to a ROOT file, and all others
# stay where they are. uproot 5.7.7 writes to an RNTuple all values of a masked array, the hidden
# ones too, but refers to them as if only the visible ones were there: [1, None, 3] is read as
# [1, None, 2], and everything behind the first hidden value is shifted. The number of entries is
# right and nothing is raised. The same list given to ak.Array, which keeps its missing values by
# an index, is right. file["events"] = ... writes an RNTuple by itself.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    uproot==5.7.7 awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import awkward as ak
import numpy as np
import uproot

values = ak.Array([1.5, 2.5, 3.5, 4.5, 5.5])
good = np.array([True, False, True, True, False])
masked = ak.mask(values, good)
listed = ak.Array(masked.to_list())
lists = ak.mask(ak.Array([[1], [2, 2], [3], [], [5]]), good)


def through(array):
    with uproot.recreate("events.root") as file:
        file["events"] = {"x": array}
    with uproot.open("events.root") as file:
        return type(file["events"]).__name__, file["events"]["x"].array().to_list()


as_seen = True
for name, array, right in (("masked", masked, False), ("listed", listed, True), ("lists", lists, False)):
    kind, read = through(array)
    print(f"{name}: {type(array.layout).__name__} written {array.to_list()} read {read} ({kind})")
    as_seen &= (read == array.to_list()) == right and len(read) == len(array)
sys.exit(0 if as_seen else "This has changed.")
END
