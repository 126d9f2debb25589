#!/bin/sh
# A cut given to arrays() should select entries and an expression should be computed, as both are
# for a TTree. For an RNTuple uproot 5.7.7 takes the same arguments and follows neither: a cut
# returns every entry, an expression and even the name of a field that is not there return records
# without fields, and nothing is raised. A field whose name has a dot is read by arrays() but not
# by ["a.b"].array(), which looks for a field "a". Analyses that move from TTree to RNTuple keep
# running, with all events in them. Seen: 5 entries for a cut that 2 pass.
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

columns = {"a.b": np.arange(5), "c": np.arange(5) * 2}
with uproot.recreate("cut.root") as file:
    file.mktree("tree", {name: "int64" for name in columns}).extend(columns)
    file.mkrntuple("ntuple", columns)

file = uproot.open("cut.root")
tree, ntuple = file["tree"], file["ntuple"]
cut = [len(events.arrays("c", cut="c > 4")) for events in (tree, ntuple)]
print("entries with c > 4, of a TTree and an RNTuple:", cut)

computed = [events.arrays("c * 3").fields for events in (tree, ntuple)]
print("fields of the expression 'c * 3':", computed)

missing = ntuple.arrays("there_is_no_such_field")
print("a name that is not there:", len(missing), "entries with the fields", missing.fields)

both = ntuple.arrays().fields
try:
    dotted = ntuple["a.b"].array().to_list()
except uproot.exceptions.KeyInFileError:
    dotted = "KeyInFileError"
print("fields of arrays():", both, "and ntuple['a.b'].array():", dotted)

as_seen = cut == [2, 5] and computed == [["c * 3"], []] and missing.fields == []
as_seen = as_seen and len(missing) == 5 and both == ["a.b", "c"] and dotted == "KeyInFileError"
sys.exit(0 if as_seen else "This has changed.")
END
