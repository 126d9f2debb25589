#!/bin/sh
# An image that GDAL compresses by LERC with the default error of 0 should be read as it was written,
# whatever the byte order of the file. GDAL 3.10.3 (rasterio 1.4.4) swaps the bytes of a big-endian
# TIFF before it compresses, so LERC gets numbers that nobody meant, and some of them are NaN: float32
# with a last byte of 7f or ff behind one of 80 or more, one pixel of 256 in measured data. LERC keeps
# no bits of a NaN. They come back as 6.9e-41, scattered over the image; of float64 one of some 2000
# comes back as 3.1e-319. There is no error. ENDIANNESS=LITTLE, and whole numbers, are exact.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    rasterio==1.4.4 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import rasterio

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
rng = np.random.default_rng(0)
whole = rng.integers(-(2**31), 2**31, (256, 256), "i4")
swapped_nan = {"float32": "0000c07f", "float64": "000000000000f87f", "int32": ""}
as_seen = True
for dtype, pattern in swapped_nan.items():
    image = whole if dtype == "int32" else rng.normal(size=(256, 256)).astype(dtype)
    nan_of_another_order = np.isnan(image.byteswap()) if pattern else np.zeros(image.shape, "?")
    for order in ("LITTLE", "BIG"):
        for compression in ("DEFLATE", "LERC"):
            shape = {"height": 256, "width": 256, "count": 1, "dtype": dtype}
            how = {"compress": compression, "endianness": order}
            with rasterio.open("x.tif", "w", driver="GTiff", **shape, **how) as file:
                file.write(image, 1)
            with rasterio.open("x.tif") as file:
                read = file.read(1)
            wrong = read != image
            values = {float(value) for value in read[wrong]}
            print(f"{dtype} {order} {compression}: {wrong.sum()} of {image.size} pixels differ", *values)
            if pattern and order == "BIG" and compression == "LERC":
                as_seen &= np.array_equal(wrong, nan_of_another_order) and bool(wrong.any())
                swapped = np.frombuffer(bytes.fromhex(pattern), dtype=f">{image.dtype.str[1:]}")
                as_seen &= values == {float(swapped[0])}
            else:
                as_seen &= not wrong.any()
sys.exit(0 if as_seen else "This has changed.")
END
