#!/bin/sh
# A trigger should find an earthquake in the counts that a digitizer wrote as it does in the same numbers
# as floats. Of the triggers of ObsPy 1.5.1 classic_sta_lta and recursive_sta_lta do, but z_detect,
# delayed_sta_lta and energy_ratio square integers in their own type: int32, as nearly all miniSEED
# files are read, wraps from 46341 counts on, and int16 from 182. The stronger of two events, of 70,000
# counts, is then hardly seen, and the weaker is taken for the stronger; energy ratios are negative.
# Only delayed_sta_lta has a warning, of NumPy. Trace.trigger is the same, and Trace.integrate of int16
# adds up pairs that wrap: a steady 20,000 counts have a negative integral.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    obspy==1.5.1 numpy==2.4.6 scipy==1.17.1 'setuptools<81' || exit 2
venv/bin/python -I -W ignore::UserWarning -W ignore::DeprecationWarning - <<'END'
import sys

import numpy as np
import obspy
from obspy.signal.trigger import energy_ratio

rng = np.random.default_rng(0)
ground = rng.normal(0, 300, 6000)
swing = np.sin(np.arange(200) * 0.7)
ground[2000:2200] += 30_000 * swing
ground[4000:4200] += 70_000 * swing
obspy.Trace(ground.round().astype("i4"), {"sampling_rate": 100}).write("x.mseed", format="MSEED")
counts = obspy.read("x.mseed")[0]
floats = counts.copy()
floats.data = floats.data.astype("f8")
print("read as", counts.data.dtype, "with up to", abs(counts.data).max(), "counts")


def rises(trace, kind, **options):
    return trace.copy().trigger(kind, **options).data


as_seen = counts.data.dtype == "i4"
both = {"sta": 0.5, "lta": 5}
for kind, options, wrong in (
    ("classicstalta", both, False),
    ("recstalta", both, False),
    ("delayedstalta", both, True),
    ("zdetect", {"sta": 0.5}, True),
):
    found, true = rises(counts, kind, **options), rises(floats, kind, **options)
    places = [int(np.argmax(values)) for values in (found, true)]
    means = [float(values[4050:4150].mean()) for values in (found, true)]
    print(f"{kind}: largest at {places[0]}, of floats at {places[1]};")
    print(f"    mean in the stronger event {means[0]:.2f}, of floats {means[1]:.2f}")
    as_seen &= wrong != np.allclose(found, true)
    if kind == "zdetect":
        as_seen &= places[0] < 3000 and places[1] > 4000 and means[0] < means[1] / 4
found, true = energy_ratio(counts.data, 50), energy_ratio(floats.data, 50)
print(f"energy_ratio: smallest {found.min():.2f}, of floats {true.min():.2f}")
as_seen &= found.min() < 0 <= true.min()

steady = np.array([20_000, 20_000, 20_000], "i2")
moved = obspy.Trace(steady).integrate().data.tolist()
print("integral of 20000 counts of int16 over two seconds:", moved)
as_seen &= moved[-1] < 0
sys.exit(0 if as_seen else "This has changed.")
END
