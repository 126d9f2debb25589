#!/bin/sh
# A histogram that is written to a ROOT file should keep its overflow, for which a TH1 has a bin. If
# an axis has only one of both flow bins, as counts that cannot be negative (underflow=False) and
# every axis of categories have, uproot 5.7.7 writes 0 for both: what lay beyond the axis is gone,
# and so are the entries that it counts. In two dimensions also rows that are inside the other axis
# are lost. Axes with both flow bins are written rightly. No error is raised, and yields with
# overflow come out lower.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    uproot==5.7.7 boost-histogram==1.8.1 awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import boost_histogram as bh
import numpy as np
import uproot

counts = np.array([0, 1, 2, 3, 9, 9, 9])
axes = {
    "both": bh.axis.Integer(0, 4),
    "underflow=False": bh.axis.Integer(0, 4, underflow=False),
    "categories": bh.axis.IntCategory([0, 1, 2, 3]),
}
seen = {}
for name, axis in axes.items():
    histogram = bh.Histogram(axis, storage=bh.storage.Weight())
    histogram.fill(counts)
    with uproot.recreate("file.root") as file:
        file["h"] = histogram
    with uproot.open("file.root") as file:
        written = file["h"].values(flow=True).tolist()
        entries = file["h"].member("fEntries")
    seen[name] = written[-1], entries
    filled = histogram.values(flow=True).tolist()
    print(f"{name}: filled {filled}, in the file {written} with {entries:g} entries")
    assert filled[-1] == 3 and written[1:-1] == [1, 1, 1, 1]

as_seen = seen == {"both": (3, 7), "underflow=False": (0, 4), "categories": (0, 4)}
sys.exit(0 if as_seen else "This has changed.")
END
