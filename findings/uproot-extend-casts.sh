#!/bin/sh
# Two writers of one library should treat a column of the wrong type alike. In uproot 5.7.7 they do
# not. TTree.extend casts what it is given to the branch's type in the way of C and says nothing:
# 1.7 becomes 1, 2**33 becomes 0, 1e300 becomes infinity. RNTuple.extend refuses the same columns,
# and also int32 for int64, which would lose nothing. A conversion that appends by chunks, of which
# a later one has a wider type, loses values in one format and stops in the other.
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
import numpy as np
import uproot

chunks = [
    {"a": np.array([1, 2], "i4"), "b": np.array([1, 2], "f4")},
    {"a": np.array([1.7, -2.9]), "b": np.array([1, 2], "f4")},
    {"a": np.array([2**33, -1]), "b": np.array([1e300, 2])},
]
refused = []
with np.errstate(all="ignore"), uproot.recreate("extend.root") as file:
    tree = file.mktree("tree", {"a": "int32", "b": "float32"})
    for chunk in chunks:
        tree.extend(chunk)
    ntuple = file.mkrntuple("ntuple", chunks[0])
    narrow = file.mkrntuple("narrow", {"a": np.array([1, 2], "i8")})
    for writer, chunk in [(ntuple, c) for c in chunks[1:]] + [(narrow, {"a": chunks[0]["a"]})]:
        try:
            writer.extend(chunk)
        except ValueError as error:
            refused.append(str(error).splitlines()[0])

a, b = (uproot.open("extend.root")["tree"][name].array(library="np").tolist() for name in "ab")
print("TTree, int32:  ", a)
print("TTree, float32:", b)
print("RNTuple refused", len(refused), "of 3:", *sorted(set(refused)))

as_seen = a == [1, 2, 1, -2, 0, -1] and b == [1, 2, 1, 2, float("inf"), 2] and len(refused) == 3
sys.exit(0 if as_seen else "This has changed.")
END
