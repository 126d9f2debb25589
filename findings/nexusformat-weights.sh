#!/bin/sh
# Data of scattering that were added up pixel by pixel have weights beside them, how often each was measured, and
# weighted_data of nexusformat 2.1.0 gives the signal divided by them. Arithmetic of NXdata should be that of these
# intensities. It computes signals and weights alike, each for itself: a factor cancels, so that twice the data are
# the data; a background that was measured as often as the sample leaves weights of 0, and the difference is 0
# everywhere; if it was measured more often, too; and what is divided by itself is 1 / weight. The sum of two is the
# mean of all measurements, and products are right. Nothing is said. weighted_data() before the arithmetic helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    nexusformat==2.1.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
from nexusformat.nexus import NXdata, NXfield

as_seen = True


def measured(counts, weights):
    return NXdata(NXfield(counts, name="counts"), NXfield([0, 1], name="x"), weights=NXfield(weights, name="weights"))


def show(text, data, expected):
    global as_seen
    found = np.asarray(data.nxsignal.nxdata).tolist()
    print(f"{text}: {found}")
    as_seen &= found == expected


sample = measured([100.0, 400.0], [2.0, 4.0])
background = measured([20.0, 40.0], [2.0, 4.0])
longer = measured([40.0, 80.0], [4.0, 8.0])
show("sample", sample.weighted_data(), [50, 100])
show("background", background.weighted_data(), [10, 10])
show("2 * sample", (2 * sample).weighted_data(), [50, 100])
show("sample / 10", (sample / 10).weighted_data(), [50, 100])
show("sample - background", (sample - background).weighted_data(), [0, 0])
show("sample - longer background", (sample - longer).weighted_data(), [0, 0])
show("sample / sample", (sample / sample).weighted_data(), [0.5, 0.25])
show("sample * background", (sample * background).weighted_data(), [500, 1000])
show("remedy", sample.weighted_data() - background.weighted_data(), [40, 90])
show("remedy", 2 * sample.weighted_data(), [100, 200])
sys.exit(0 if as_seen else "This has changed.")
END
