#!/bin/sh
# Of two writes to the same cells of a TileDB array, one after the other, the later one should be
# read. TileDB 2.30.0 (tiledb 0.36.1 for Python) puts each write into a fragment of its own and
# orders them by their timestamp, which is counted in milliseconds and can be given, and then by a
# random number. Where a timestamp is given, as for the number of a version or a run, a correction
# of it that is written with the same one is lost about every second time: the array shows the old
# values, and reading again shows them again. No error is raised. Writes without a timestamp were
# right here.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tiledb==0.36.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import tiledb

tries = 64


def lost(name, with_timestamp):
    axis = tiledb.Dim("x", domain=(0, 9), tile=5, dtype="i4")
    schema = tiledb.ArraySchema(tiledb.Domain(axis), attrs=[tiledb.Attr("a", dtype="i4")])
    tiledb.Array.create(name, schema)
    count = 0
    for number in range(tries):
        time = {"timestamp": 1 + number} if with_timestamp else {}
        for value in (2 * number, 2 * number + 1):
            with tiledb.open(name, "w", **time) as array:
                array[:] = np.full(10, value, "i4")
        with tiledb.open(name, **time) as array:
            count += int(array[0]["a"]) != 2 * number + 1
    return count


given, by_clock = lost("given", True), lost("clock", False)
print(f"the second of two writes was lost in {given} of {tries} pairs of one timestamp")
print(f"without timestamps in {by_clock} of {tries}")
as_seen = 0 < given < tries and by_clock == 0
sys.exit(0 if as_seen else "This has changed.")
END
