#!/bin/sh
# The levels of an OME-Zarr image should show the same intensities at coarser pixels: their mean is
# the image's. write_image of ome-zarr 0.18.0, with its defaults, computes each level from the one
# before in floating-point numbers and cuts off the fractions of integer images. So each level is
# half a count darker than the one before. At 100 counts a pixel this is seldom noticed; of a
# photon-counting detector's two counts a pixel nothing is left at the fourth level. The same image
# as float32 keeps its mean.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    ome-zarr==0.18.0 zarr==3.1.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import numpy as np
import zarr
from ome_zarr.writer import write_image

counts = np.random.default_rng(0).poisson(2, (512, 512))
means = {}
for dtype, offset in (("u2", 0), ("u2", 98), ("f4", 0)):
    group = zarr.open_group(f"{dtype}{offset}.zarr", mode="w")
    write_image((counts + offset).astype(dtype), group, axes="yx")
    levels = [each["path"] for each in group.attrs["ome"]["multiscales"][0]["datasets"]]
    means[dtype, offset] = [round(float(group[level][...].mean()), 2) for level in levels]
    print(f"{dtype}, two counts and {offset}: mean of each level {means[dtype, offset]}")

as_seen = len(means["u2", 98]) == 5
as_seen = as_seen and all(
    abs(low - high + 0.5) < 0.05
    for high, low in zip(means["u2", 98][:-1], means["u2", 98][1:], strict=True)
)
as_seen = as_seen and means["u2", 0][4] < 0.02
as_seen = as_seen and max(means["f4", 0]) - min(means["f4", 0]) < 0.02
sys.exit(0 if as_seen else "This has changed.")
END
