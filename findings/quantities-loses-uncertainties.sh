#!/bin/sh
# The uncertainty of a result should follow from those of what it was computed from, or the function be
# refused. With quantities 0.16.4 an UncertainQuantity of 4 m +/- 0.1 m has a root of 2 with an uncertainty
# of 0, dimensionless, where its power of 0.5 has 0.025 (open since 2013); and the product of 0 m +/- 0.1 m
# and 3 s has an uncertainty of NaN, as relative uncertainties are added, where 0.3 m s is right. Only the
# latter has warnings, of NumPy: divide by zero, invalid value. Background that was subtracted is often 0.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    quantities==0.16.4 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import quantities as pq

as_seen = True


def show(text, compute, expected, warns=False):
    global as_seen
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = compute()
    print(f"{text}: {found}", *(str(one.message) for one in said))
    as_seen &= np.allclose(np.asarray(found.uncertainty), expected, equal_nan=True) and bool(said) == warns


length = pq.UncertainQuantity([4.0], "m", [0.1])
nothing = pq.UncertainQuantity([0.0], "m", [0.1])
time = pq.UncertainQuantity([3.0], "s", [0.0])
show("power of 0.5", lambda: length**0.5, [0.025])
show("root", lambda: np.sqrt(length), [0])
show("product of 4", lambda: length * time, [0.3])
show("product of 0", lambda: nothing * time, [np.nan], True)
sys.exit(0 if as_seen else "This has changed.")
END
