#!/bin/sh
# A weight that is looked up for NaN should be an error where the correction says flow="error", and
# it should not depend on whether the same edges are written as a list or as n, low and high.
# correctionlib 2.9.0 raises for the list. For uniform edges NaN is in the first bin, whatever flow
# says, and the weight of the first bin is returned. With flow="clamp" NaN has the weight of the
# last bin by one form and that of the first by the other; with a default value only the list gives
# it. So broken events get a plausible weight, and rewriting edges to the shorter form changes it.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    correctionlib==2.9.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import correctionlib.schemav2 as schema
import numpy as np

forms = {
    "list": [0.0, 10.0, 20.0, 30.0],
    "uniform": schema.UniformBinning(n=3, low=0.0, high=30.0),
}
seen = {}
for flow in ("error", "clamp", -99.0):
    for name, edges in forms.items():
        bins = schema.Binning(
            nodetype="binning", input="pt", edges=edges, content=[1.0, 2.0, 3.0], flow=flow
        )
        evaluate = schema.Correction(
            name="weight",
            version=1,
            inputs=[schema.Variable(name="pt", type="real")],
            output=schema.Variable(name="weight", type="real"),
            data=bins,
        ).to_evaluator().evaluate
        assert evaluate(np.array([0.0, 15.0, 29.0])).tolist() == [1, 2, 3]
        try:
            seen[flow, name] = float(evaluate(float("nan")))
        except RuntimeError as error:
            seen[flow, name] = "error"
        print(f"flow {flow}, edges as {name}: the weight of NaN is {seen[flow, name]}")

as_seen = seen == {
    ("error", "list"): "error",
    ("error", "uniform"): 1,
    ("clamp", "list"): 3,
    ("clamp", "uniform"): 1,
    (-99.0, "list"): -99,
    (-99.0, "uniform"): 1,
}
sys.exit(0 if as_seen else "This has changed.")
END
