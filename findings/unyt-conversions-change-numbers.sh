#!/bin/sh
# Converting units should give the quantity that was there. unyt 3.2.0 converts int8, uint8, int16 and
# uint16 in float16: 700 m in centimetres are infinite (NumPy warns of a cast), 3333 m in metres are
# 3332 m, without a word. Percent, and other ratios that are one unit, stay as they are in functions
# and exponents: exp(50 %) is 5e21, not 1.65, where 50 cm / 1 m gives 1.65 and 1 - 50 % is 0.5. And
# degrees Celsius with kelvins, which "-" refuses, are taken as bare numbers where the kelvins stand
# second: 30 degC > 290 K is false, np.maximum and "+" give 290 and 320 degC. Detectors, altimeters
# and thermometers write 16 bits.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    unyt==3.2.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np
import unyt

as_seen = True


def show(text, compute, expected, warns=False):
    global as_seen
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = compute()
    print(f"{text}: {found} {getattr(found, 'dtype', '')}", *(str(one.message) for one in said))
    as_seen &= np.allclose(np.asarray(found), expected) and bool(said) == warns


metres = np.array([700, 3333], "i2")
inf = np.inf
show("int16, to cm", lambda: unyt.unyt_array(metres, "m").to("cm"), [inf, inf], True)
show("int16, to m", lambda: unyt.unyt_array(metres, "m").to("m"), [700, 3332])
show("int64, to cm", lambda: unyt.unyt_array(metres.astype("i8"), "m").to("cm"), [7e4, 333300])

half = unyt.unyt_array([50.0], "percent")
ratio = unyt.unyt_array([50.0], "cm") / unyt.unyt_array([1.0], "m")
show("1 - 50 %", lambda: 1 - half, [0.5])
show("exp(50 cm / 1 m)", lambda: np.exp(ratio), np.exp(0.5))
show("exp(50 %)", lambda: np.exp(half), np.exp(50))
show("exp(50 cm/m)", lambda: np.exp(unyt.unyt_array([50.0], "cm/m")), np.exp(50))
show("4 ** 50 %", lambda: unyt.unyt_array([4.0], "") ** half[0], 4.0**50)

celsius, kelvin = unyt.unyt_array([10.0, 30.0], "degC"), unyt.unyt_array([290.0] * 2, "K")
print("10 and 30 degC are", celsius.to("K"))
show("10 and 30 degC > 290 K", lambda: celsius > kelvin, [False, False])
show("the larger of them", lambda: np.maximum(celsius, kelvin), [290, 290])
show("their sum", lambda: celsius + kelvin, [300, 320])
for text, compute in (
    ("difference", lambda: celsius - kelvin),
    ("290 K < 10 and 30 degC", lambda: kelvin < celsius),
):
    try:
        print(text, compute())
        as_seen = False
    except unyt.exceptions.InvalidUnitOperation as error:
        print(f"{text}: {type(error).__name__}")
sys.exit(0 if as_seen else "This has changed.")
END
