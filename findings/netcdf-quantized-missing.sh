#!/bin/sh
# Quantization of netCDF, which zeroes bits so that they compress, should leave what marks a missing
# value alone. netCDF-C 4.10.1 (netCDF4 1.7.5.1 for Python) does so for _FillValue only. A value that
# is declared by the attribute missing_value is quantized like any other: with 5 significant digits
# -999.9 becomes -999.89844, with the 5 bits that BitRound takes them for -992. It is no longer equal
# to the attribute, so what should be masked is data. Infinity is not kept either: BitGroom makes
# every second one NaN, and GranularBitRound writes -0. NaN is kept. CF allows both attributes.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    netCDF4==1.7.5.1.post1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import netCDF4
import numpy as np

missing = np.float32(-999.9)
values = np.array([missing, 1.2345678, missing, 100.1234], "f4")
infinite = np.array([np.inf, np.inf, np.nan, 1], "f4")
seen = {}
for mode in (None, "BitGroom", "BitRound", "GranularBitRound"):
    options = {"quantize_mode": mode, "significant_digits": 5} if mode else {}
    with netCDF4.Dataset("file.nc", "w") as file:
        file.createDimension("x", 4)
        filled = file.createVariable("filled", "f4", ("x",), fill_value=missing, **options)
        filled[:] = values
        marked = file.createVariable("marked", "f4", ("x",), **options)
        marked.missing_value = missing
        marked[:] = values
        file.createVariable("infinite", "f4", ("x",), **options)[:] = infinite
    with netCDF4.Dataset("file.nc") as file:
        masks = [np.ma.getmaskarray(file[name][:]).tolist() for name in ("filled", "marked")]
        seen[mode] = masks, file["infinite"][:].tolist()
        print(mode, "_FillValue:", file["filled"][:], "missing_value:", file["marked"][:], end=" ")
        print("infinity:", np.asarray(file["infinite"][:]))

both = [True, False, True, False]
as_seen = seen[None][0] == [both, both]
for mode in ("BitGroom", "BitRound", "GranularBitRound"):
    as_seen &= seen[mode][0] == [both, [False] * 4]
    as_seen &= bool(np.isnan(seen[mode][1][2]))
as_seen &= sorted(map(str, seen["BitGroom"][1][:2])) == ["inf", "nan"]
as_seen &= seen["GranularBitRound"][1][:2] == [0, 0]
sys.exit(0 if as_seen else "This has changed.")
END
