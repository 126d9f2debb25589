#!/bin/sh
# The mean of a moving window should depend on what is in the window. xarray 2026.9.0 hands rolling to
# numbagg 0.9.6 or bottleneck 1.6.0 if one is there, and both keep a running sum: behind an infinity
# all further means are NaN, behind 1e17 they are 0.5 or 0 where all values are 1, until the end. In
# a Dask array it is until the end of the chunk, so the result changes with the chunks. Without both
# libraries the next window is right. Nothing is said. 1e20 and 1e35 are usual marks of gaps, and one
# that was not decoded is enough.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    xarray==2026.9.0 numbagg==0.9.6 bottleneck==1.6.0 dask==2026.8.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import xarray as xr


def means(bad, chunks=None, **engines):
    values = np.ones(12)
    values[2] = bad
    array = xr.DataArray(values, dims="t")
    with xr.set_options(**engines):
        rolling = (array if chunks is None else array.chunk(t=chunks)).rolling(t=2)
        return rolling.mean().compute().values[4:]


plain = {"use_numbagg": False, "use_bottleneck": False}
numbagg = {"use_numbagg": True, "use_bottleneck": True}
bottleneck = {"use_numbagg": False, "use_bottleneck": True}
as_seen = True
for bad in (np.inf, 1e17):
    print(f"behind {bad:g}, neither:", means(bad, **plain))
    as_seen &= bool((means(bad, **plain) == 1).all())
    for name, engine in (("numbagg", numbagg), ("bottleneck", bottleneck)):
        found = means(bad, **engine)
        print(f"behind {bad:g}, {name}:", found)
        as_seen &= bool((~(found == 1)).all())
    chunked = means(bad, chunks=6, **numbagg)
    print(f"behind {bad:g}, numbagg, chunks of 6:", chunked)
    as_seen &= bool((~(chunked[:2] == 1)).all() and (chunked[2:] == 1).all())
sys.exit(0 if as_seen else "This has changed.")
END
