#!/bin/sh
# An array of Arrow may be a view with an offset into longer buffers, and every reader has to count
# values and the bits of missing ones from there. ak.from_arrow of awkward 2.14.0 does so for the
# values, and reads the bits from the beginning of the buffer: other elements are missing than
# those that Arrow says, without any error. It does not happen with batches of Parquet, whose
# offset is 0, nor where the pattern repeats by chance; slices of tables, of batches and of arrays
# of pyarrow 26.0.1 have it. Convert whole batches, and slice what Awkward has made of them.
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
import pyarrow as pa

whole = pa.array([10, None, 12, 13, 14, 15])
table = pa.table({"x": whole})
results = {
    "an array": ak.from_arrow(whole[2:]).to_list(),
    "a batch": ak.from_arrow(table.to_batches()[0][2:]).x.to_list(),
    "a table": ak.from_arrow(table[2:]).x.to_list(),
    "converted first": ak.from_arrow(whole)[2:].to_list(),
}
right = whole[2:].to_pylist()
print("Arrow says:", right)
for name, result in results.items():
    print(f"{name}: {result}")
wrong = [name for name, result in results.items() if result != right]
sys.exit(0 if wrong == ["an array", "a batch", "a table"] else "This has changed.")
END
