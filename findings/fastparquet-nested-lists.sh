#!/bin/sh
# A Parquet reader that does not support a type of column should say so. fastparquet 2026.9.0 reads
# lists of numbers as such, but of lists in lists and lists of records, which Awkward and Arrow write
# for events with hits, it makes a column of None. There is neither an error nor a warning. pyarrow
# 26.0.1 reads the same file. Such events look as if nothing had been measured.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings
import fastparquet
import pyarrow as pa
import pyarrow.parquet

written = {
    "event": [0, 1, 2],
    "energies": [[1.5, 2.5], [], [3.5]],
    "waveforms": [[[1.0], [2.0, 3.0]], [], [[4.0]]],
    "hits": [[{"x": 1.0}], [], [{"x": 2.0}, {"x": 3.0}]],
}
pa.parquet.write_table(pa.table(written), "events.parquet")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    frame = fastparquet.ParquetFile("events.parquet").to_pandas()
said = [str(warning.message) for warning in said if warning.category is not ResourceWarning]
print(frame, "\nwarnings:", said)
same = pa.parquet.read_table("events.parquet").to_pydict() == written
print("pyarrow reads what was written:", same)

as_seen = same and not said and [list(row) for row in frame["energies"]] == written["energies"]
as_seen &= all(list(frame[name]) == [None] * 3 for name in ("waveforms", "hits"))
sys.exit(0 if as_seen else "This has changed.")
END
