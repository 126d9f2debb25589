#!/bin/sh
# A record of physiological signals is read in half precision with return_res=16, which holds numbers up to 65504
# with three digits. So 100 mV should be 100. wfdb 4.3.1 subtracts the baseline of the record from the stored
# integers and divides by the gain in half precision: the differences are up to 65535, and the largest value of a
# signal whose range fills the 16 bits, as wrsamp makes them by itself, is infinite. Small values lose their
# digits, 0 becomes -0.0015. Single precision (return_res=32) has no such loss.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    wfdb==4.3.1 numpy==2.4.6 pandas==2.3.3 || exit 2
venv/bin/python -I -W error - <<'END'
import sys
import warnings

import numpy as np
import wfdb

signal = np.array([[0.0], [5.0], [99.0], [100.0]])
wfdb.wrsamp("record", fs=250, units=["mV"], sig_name=["ecg"], p_signal=signal, fmt=["16"])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    half = wfdb.rdrecord("record", return_res=16)
single = wfdb.rdrecord("record", return_res=32)
print("warnings:", {str(one.message) for one in caught})
print("gain, baseline:", half.adc_gain, half.baseline)
print("written:", signal.ravel())
print("half:   ", half.p_signal.ravel(), half.p_signal.dtype)
print("single: ", single.p_signal.ravel(), single.p_signal.dtype)
as_seen = half.p_signal.dtype == "f2" and single.p_signal.dtype == "f4"
as_seen &= bool(np.isinf(half.p_signal[-1, 0]))
as_seen &= bool(half.p_signal[0, 0] != 0)
as_seen &= bool(np.allclose(single.p_signal, signal, atol=1e-3))
as_seen &= bool(np.float16(100) == 100)
sys.exit(0 if as_seen else "This has changed.")
END
