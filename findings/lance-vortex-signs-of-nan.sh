#!/bin/sh
# A selection x > 50 should not hold what is no number, as with NumPy and pyarrow's datasets, or it
# should treat all NaN alike, as DuckDB does, for which they are the largest. Lance (pylance 14.0.2)
# and Vortex (vortex-data 0.93.0) order floats by IEEE 754's rule for sorting: a NaN whose sign bit
# is 0 is above all numbers, one whose sign bit is 1 below. numpy.nan has 0 and passes x > 50; the
# NaN of 0/0, inf - inf or sqrt(-1) has 1 on x86 and passes x < 50. So a cut on an energy keeps some
# of the broken events, and which ones depends on how they broke. Lance's index answers alike.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pylance==14.0.2 vortex-data==0.93.0 pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import lance
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import vortex
import vortex.expr

x = np.array([1, 100, 0, np.nan, np.copysign(np.nan, -1)])
table = pa.table({"x": x, "row": np.arange(5)})
with np.errstate(invalid="ignore"):
    print("sign bit of the NaN of 0/0 here:", np.signbit(np.zeros(1) / np.zeros(1)))

lance_set = lance.write_dataset(table, "x.lance")
vortex.io.write(table, "x.vortex")
pa.parquet.write_table(table, "x.parquet")
vortex_file, arrow_set = vortex.open("x.vortex"), pa.dataset.dataset("x.parquet")


def rows(selected):
    return selected["row"].to_pylist()


seen = {}
for sign in "><":
    column, field = vortex.expr.column("x"), pa.dataset.field("x")
    seen[sign] = {
        "NumPy": np.flatnonzero(x > 50 if sign == ">" else x < 50).tolist(),
        "pyarrow": rows(arrow_set.to_table(filter=field > 50 if sign == ">" else field < 50)),
        "Lance": rows(lance_set.to_table(filter=f"x {sign} 50")),
        "Vortex": rows(
            vortex_file.to_arrow(expr=column > 50.0 if sign == ">" else column < 50.0).read_all()
        ),
    }
    print("rows of x", sign, "50:", seen[sign])
lance_set.create_scalar_index("x", "BTREE")
indexed = [rows(lance.dataset("x.lance").to_table(filter=f"x {sign} 50")) for sign in "><"]
print("Lance with an index:", indexed)

as_seen = indexed == [[1, 3], [0, 2, 4]]
for sign, numbers, total in ((">", [1], [1, 3]), ("<", [0, 2], [0, 2, 4])):
    as_seen &= seen[sign] == {"NumPy": numbers, "pyarrow": numbers, "Lance": total, "Vortex": total}
sys.exit(0 if as_seen else "This has changed.")
END
