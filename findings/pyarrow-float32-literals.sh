#!/bin/sh
# A float32 column of a pyarrow 26.0.1 dataset is compared with the Python number 0.1, which is a
# double. As in NumPy's old rules or in SQL one expects either the double's value (nothing equals
# it) or the nearest float32 (the stored 0.1 equals it), and the same from both spellings. `== 0.1`
# finds nothing, and `isin([0.1])` finds the row, for isin casts the literal and == casts the column.
# A list of energies or weights that is selected by isin and then counted by == disagrees. And an
# int64 column == a float that is a whole number above 2**24 raises ArrowInvalid ("not in range:
# -16777216 to 16777216") although both are exact, for the integer is taken to a float32.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import pyarrow as pa
import pyarrow.dataset as ds

table = pa.table({
    "weight": pa.array([0.1, 0.5], pa.float32()),
    "event": pa.array([9007199254740992, 16777217], pa.int64()),
})
data = ds.dataset(table)


def count(condition):
    try:
        return data.count_rows(filter=condition)
    except pa.ArrowInvalid as error:
        return str(error)


by_equal = count(ds.field("weight") == 0.1)
by_list = count(ds.field("weight").isin([0.1]))
large = count(ds.field("event") == 9007199254740992.0)
print(f"weight == 0.1: {by_equal}; weight.isin([0.1]): {by_list}")
print(f"event == 9007199254740992.0: {large}")
as_seen = (by_equal, by_list) == (0, 1) and "16777216" in str(large)
sys.exit(0 if as_seen else "This has changed.")
END
