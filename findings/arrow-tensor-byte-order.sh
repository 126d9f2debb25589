#!/bin/sh
# A NumPy array that goes into an Arrow tensor and out again should be the same. pyarrow 26.0.1
# refuses big-endian numbers in pa.array and in FixedShapeTensorArray ("Byte-swapped arrays not
# supported"), but Tensor.from_numpy, SparseCOOTensor and SparseCSRMatrix take their bytes as they
# are and call them native: 1 comes out as 16777216, on a little-endian machine, without a word.
# Arrays from FITS and netCDF-3 files, and some from HDF5, are big-endian.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import numpy as np
import pyarrow as pa

big = np.arange(4, dtype=">i4").reshape(2, 2)
ways = {
    "array": lambda: pa.array(big[1]),
    "FixedShapeTensorArray": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(big),
    "Tensor": lambda: pa.Tensor.from_numpy(big).to_numpy(),
    "SparseCOOTensor": lambda: pa.SparseCOOTensor.from_dense_numpy(big).to_tensor().to_numpy(),
    "SparseCSRMatrix": lambda: pa.SparseCSRMatrix.from_dense_numpy(big).to_tensor().to_numpy(),
}
refused, swapped = [], []
for name, way in ways.items():
    try:
        got = way()
    except pa.ArrowNotImplementedError as error:
        print(f"{name}: {error}")
        refused.append(name)
        continue
    print(f"{name}: {got.dtype} {got.tolist()}, of {big.tolist()}")
    if np.array_equal(got, big.view("<i4")):
        swapped.append(name)

as_seen = sys.byteorder == "little" and refused == ["array", "FixedShapeTensorArray"]
as_seen = as_seen and swapped == ["Tensor", "SparseCOOTensor", "SparseCSRMatrix"]
sys.exit(0 if as_seen else "This has changed.")
END
