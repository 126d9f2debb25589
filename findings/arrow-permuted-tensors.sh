#!/bin/sh
# A batch of images that np.transpose moved from (n, y, x, c) to (n, c, y, x) should survive Arrow's
# type for tensors of fixed shape, which has a permutation of the axes for just this. In pyarrow
# 26.0.1, where three axes change places in a cycle, FixedShapeTensorArray.from_numpy_ndarray notes
# the inverse permutation and to_numpy_ndarray strides by wrong axes: the shape is another one, some
# numbers occur twice, others are gone, and of a cube the shape is right and the axes are changed.
# Nothing is raised. Where two axes are exchanged the array is right, but its elements one by one
# (array[i].to_numpy()) are wrong if the first axis is one of the two. np.ascontiguousarray before
# is the remedy.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
from itertools import permutations

import numpy as np
import pyarrow as pa

make = pa.FixedShapeTensorArray.from_numpy_ndarray
whole, single, cubes = {}, {}, {}
for order in permutations((1, 2, 3)):
    batch = np.arange(48).reshape(2, 2, 3, 4).transpose(0, *order)
    back = make(batch).to_numpy_ndarray()
    whole[order] = bool(np.array_equal(back, batch))
    single[order] = bool(np.array_equal(make(batch)[1].to_numpy(), batch[1]))
    cube = np.arange(54).reshape(2, 3, 3, 3).transpose(0, *order)
    cubes[order] = bool(np.array_equal(make(cube).to_numpy_ndarray(), cube))
    print("axes", (0, *order), "array equal:", whole[order], "element:", single[order], end=" ")
    print("cube:", cubes[order], batch.shape, "became", back.shape, end=", ")
    print(len(np.unique(back)), "different numbers of", batch.size)
    copy = make(np.ascontiguousarray(batch))
    assert np.array_equal(copy.to_numpy_ndarray(), batch)
    assert np.array_equal(copy[1].to_numpy(), batch[1])

cycles = {(2, 3, 1), (3, 1, 2)}
as_seen = {order for order in whole if not whole[order]} == cycles
as_seen &= {order for order in cubes if not cubes[order]} == cycles
as_seen &= {order for order in single if single[order]} == {(1, 2, 3), (1, 3, 2)}
raise SystemExit(0 if as_seen else "This has changed.")
END
