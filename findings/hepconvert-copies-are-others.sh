#!/bin/sh
# A copy of a ROOT file should hold what the file holds. copy_root of hepconvert 1.4.0 copies histograms anew: a
# histogram of two axes has its bins in the order of C where ROOT has that of Fortran, so that one with as many bins
# on either axis is transposed, and others are mixed up with the overflows; and the squares of weights are dropped, so
# that the error of a bin with weights 3 and 4 is 2.65 and not 5, as if each weight were a count. add_histograms does
# the latter too. What is an RNTuple, which uproot 5.7.7 writes by default, is left out altogether. Nothing is said;
# values of one axis, and TTrees, are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    hepconvert==1.4.0 uproot==5.7.7 awkward==2.14.0 hist==2.12.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import hepconvert
import hist
import numpy as np
import uproot

weighted = hist.Hist.new.Reg(2, 0, 2).Weight().fill([0.5, 0.5, 1.5], weight=[3, 4, 1])
plane = hist.Hist.new.Reg(2, 0, 2).Reg(2, 0, 2).Double().fill([0.5, 0.5, 1.5], [0.5, 1.5, 1.5], weight=[1, 2, 3])
oblong = hist.Hist.new.Reg(2, 0, 2).Reg(3, 0, 3).Double().fill([0.5, 0.5, 1.5], [0.5, 2.5, 2.5], weight=[1, 2, 3])
with uproot.recreate("run.root") as file:
    file["weighted"], file["plane"], file["oblong"] = weighted, plane, oblong
    file["events"] = {"x": np.arange(3)}
    file.mktree("tree", {"x": "int64"}).extend({"x": np.arange(3)})
for name in ("first.root", "second.root"):
    with uproot.recreate(name) as file:
        file["weighted"] = weighted
hepconvert.copy_root("copy.root", "run.root", progress_bar=False)
hepconvert.add_histograms("sum.root", ["first.root", "second.root"], progress_bar=False)

seen = {}
for name in ("run.root", "copy.root", "sum.root"):
    with uproot.open(name) as file:
        keys = sorted(file.keys(cycle=False))
        one = file["weighted"]
        parts = [keys, one.values().tolist(), one.errors().round(2).tolist()]
        if name != "sum.root":
            parts += [file["plane"].values().tolist(), file["oblong"].values(flow=True).tolist()]
            parts += [file["tree"]["x"].array().tolist()]
    seen[name] = parts
    print(name, *parts, sep="\n    ")

run, copy, total = seen.values()
as_seen = run[0] == ["events", "oblong", "plane", "tree", "weighted"]
as_seen &= copy[0] == ["oblong", "plane", "tree", "weighted"] and copy[5] == run[5] == [0, 1, 2]
as_seen &= run[1] == copy[1] == [7, 1] and total[1] == [14, 2]
as_seen &= run[2] == [5, 1] and copy[2] == [2.65, 1] and total[2] == [3.74, 1.41]
as_seen &= run[3] == [[1, 2], [0, 3]] and copy[3] == [[1, 0], [2, 3]]
as_seen &= copy[4] == np.reshape(np.ravel(run[4]), (4, 5), order="F").tolist() != run[4]
sys.exit(0 if as_seen else "This has changed.")
END
