#!/bin/sh
# Stream.write(name, array, shape, start, count) of ADIOS2 2.12.1 for Python is given an array of
# the same shape, so one expects its elements where they are in the array. It writes the array's
# memory in the order in which it lies. A transposed array, or one in Fortran order, is stored with
# its elements at other places, and the reader returns the right shape with the values mixed. No
# error, no warning; np.ascontiguousarray is the remedy. Blocks of a parallel transform (a
# transposed FFT, a slab in Fortran order) are usually of that kind.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    adios2==2.12.1.1001 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import adios2
import numpy as np

values = np.arange(6, dtype="i4").reshape(2, 3)
arrays = {
    "C order": values,
    "Fortran order": np.asfortranarray(values),
    "transposed": values.reshape(3, 2).T,
    "made contiguous": np.ascontiguousarray(values.reshape(3, 2).T),
}
seen = {}
for name, array in arrays.items():
    with adios2.Stream("order.bp", "w") as stream:
        stream.write("x", array, list(array.shape), [0, 0], list(array.shape))
    with adios2.FileReader("order.bp") as reader:
        read = reader.read("x")
    print(f"{name}: wrote {array.tolist()}, read {read.tolist()}")
    memory = array.ravel(order="K").reshape(array.shape)
    seen[name] = (np.array_equal(read, array), np.array_equal(read, memory))

right, mixed = (True, True), (False, True)
as_seen = seen == {
    "C order": right,
    "Fortran order": mixed,
    "transposed": mixed,
    "made contiguous": right,
}
sys.exit(0 if as_seen else "This has changed.")
END
