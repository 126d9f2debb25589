#!/bin/sh
# ak.max and ak.min of Awkward 2.14.0 over lists of floats look like NumPy's, where a NaN makes the
# result NaN. They pass over NaN instead, and a list of nothing but NaN gives the identity: -inf and
# inf, not NaN and not None. A cut such as `ak.max(pt, axis=1) > 20` then treats a broken object as
# absent, and `ak.min(distance, axis=1) > 0.4` passes an event in which every distance is NaN, as
# NumPy's would not. ak.sum and ak.mean do give NaN.
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

lists = ak.Array([[1.0, np.nan, 3.0], [np.nan, np.nan], []])
print("max", ak.max(lists, axis=1).to_list(), "NumPy", float(np.max([1.0, np.nan, 3.0])))
print("min", ak.min(lists, axis=1).to_list())
print("sum", ak.sum(lists, axis=1).to_list())
passed = ak.min(lists, axis=1) > 0.4
print("min > 0.4:", passed.to_list())
as_seen = (
    ak.max(lists, axis=1).to_list() == [3.0, -np.inf, None]
    and ak.min(lists, axis=1).to_list() == [1.0, np.inf, None]
    and np.isnan(ak.sum(lists, axis=1).to_list()[:2]).all()
    and passed.to_list() == [True, True, None]
)
sys.exit(0 if as_seen else "This has changed.")
END
