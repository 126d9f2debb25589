#!/bin/sh
# Codecs that zero the low bits of floats, so that they compress, should keep NaN as NaN. numcodecs
# 0.16.6 (BitRound) and blosc2 4.14.1 (TRUNC_PREC) treat it as any number, so it depends on its
# bits. The missing value of R, which R writes into HDF5, netCDF and Zarr as it is, is a NaN whose
# only bits are low ones, and becomes infinity. With BitRound memory filled by 0xFF, which is NaN
# too, becomes 0, because the rounding carries through exponent and sign: missing values are data
# that pass a test of np.isnan. The NaN that NumPy makes is kept, so tests with np.nan pass.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    numcodecs==0.16.6 blosc2==4.14.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import blosc2
import numpy as np
from numcodecs import BitRound

bits = {
    "NumPy's NaN": 0x7FF8000000000000,
    "NA of R": 0x7FF00000000007A2,
    "bytes 0xFF": 0xFFFFFFFFFFFFFFFF,
}
truncate = {"filters": [blosc2.Filter.TRUNC_PREC], "filters_meta": [20]}
seen = {}
for name, pattern in bits.items():
    values = np.full(64, pattern, "u8").view("f8")
    assert np.isnan(values).all() and np.isnan(np.array(0x7FF8000000000000, "u8").view("f8"))
    codec = BitRound(keepbits=20)
    rounded = codec.decode(codec.encode(values)).view("f8")
    truncated = blosc2.asarray(values, cparams=truncate)[:]
    seen[name] = str(rounded[0]), str(truncated[0])
    print(f"{name}: BitRound {rounded[0]}, TRUNC_PREC {truncated[0]}")

as_seen = seen == {
    "NumPy's NaN": ("nan", "nan"),
    "NA of R": ("inf", "inf"),
    "bytes 0xFF": ("0.0", "nan"),
}
sys.exit(0 if as_seen else "This has changed.")
END
