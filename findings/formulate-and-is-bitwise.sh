#!/bin/sh
# A selection of ROOT such as "nMuon && nElectron" is true where both are not zero, and "!nMuon" where there is
# none. formulate 1.1.0 translates it to Python and numexpr with bitwise operators: of one muon and two electrons,
# 1 & 2 is 0, and the event is lost, while 1 and 3 pass; "a || b" of counts is a number that is no mask, and !1 in
# numexpr is ~1 = -2, which is true. min(x, y) becomes np.min(x, y), where y is an axis. Where both sides are
# comparisons, the translation is right: "nMuon != 0 && nElectron != 0" selects what ROOT does.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    formulate==1.1.0 numexpr==2.14.1 numpy==2.3.5 || exit 2
venv/bin/python -I -W error - <<'END'
import sys

import formulate
import numexpr
import numpy as np

counts = {"nMuon": np.array([1, 1, 0, 2]), "nElectron": np.array([2, 3, 5, 2])}
texts = ["nMuon && nElectron", "nMuon || nElectron", "!nMuon", "nMuon != 0 && nElectron != 0"]
found = {}
for text in texts:
    made = formulate.from_root(text)
    python = np.asarray(eval(made.to_python(), {"np": np, **counts}))
    by_numexpr = numexpr.evaluate(made.to_numexpr(), counts)
    found[text] = python.tolist(), by_numexpr.tolist()
    print(f"{text}: {made.to_python()} = {python.tolist()}, {made.to_numexpr()} = {by_numexpr.tolist()}")
as_seen = found[texts[0]] == ([0, 1, 0, 2],) * 2
as_seen &= found[texts[1]] == ([3, 3, 5, 2],) * 2
as_seen &= found[texts[2]] == ([False, False, True, False], [-2, -2, -1, -3])
as_seen &= found[texts[3]] == ([True, True, False, True],) * 2
least = formulate.from_root("min(x, y)").to_python()
print("min(x, y):", least)
as_seen &= least == "np.min(x, y)"
sys.exit(0 if as_seen else "This has changed.")
END
