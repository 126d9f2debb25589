#!/bin/sh
# A systematic variation of weights should have the weights that were given for it. Weights of coffea 2026.9.0
# keeps the ratio to the nominal weight, and 0 where that is not finite: events that have a nominal weight of 0
# and 0.5 if a scale factor goes up weigh 0 in all variations, so that what moves over a threshold is lost, with
# add and with add_multivariation; with shift=True they have their difference lost as well. A weight that is
# missing, None of Awkward Array or masked in NumPy, is 1, so that an event of unknown weight counts in full
# beside scale factors around 0.01. dense_lookup gives NaN and infinity the factor of the last bin. Nothing is
# said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    coffea==2026.9.0 awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W ignore - <<'END'
import sys

import awkward as ak
import numpy as np
from coffea.analysis_tools import Weights
from coffea.lookup_tools.dense_lookup import dense_lookup

as_seen = True


def show(text, found, expected):
    global as_seen
    print(f"{text}: {np.asarray(found).tolist()}")
    as_seen &= np.allclose(found, expected)


nominal, up, down = np.array([0, 2, 4.0]), np.array([0.5, 3, 5]), np.array([0.25, 1, 3])
weights = Weights(3)
weights.add("factor", nominal, up.copy(), down.copy())
show("weights", weights.weight(), nominal)
show(f"    {up.tolist()} upwards", weights.weight("factorUp"), [0, 3, 5])
show(f"    {down.tolist()} downwards", weights.weight("factorDown"), [0, 1, 3])
weights = Weights(3)
weights.add("factor", nominal, up - nominal, nominal - down, shift=True)
show("    upwards by shift", weights.weight("factorUp"), [0, 3, 5])
weights = Weights(3)
weights.add_multivariation("factor", nominal, ["one"], [up.copy()], [down.copy()])
show("    upwards, one of several", weights.weight("factor_oneUp"), [0, 3, 5])

for kind, missing in (
    ("Awkward Array", ak.Array([0.01, None, 0.02])),
    ("NumPy", np.ma.masked_invalid([0.01, np.nan, 0.02])),
):
    weights = Weights(3)
    weights.add("factor", missing)
    show(f"0.01, missing and 0.02 of {kind}", weights.weight(), [0.01, 1, 0.02])
factor = dense_lookup(np.array([0.9, 1.0, 1.1]), np.array([0, 1, 2, 3.0]))
show("factors of 0.5, NaN and infinity", factor(np.array([0.5, np.nan, np.inf])), [0.9, 1.1, 1.1])
sys.exit(0 if as_seen else "This has changed.")
END
