#!/bin/sh
# NaN in a TIFF that is compressed by LERC should be read as NaN. LERC 4 has no NaN among its numbers:
# its encoder takes them out and puts them into a mask of pixels without a value. GDAL (rasterio
# 1.4.4) puts NaN back where the mask is; imagecodecs 2026.3.6 does not look at the mask, so what
# tifffile 2026.3.3 reads there is 0, in files of GDAL and in those that it wrote itself, which GDAL
# reads rightly. Infinities and all other pixels are exact. lerc_decode has an argument for masks,
# which tifffile does not use. Float rasters from GDAL mark gaps by NaN, and a height of 0 is a number.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tifffile==2026.3.3 imagecodecs==2026.3.6 rasterio==1.4.4 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import rasterio
import tifffile

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
as_seen = True
for dtype in ("float32", "float64"):
    heights = np.random.default_rng(0).normal(500, 9, (64, 64)).astype(dtype)
    heights[20:30, 5:9] = np.nan
    heights[0, 0] = np.inf
    zeroed = np.where(np.isnan(heights), 0, heights)
    for compression in ("lerc", "zstd"):
        tifffile.imwrite("tifffile.tif", heights, compression=compression)
        shape = {"height": 64, "width": 64, "count": 1, "dtype": dtype}
        with rasterio.open("gdal.tif", "w", driver="GTiff", compress=compression, **shape) as file:
            file.write(heights, 1)
        for name in ("gdal.tif", "tifffile.tif"):
            by_tifffile = tifffile.imread(name)
            with rasterio.open(name) as file:
                by_gdal = file.read(1)
            print(dtype, compression, name, "NaN read by tifffile:", by_tifffile[20, 5], end="")
            print(", by GDAL:", by_gdal[20, 5])
            expected = zeroed if compression == "lerc" else heights
            as_seen &= np.array_equal(by_tifffile, expected, equal_nan=True)
            as_seen &= np.array_equal(by_gdal, heights, equal_nan=True)
sys.exit(0 if as_seen else "This has changed.")
END
