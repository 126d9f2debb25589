#!/bin/sh
# A reference that is common to all channels should be subtracted as it is from floats. Recordings are int16,
# and common_reference of spikeinterface 0.105.3 computes the median in floats and casts the difference back
# with all bits above 16 lost: where three electrodes show an artefact of 30,000 counts and a fourth -30,000,
# the fourth is 5536 instead of -60,000, of the other sign. With an average, and with one channel as reference,
# it is the same, and phase_shift, which corrects when each channel was sampled, turns overshoots of 34,592
# counts into -30,944. bandpass_filter and resample of the same recording are right, as is float32 (astype
# before). Nothing is said. Stimuli saturate amplifiers so, and thresholds find the wrong side.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    spikeinterface==0.105.3 numpy==2.4.6 scipy==1.17.1 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import spikeinterface
from spikeinterface import preprocessing

counts = np.random.default_rng(0).normal(0, 50, (3000, 4)).round()
counts[1000:1010] += 30_000
counts[1000:1010, 3] = -30_000
as_seen = True


def show(text, wraps, name, **options):
    global as_seen
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        narrow, wide = (
            getattr(preprocessing, name)(spikeinterface.NumpyRecording([counts.astype(dtype)], 30_000), **options)
            for dtype in ("i2", "f4")
        )
        narrow, wide = narrow.get_traces().astype("f8"), wide.get_traces().astype("f8")
    worst = np.unravel_index(np.argmax(abs(narrow - wide)), wide.shape)
    print(f"{text}: {narrow[worst]:.1f} in int16, {wide[worst]:.1f} in float32", *said)
    off = abs(narrow - wide)
    as_seen &= (off.max() > 65_000) == wraps and off[off < 65_000].max() <= 1 and not said


show("median", True, "common_reference")
show("average", True, "common_reference", operator="average")
show("one channel", True, "common_reference", reference="single", ref_channel_ids=[3])
show("phase_shift", True, "phase_shift", inter_sample_shift=np.array([0, 0.3, 0.5, 0.7]))
show("bandpass_filter", False, "bandpass_filter", freq_min=300, freq_max=6000)
show("resample", False, "resample", resample_rate=15_000)
sys.exit(0 if as_seen else "This has changed.")
END
