#!/bin/sh
# np.mod of two lengths should be what % gives, and a difference of temperatures a difference. Pint
# 0.25.3 converts the units for %, // and divmod, but np.mod, np.remainder, np.fmod and
# np.floor_divide get the bare numbers: 1, 2 and 4 m by 150 cm leave 1, 2 and 4 m, not 1, 0.5 and 1.
# np.floor_divide says 0 m/cm. And np.ptp of 10 to 30 degC is a temperature of 20 degC, 293.15 K, not
# 20 K: std, diff and max - min are differences (delta_degC). Nothing is raised. Who folds times into
# periods by np.mod is wrong by the factor of the units.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pint==0.25.3 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
import pint

units = pint.UnitRegistry()
lengths = units.Quantity(np.array([1.0, 2.0, 4.0]), "m")
step = units.Quantity(np.array([150.0] * 3), "cm")
celsius = units.Quantity(np.array([10.0, 20.0, 30.0]), "degC")

remainder = (lengths % step).m_as("m").tolist()
print("lengths % step, m:    ", remainder)
as_seen = remainder == [1.0, 0.5, 1.0]
for name in ("mod", "remainder", "fmod"):
    left = getattr(np, name)(lengths, step).m_as("m").tolist()
    print(f"np.{name}, m:".ljust(22), left)
    as_seen &= left == [1.0, 2.0, 4.0]
times, by_function = lengths // step, np.floor_divide(lengths, step)
print("lengths // step:      ", times)
print("np.floor_divide:      ", by_function, "=", by_function.to("").m)
as_seen &= times.m_as("").tolist() == [0, 1, 2] and by_function.to("").m.tolist() == [0, 0, 0]

spread, by_hand = np.ptp(celsius), celsius.max() - celsius.min()
print(f"np.ptp {spread}, which is {spread.to('K')}; max - min {by_hand}, which is {by_hand.to('K')}")
as_seen &= spread.m_as("K") == 293.15 and by_hand.m_as("K") == 20
as_seen &= np.std(celsius).units == units.delta_degC != spread.units
sys.exit(0 if as_seen else "This has changed.")
END
