#!/bin/sh
# A STAR file should give back the numbers and names of the table that was written. starfile 0.5.13 writes
# floats of a loop with six digits behind the point, as "%.6f": 4e-7 is 0.000000, 1.5e-6 is 0.000002, and
# nothing is said; a block of single values keeps all digits. And names that are digits are numbers when
# they are read: micrographs "000123" and "0123" both become 123, "1e5" is 100000.0, and "nan" is missing,
# as soon as all of the column look like numbers; parse_as_string=["micrograph"] and float_format="%.9g" help.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    starfile==0.5.13 pandas==2.3.3 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import pandas as pd
import starfile

table = pd.DataFrame({"small": [4e-7, 1.5e-6, 123.45678], "micrograph": ["000123", "0123", "1e5"]})
starfile.write(table, "table.star")
loop = starfile.read("table.star")
print("written:", table.to_dict("list"))
print("loop:   ", loop.to_dict("list"))
as_seen = loop.small.tolist() == [0, 2e-6, 123.45678]
as_seen &= loop.micrograph.tolist() == [123, 123, 100_000]
values = {"small": 4e-7, "micrograph": "000123"}
starfile.write({"single": values}, "single.star")
block = starfile.read("single.star")
print("block:  ", block, "of", values)
as_seen &= block == {"small": 4e-7, "micrograph": 123}
starfile.write(table, "other.star", float_format="%.9g")
other = starfile.read("other.star", parse_as_string=["micrograph"])
print("helped: ", other.to_dict("list"))
as_seen &= other.equals(table)
sys.exit(0 if as_seen else "This has changed.")
END
