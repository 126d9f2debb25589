#!/bin/sh
# Two series should be added where their times and units agree, or be refused, as append, inject and correlate of GWpy
# 4.1.0 refuse other sampling rates. + and *, comparisons and spectra look at units and not at axes: a series that
# begins a second later, or has twice the rate, is added sample by sample, with the times of the first. inject
# looks at times and not at units: 1 km that is injected into metres is 1 m more. And rms squares counts in their own
# type: 200 counts in uint8 have an RMS of 8, in int16 NaN with a warning of NumPy, 100,000 in int32 37,551 without
# one. Channels of detectors are written at rates from 16 Hz to 16 kHz, and raw ones as integers.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    gwpy==4.1.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
from gwpy.frequencyseries import FrequencySeries
from gwpy.timeseries import TimeSeries

as_seen = True


def show(text, found, expected):
    global as_seen
    print(f"{text}: {np.asarray(found).tolist()}")
    as_seen &= np.allclose(np.asarray(found), expected, equal_nan=True)


first = TimeSeries([0.0, 1, 2, 3], sample_rate=4, t0=0, unit="m")
later = TimeSeries([0.0, 1, 2, 3], sample_rate=4, t0=1, unit="m")
faster = TimeSeries([0.0, 1, 2, 3], sample_rate=8, t0=0, unit="m")
centimetres = TimeSeries([0.0, 100, 200, 300], sample_rate=4, t0=0, unit="cm")
show("and in centimetres", first + centimetres, [0, 2, 4, 6])
show("and a second later", first + later, [0, 2, 4, 6])
show("and at twice the rate", first + faster, [0, 2, 4, 6])
show("times of the sum", (first + faster).times.value, [0, 0.25, 0.5, 0.75])
show("greater than a second later", first > later, [0, 0, 0, 0])
low, high = (FrequencySeries([1.0, 2, 3], f0=f0, df=df) for f0, df in ((0, 1), (100, 5)))
show("spectra from 0 and from 100 Hz", low + high, [2, 4, 6])
for name in ("append", "inject", "correlate"):
    try:
        getattr(first, name)(TimeSeries([1.0, 2], sample_rate=8, t0=1, unit="m"))
        as_seen = False
    except ValueError as error:
        print(f"{name}: {error}")
show("inject 1 km at 0.5 s", first.inject(TimeSeries([1.0], sample_rate=4, t0=0.5, unit="km")), [0, 1, 3, 3])

cases = (("u1", 200, 8, 0), ("i2", 200, np.nan, 1), ("i4", 100_000, 37550.83764711514, 0), ("f8", 200, 200, 0))
for dtype, counts, expected, warns in cases:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = TimeSeries(np.full(10, counts, dtype), sample_rate=10).rms(1)
    show(f"RMS of {counts} in {dtype}, {len(said)} warnings", found, [expected])
    as_seen &= len(said) == warns
sys.exit(0 if as_seen else "This has changed.")
END
