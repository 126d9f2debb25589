#!/bin/sh
# A slice of an Arrow table that is written to ORC should hold the rows of the slice. pyarrow 26.0.1
# writes other rows of a column of structs as soon as one struct in the slice is missing: the members
# are taken from the beginning of the array, and not from that of the slice. The columns beside it
# are right, so each event gets the hits of another one. No error is raised. Parquet and Feather of
# the same slice are right, and so is ORC if none is missing. Of a table that is cut into files by
# slices, every file in which a struct is missing has the first rows again.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 || exit 2
venv/bin/python -I - <<'END'
import sys
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet


def hits_of(missing):
    hits = [{"x": event, "y": event / 2} for event in range(6)]
    if missing is not None:
        hits[missing] = None
    return pa.table({"event": list(range(6)), "hit": hits})


def through(table, module):
    name = f"table.{module.__name__}"
    if module is pa.feather:
        module.write_feather(table, name)
    else:
        module.write_table(table, name)
    return module.read_table(name).to_pydict()


cut = hits_of(missing=4).slice(3, 3)
full = hits_of(missing=None).slice(3, 3)
orc = through(cut, pa.orc)
print("written:", cut.to_pydict())
print("ORC:    ", orc)
others = [through(cut, module) == cut.to_pydict() for module in (pa.parquet, pa.feather)]
print("Parquet, Feather are right:", others)
whole = through(full, pa.orc) == full.to_pydict()
print("ORC without a missing struct is right:", whole)
outside = hits_of(missing=1).slice(3, 3)
print("a missing struct outside the slice does no harm:", through(outside, pa.orc) == outside.to_pydict())

as_seen = orc["event"] == [3, 4, 5] and orc["hit"] != cut.to_pydict()["hit"]
sys.exit(0 if as_seen and others == [True, True] and whole else "This has changed.")
END
