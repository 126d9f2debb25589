#!/bin/sh
# A cut should select the entries for which it is true. In uproot 5.7.7 an entry for which a cut is
# neither true nor false is kept, as an entry of missing values: with "max(pt) > 20" every event
# without any muon comes back as None, in each column. The number of entries is that of the selected
# ones and the empty ones, and columns of int64 become optional, which a TTree cannot hold. Nothing
# is raised. iterate(), by which large files and ServiceX's transformers are read, does the same.
# "any(pt > 20)" selects the same events without them.
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
from uproot.language.python import PythonLanguage

language = PythonLanguage(
    functions={"max": lambda x: ak.max(x, axis=1), "any": lambda x: ak.any(x, axis=1)}
)
with uproot.recreate("events.root") as file:
    tree = file.mktree("events", {"run": "i8", "pt": "var * float64"})
    tree.extend({"run": np.arange(4), "pt": ak.Array([[41.0, 12.0], [], [8.0], []])})
with uproot.open("events.root:events") as tree:
    kept, plain = (
        tree.arrays(["run"], cut=cut, language=language) for cut in ("max(pt) > 20", "any(pt > 20)")
    )
    (step,) = tree.iterate(["run"], cut="max(pt) > 20", language=language)
print("max(pt) > 20:", kept.type, kept.to_list())
print("any(pt > 20):", plain.type, plain.to_list())

found = [array["run"].to_list() for array in (kept, step, plain)]
sys.exit(0 if found == [[0, None, None], [0, None, None], [0]] else "This has changed.")
END
