#!/bin/sh
# Quantities should be converted before they are brought together, or be refused. quantities 0.16.4, with
# which Neo and Elephant hold signals, does so for +, %, comparisons and clip, and refuses np.maximum and np.hypot
# of metres and centimetres, but 3 m // 40 cm is 0 m/cm, where 3 m % 40 cm is 0.2 m and the quotient 7.
# np.concatenate of 2 m and 250 cm is 2 and 250 and is dimensionless, np.where has the two bare numbers,
# np.interp at 150 cm between 1 m and 2 m takes 150 for beyond the end, and 50 cm put into an array of
# whole metres are 0 m. Nothing is said.
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

warnings.simplefilter("error")
as_seen = True


def show(text, found, numbers, unit):
    global as_seen
    print(f"{text}: {found!r}")
    as_seen &= np.allclose(np.asarray(found), numbers)
    named = found.dimensionality.string if isinstance(found, pq.Quantity) else None
    as_seen &= named == unit


metres, centimetres = pq.Quantity([2.0, 3.0], "m"), pq.Quantity([250.0, 40.0], "cm")
show("sum", metres + centimetres, [4.5, 3.4], "m")
show("remainder", metres % centimetres, [2, 0.2], "m")
show("quotient //", metres // centimetres, [0, 0], "m/cm")
show("clip", metres.clip(pq.Quantity(20, "cm"), pq.Quantity(250, "cm")), [2, 2.5], "m")
for name in ("maximum", "hypot"):
    try:
        print(getattr(np, name)(metres, centimetres))
        as_seen = False
    except ValueError as error:
        print(f"{name}: {error}")
show("concatenate", np.concatenate([metres, centimetres]), [2, 3, 250, 40], "dimensionless")
show("where", np.where([True, False], metres, centimetres), [2, 40], None)
places = pq.Quantity([1.0, 2.0], "m")
show("interp", np.interp(pq.Quantity([150.0], "cm"), places, [0.0, 1.0]), [1], None)
whole = pq.Quantity([1, 3], "m")
whole[0] = pq.Quantity(50, "cm")
show("50 cm put into whole metres", whole, [0, 3], "m")
sys.exit(0 if as_seen else "This has changed.")
END
