#!/bin/sh
# compress(array, order=o) and decompress(..., order=o) with the same order should give the array back, as
# order is that of the elements and NumPy's tobytes takes any array in either. compressed-segmentation
# 2.3.3, for labels of Neuroglancer, takes the memory as it lies: an array in order 'C' compressed in order
# 'F', or the other way round, has its labels in other places, and of a strided view, such as every other
# plane, other planes are kept. fpzip 1.2.5, by the same authors, does so for an array whose memory is in the
# other order. Labels, shape and type are the same, and nothing is said: np.asfortranarray or
# np.ascontiguousarray before it helps. Compresso and crackle look at the layout and are right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    compressed-segmentation==2.3.3 fpzip==1.2.5 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import compressed_segmentation
import fpzip
import numpy as np

values = np.arange(24).reshape(2, 3, 4)


def labels_back(array, order):
    packed = compressed_segmentation.compress(array, order=order)
    return compressed_segmentation.decompress(packed, array.shape, array.dtype, order=order)


def floats_back(array, order):
    back = fpzip.decompress(fpzip.compress(array, precision=0, order=order), order=order)
    return back.reshape(array.shape, order=order)


as_seen = True
for name, routine, dtype, wrong in (
    ("compressed-segmentation", labels_back, "u8", {"CF", "FC", "every other planeC", "every other planeF"}),
    ("fpzip", floats_back, "f8", {"CF", "FC"}),
):
    wide = values.astype(dtype)
    arrays = {"C": wide, "F": np.asfortranarray(wide), "every other plane": np.repeat(wide, 2, 0)[::2]}
    for kind, array in arrays.items():
        for order in "CF":
            back = routine(array, order)
            same = np.array_equal(back, array)
            print(f"{name}, {kind}, order={order!r}: same {same}, first {back[0, 0].tolist()}")
            as_seen &= same != (kind + order in wrong)
sys.exit(0 if as_seen else "This has changed.")
END
