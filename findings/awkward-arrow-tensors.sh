#!/bin/sh
# Arrow's own type for arrays of fixed shape in a column should become a regular array in Awkward,
# since both mean the same and Awkward has had regular arrays from the beginning. ak.from_arrow of
# awkward 2.14.0 fails for such a column of pyarrow 26.0.1, with an AssertionError that says
# nothing, and ak.from_parquet of the same column with a NotImplementedError. The same numbers as
# nested fixed_size_list are read. pyarrow's schema.empty_table() fails with the extension types of
# Awkward's own ak.to_arrow_table (a tuple in a field), where Table.from_batches with no batches
# makes the same empty table. Chunks of arrays in Parquet need a way around both.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    awkward==2.14.0 pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def attempt(call):
    try:
        return str(call())
    except Exception as error:
        said = str(error).strip().splitlines()
        return f"{type(error).__name__}: {said[0] if said else ''}"


values = np.arange(24.0).reshape(2, 3, 4)
tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
pq.write_table(pa.table({"t": tensors}), "tensors.parquet")
lists = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(values.ravel(), 4), 3)
results = {
    "ak.from_arrow of tensors": attempt(lambda: ak.from_arrow(tensors).type),
    "ak.from_parquet of tensors": attempt(lambda: ak.from_parquet("tensors.parquet").type),
    "ak.from_arrow of nested lists": attempt(lambda: ak.from_arrow(lists).type),
}
table = ak.to_arrow_table(ak.Array([{"pair": (1, 2.5)}, {"pair": (3, 4.5)}]))
results["schema.empty_table"] = attempt(lambda: table.schema.empty_table().num_rows)
results["Table.from_batches"] = attempt(lambda: pa.Table.from_batches([], table.schema).num_rows)
for name, result in results.items():
    print(f"{name}: {result}")

starts = ["AssertionError", "NotImplementedError", "2 * ", "ArrowNotImplementedError", "0"]
as_seen = all(got.startswith(start) for got, start in zip(results.values(), starts, strict=True))
sys.exit(0 if as_seen else "This has changed.")
END
