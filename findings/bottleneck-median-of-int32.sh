#!/bin/sh
# A median should lie between the smallest and the largest. With Bottleneck 1.6.0 installed, pandas 2.3.3
# takes medians by it, and Bottleneck adds the two middle values of an even count in their own type before
# it halves them: the median of two times of 2024, in seconds since 1970 as int32, is a time of 1955, that of
# -2**31 and -2**31 is 0, and nothing is said. Series.median and DataFrame.median differ so from describe(),
# quantile(0.5), groupby().median() and rolling().median() of the same data; int64 wraps beyond 2**62. NumPy
# and xarray are right. Bottleneck says of its sums that they wrap, and pandas does not hand it sums therefore;
# of medians it says that they are float64 for integers.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    bottleneck==1.6.0 pandas==2.3.3 xarray==2026.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import bottleneck
import numpy as np
import pandas as pd
import xarray as xr


def medians(values):
    series = pd.Series(values)
    frame = pd.DataFrame({"column": values})
    array = xr.DataArray(values)
    found = {
        "bottleneck.median": bottleneck.median(values),
        "bottleneck.nanmedian": bottleneck.nanmedian(values),
        "Series.median": series.median(),
        "DataFrame.median": frame.median()["column"],
        "describe": series.describe()["50%"],
        "quantile(0.5)": series.quantile(0.5),
        "groupby": series.groupby([0] * len(values)).median()[0],
        "rolling": series.rolling(len(values)).median().iloc[-1],
        "xarray": array.median(),
        "xarray, skipna": array.median(skipna=True),
        "NumPy": np.median(values),
    }
    with pd.option_context("compute.use_bottleneck", False):
        found["Series.median without Bottleneck"] = series.median()
    return {name: float(value) for name, value in found.items()}


times = np.array([1_704_067_200, 1_704_067_260], "i4")
by_bottleneck = ["bottleneck.median", "bottleneck.nanmedian", "Series.median", "DataFrame.median"]
as_seen = True
for name, values, wrong in (
    ("seconds since 1970", times, 1_704_067_230 - 2**31),
    ("the smallest int32", np.full(2, -(2**31), "i4"), 0),
    ("int64 beyond 2**62", np.full(2, 2**62, "i8"), -(2**62)),
):
    found = medians(values)
    print(f"{name}: {values.tolist()}")
    for call, value in found.items():
        print(f"    {call}: {value}")
    right = float(np.median(values))
    as_seen &= [*found.values()] == [wrong if call in by_bottleneck else right for call in found]
print("the first as a time:", pd.Timestamp(pd.Series(times).median(), unit="s"))
for values in (times[:1], times.astype("i8"), times.astype("u4")):
    as_seen &= {*medians(values).values()} == {float(np.median(values))}
sys.exit(0 if as_seen else "This has changed.")
END
