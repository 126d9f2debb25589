#!/bin/sh
# A recording of 16 bits, saved as 16 bits, should keep its signal. MNE 1.13.2 divides by the calibration of
# each channel, which is 1 for raw data that were read from EDF or made from an array, and rounds volts to
# whole volts: Raw.save(fmt="short") and fmt="int" of an EEG of 20 microvolts write a file in which all
# samples are 0, and so of magnetometers. Where channels have a calibration, 1e-9 here, "int" is right, and
# in "short" samples beyond 32767 steps wrap around: 40 microvolts are -25.5. The documentation speaks of a
# loss of precision. No error or warning; the default, "single", is right.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    mne==1.13.2 edfio==0.4.18 numpy==2.4.6 scipy==1.17.1 || exit 2
venv/bin/python -I -W ignore::DeprecationWarning -W error::RuntimeWarning - <<'END'
import sys

import mne
import numpy as np

mne.set_log_level("WARNING")
volts = np.random.default_rng(0).normal(0, 20e-6, (1, 2560))
volts[0, :2] = 40e-6, -40e-6
made = mne.io.RawArray(volts, mne.create_info(1, 256, "eeg"))
mne.export.export_raw("x.edf", made)
edf = mne.io.read_raw_edf("x.edf", preload=True)
field = mne.io.RawArray(volts * 1e-8, mne.create_info(1, 256, "mag"))
steps = mne.create_info(1, 256, "eeg")
steps["chs"][0]["cal"] = 1e-9
calibrated = mne.io.RawArray(volts, steps)
as_seen = True
for name, raw in (("array", made), ("edf", edf), ("field", field), ("calibrated", calibrated)):
    before = raw.get_data()
    for kind in ("single", "int", "short"):
        raw.save("x_raw.fif", fmt=kind, overwrite=True)
        after = mne.io.read_raw_fif("x_raw.fif", preload=True).get_data()
        print(f"{name}, {kind}: {before[0, :3]} read again as {after[0, :3]}")
        if kind == "single" or (name, kind) == ("calibrated", "int"):
            as_seen &= np.allclose(after, before, rtol=1e-5, atol=before.std() / 10_000)
        elif name == "calibrated":
            wrapped = 2**16 * 1e-9
            as_seen &= np.allclose(after[0, :2], before[0, :2] - [wrapped, -wrapped], rtol=1e-3)
        else:
            as_seen &= not after.any()
sys.exit(0 if as_seen else "This has changed.")
END
