#!/bin/sh
# A column of uint64, such as hashes, detector numbers or event numbers, should be compared as what it is in
# a query. pandas 2.3.3 and xarray 2026.9.0 hand expressions to numexpr where that is installed, and numexpr
# 2.14.2 takes uint64 for int64: `id > 6` drops all numbers from 2**63 on, `id < 0` finds them, and
# arithmetic with them is negative. No error or warning. df[df.id > 6], engine="python", and the same query
# on a machine without numexpr are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pandas==2.3.3 xarray==2026.9.0 numexpr==2.14.2 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import numexpr
import numpy as np
import pandas as pd
import xarray as xr

id = np.array([7, 2**63 + 5, 2**64 - 1], "u8")
df, ds = pd.DataFrame({"id": id}), xr.Dataset({"id": ("row", id)})
as_seen = True
for condition, right, seen in (("id > 6", id, id[:1]), ("id < 0", id[:0], id[1:])):
    found = {
        "python": df.query(condition, engine="python").id.to_numpy(),
        "pandas": df.query(condition).id.to_numpy(),
        "xarray": ds.query(row=condition).id.values,
        "numexpr": id[numexpr.evaluate(condition)],
    }
    print(f"{condition}: {right.tolist()}")
    for name, rows in found.items():
        print(f"    {name:7}: {rows.tolist()}")
        as_seen &= np.array_equal(rows, right if name == "python" else seen)
for expression in ("id + 1", "id * 0.5"):
    one, other = df.eval(expression), df.eval(expression, engine="python")
    print(f"{expression}: {one.tolist()} {one.dtype}, without numexpr {other.tolist()}")
    as_seen &= one[1] < 0 < other[1]
as_seen &= numexpr.evaluate("id").dtype == "i8"
sys.exit(0 if as_seen else "This has changed.")
END
